"""How long ``bnlint --verify`` takes, beside what it cannot do without.

    python benchmarks/verify.py                 # all parts, seven rounds
    python benchmarks/verify.py --rounds 3 one

Needs an environment with bnlint and both frameworks, and a quiet machine. Measured are whole processes on the CPU, from
start to end; commands take turns, and medians are compared.

- *one*: a file with one PyTorch finding, linted, and verified without a cache, beside ``python -c "import torch"``;
  and verified once more, the verdict being known.
- *many*: 1 000 experiments that all differ, beside one: for PyTorch the momentum, the eps and the modes of layers of
  different sizes, a third each; for Keras each kind that is measured for many layers at once, with different momenta.
- *heavy*: 20 different experiments of each of the other kinds, beside one. What 1 000 would take over one is
  extrapolated from that: (one + 999 x each) / one.
- *both*: a finding of each framework, apart and in one run.

Prints Markdown. A bar that is missed does not change the exit status.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bnlint.experiment import Experiment, LayerSpec, Scalar
from bnlint.finding import Confidence, Finding, Location, Severity
from bnlint.verify import LONGEST_TIME_LIMIT, verify

PARTS = ("one", "many", "heavy", "both")
MANY = 1_000
HEAVY = 20
TORCH = """\
from torch import nn

model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64, momentum=0.99))
"""
KERAS = """\
from keras import layers

norm = layers.BatchNormalization(momentum=0.1)
"""
KINDS: Mapping[str, dict[str, Scalar]] = {
    "second-epoch": {},
    "mode-in-forward": {"method": "eval"},
    "freeze-drift": {"how": "requires-grad"},
    "fresh-layer": {},
    "container-reach": {"container": "list"},
    "training-flag": {"on_layer": False},
    "mode-override": {"method": "train", "fault": "no-super"},
    "mc-dropout": {},
    "trace-parity": {},
    "export-parity": {"exporter": "torch.export.export"},
    "ema-buffers": {"buffers": "ignored"},
    "swa-buffers": {"update_bn": False},
    "eval-dependence": {},
    "functional-flag": {"function": "torch.nn.functional.batch_norm"},
    "checkpoint-updates": {},
    "noise-run": {},
    "shared-statistics": {},
    "degenerate-momentum": {},
    "eps-carried": {"eps_of_source": 1e-3},
    "bias-gradient": {"before": "Conv2d"},
    "dropout-shift": {"dropout": "Dropout", "rate": 0.5},
    "norm-fit": {"before": "Conv2d", "rank": 4, "features": 8},
}
KERAS_MANY = ("momentum-memory", "inference-gap", "tape-step", "training-literal", "always-training")
KERAS_KINDS: Mapping[str, dict[str, Scalar]] = {
    "fit-epoch": {"how": "no-training-parameter"},
    "degenerate-momentum": {},
    "axis-layout": {"before": "Conv2D", "data_format": "channels_first", "filters": 8},
    "bias-gradient": {"before": "Conv2D"},
    "dropout-shift": {"dropout": "Dropout", "rate": 0.5},
    "weights-order": {"order": "gamma,beta,moving_variance,moving_mean"},
    "update-ops": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--rounds", type=int, default=7, help="how often each command runs (default 7)")
    parser.add_argument("--ask", nargs=2, metavar=("WHAT", "COUNT"), help="measure COUNT experiments and do no more")
    options = parser.parse_args()
    if options.ask:
        ask(options.ask[0], int(options.ask[1]))
        return
    if unknown := set(options.parts).difference(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {options.rounds} rounds.")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "pyproject.toml").write_text("[tool.bnlint]\n", encoding="utf-8")
        (work / "net.py").write_text(TORCH, encoding="utf-8")
        (work / "port.py").write_text(KERAS, encoding="utf-8")
        for part in dict.fromkeys(options.parts or PARTS):
            globals()[f"measure_{part}"](work, options.rounds)


def measure_one(work: Path, rounds: int) -> None:
    python, bnlint = [sys.executable, "-c"], [sys.executable, "-m", "bnlint"]
    verifying = [*bnlint, "--verify", "--device", "cpu", "net.py"]
    medians = alternate(
        {
            'python -c "import torch"': [*python, "import torch"],
            "bnlint": [*bnlint, "--no-cache", "net.py"],
            "bnlint --verify": [*verifying, "--no-cache"],
            "bnlint --verify, verdict known": verifying,
            "bnlint, results known": [*bnlint, "net.py"],
        },
        work,
        rounds,
    )
    show("One PyTorch finding", medians)
    bar = 1.5 * medians['python -c "import torch"'] + medians["bnlint"]
    judge("bnlint --verify, over 1.5 x import + lint", medians["bnlint --verify"] / bar, 1)


def measure_many(work: Path, rounds: int) -> None:
    kinds = ("many", *(f"keras {kind}" for kind in KERAS_MANY))
    commands = {f"{kind}, {count}": asking(kind, count) for kind in kinds for count in (1, MANY)}
    medians = alternate(commands, work, rounds)
    show("Many experiments", medians)
    for kind in kinds:
        judge(f"{kind}: {MANY} different ones, times one", medians[f"{kind}, {MANY}"] / medians[f"{kind}, 1"], 2)


def measure_heavy(work: Path, rounds: int) -> None:
    kinds = (*KINDS, *(f"keras {kind}" for kind in KERAS_KINDS))
    commands = {f"{kind}, {count}": asking(kind, count) for kind in kinds for count in (1, HEAVY)}
    medians = alternate(commands, work, min(rounds, 3))
    print(f"\n| kind | one, s | each more, ms | {MANY} over one |\n| --- | --- | --- | --- |")
    for kind in kinds:
        one = medians[f"{kind}, 1"]
        each = max(0.0, (medians[f"{kind}, {HEAVY}"] - one) / (HEAVY - 1))
        print(f"| {kind} | {one:.2f} | {1000 * each:.1f} | {(one + (MANY - 1) * each) / one:.1f} |")


def measure_both(work: Path, rounds: int) -> None:
    verifying = [sys.executable, "-m", "bnlint", "--verify", "--no-cache", "--device", "cpu"]
    files = {"PyTorch": ["net.py"], "Keras": ["port.py"], "both": ["net.py", "port.py"]}
    medians = alternate({name: [*verifying, *names] for name, names in files.items()}, work, rounds)
    show("Both frameworks", medians)
    slower = max(medians["PyTorch"], medians["Keras"])
    print(f"\nBoth together take {medians['both'] / slower:.2f} times what the slower one takes alone.")


def asking(what: str, count: int) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--ask", what, str(count)]


def ask(what: str, count: int) -> None:
    """Verify that many different experiments of a framework, or of a kind for PyTorch."""
    if what == "many":
        experiments = [torch_experiment(number) for number in range(count)]
    elif what.startswith("keras "):
        experiments = [keras_experiment(what.removeprefix("keras "), number) for number in range(count)]
    else:
        layers = [LayerSpec("torch.nn.BatchNorm2d", {"num_features": 32 + number}) for number in range(count)]
        experiments = [Experiment(what, "torch", (layer,), options=KINDS[what]) for layer in layers]
    assert len({repr(experiment) for experiment in experiments}) == count
    at = Location("net.py", 1, 1, 1, 2)
    findings = [
        Finding(at, "BNL101", "n", "m", Severity.INFO, Confidence.LIKELY, experiment=experiment)
        for experiment in experiments
    ]
    answers = [finding.verification for finding in verify(findings, "cpu", LONGEST_TIME_LIMIT)]
    assert all(answer is not None and answer.measurements for answer in answers), answers[0]


def torch_experiment(number: int) -> Experiment:
    kind = ("momentum-memory", "eps-gap", "mode-gap")[number % 3]
    arguments: dict[str, Scalar] = {"num_features": 16 + number % 97}
    name, value = {
        "momentum-memory": ("momentum", (number + 1) / (MANY + 2)),
        "eps-gap": ("eps", (number + 1) / (MANY + 2)),
        "mode-gap": ("momentum", (number + 1) / (MANY + 2)),
    }[kind]
    return Experiment(kind, "torch", (LayerSpec("torch.nn.BatchNorm2d", {**arguments, name: value}),))


def keras_experiment(kind: str, number: int) -> Experiment:
    layer = LayerSpec("keras.layers.BatchNormalization", {"momentum": (number + 1) / (MANY + 2)})
    return Experiment(kind, "keras", (layer,), options=KERAS_KINDS.get(kind, {}))


def alternate(commands: Mapping[str, Sequence[str]], work: Path, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _, (name, command) in itertools.product(range(rounds), commands.items()):
        began = time.perf_counter()
        done = subprocess.run(command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        seconds[name].append(time.perf_counter() - began)
        if done.returncode not in (0, 1) or b"Traceback" in done.stderr:
            sys.exit(f"{name} failed: {done.stderr.decode(errors='replace')}")
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, medians: Mapping[str, float]) -> None:
    print(f"\n## {title}\n\n| command | median, s |\n| --- | --- |")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} |")


def judge(what: str, measured: float, bar: float) -> None:
    print(f"\n{what}: {measured:.2f}; at most {bar:g}: {'reached' if measured <= bar else 'missed'}.")


if __name__ == "__main__":
    main()
