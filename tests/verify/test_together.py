"""Many layers that are measured at once: the answers are those that each layer gets alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bnlint.experiment import Experiment, LayerSpec
from bnlint.finding import Verification
from bnlint.verify import child, runner

Ask = Callable[..., list[Verification]]

KERAS_KINDS = ("inference-gap", "tape-step", "training-literal", "momentum-memory", "always-training")


def momentum_memory(momentum: Any, kind: str = "BatchNorm2d", **more: Any) -> Experiment:
    layer = LayerSpec(f"torch.nn.{kind}", {"num_features": 8, "momentum": momentum, **more})
    return Experiment("momentum-memory", "torch", (layer,))


def keras_layers() -> list[LayerSpec]:
    """Three stacks, by their arguments, and what is in none."""
    given: list[dict[str, Any]] = [
        *({"momentum": momentum} for momentum in (0.1, 0.9, 0.99999, 0.003)),
        {"epsilon": 0.1},
        {"momentum": 0.2, "epsilon": 1e-8},
        *({"momentum": momentum, "axis": 1, "epsilon": momentum} for momentum in (0.2, 0.97)),
        *({"momentum": momentum, "trainable": False} for momentum in (0.2, 0.97)),
    ]
    alone: list[dict[str, Any]] = [
        {"momentum": 0.4, "scale": False},
        *({"momentum": momentum} for momentum in (1.0, 0.0, 0)),
        {"momentum": 0.9, "no_such_argument": 1},
        {"momentum": 0.8, "no_such_argument": 1},
        {"momentum": 0.9, "epsilon": "1e-3"},
    ]
    norms = [LayerSpec("keras.layers.BatchNormalization", arguments) for arguments in [*given, *alone]]
    return [*norms, *(LayerSpec("keras.layers.Dropout", {"rate": rate}) for rate in (0.5, 0.2))]


STACKED = 10


def assert_close(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, float):
            assert value == pytest.approx(other[name], rel=2e-6, abs=1e-8), name
        else:
            assert value == other[name], name


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_answers_are_those_that_each_layer_gets_alone(ask: Ask) -> None:
    alike = [momentum_memory(momentum) for momentum in (0.9, 0.99, 0.1, 0.003, 0.5)]
    others = [
        *(momentum_memory(momentum, "BatchNorm1d", eps=0.1) for momentum in (0.2, 0.97)),
        *(momentum_memory(momentum) for momentum in (None, 1.0, 0, 5.0)),
        momentum_memory(0.9, track_running_stats=False),
        momentum_memory(0.9, no_such_argument=1),
        momentum_memory(0.9, num_features=-1),
        momentum_memory(0.9, "InstanceNorm2d", track_running_stats=True),
        momentum_memory(0.9, "LazyBatchNorm2d"),
    ]
    together = ask([*alike, *others])
    assert len(alike) >= child.FEW
    # Fewer than three of a kind are measured one by one.
    pairs = [[*alike, *others][start : start + 2] for start in range(0, len(together), 2)]
    alone = [answer for pair in pairs for answer in ask(pair)]
    for one, other in zip(together, alone, strict=True):
        assert (one.verdict, one.reason) == (other.verdict, other.reason)
        assert_close(one.measurements, other.measurements)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_layers_of_another_size_get_what_each_gets_alone(ask: Ask) -> None:
    sizes = (8, 32)
    kinds: dict[str, dict[str, Any]] = {
        "swa-buffers": {},
        "dropout-shift": {"dropout": "Dropout", "rate": 0.5},
        "degenerate-momentum": {},
    }
    for_size = {
        size: [
            Experiment(kind, "torch", (LayerSpec("torch.nn.BatchNorm2d", {"num_features": size}),), options=options)
            for kind, options in kinds.items()
        ]
        for size in sizes
    }
    together, alone = ask([*for_size[8], *for_size[32]])[len(kinds) :], ask(for_size[32])
    assert [one.measurements["layer"] for one in together] == ["BatchNorm2d(num_features=32)"] * len(kinds)
    assert [one.measurements for one in together] == [one.measurements for one in alone]


#: Prints, for each kind, what the layers on standard input get together, and what those of them get alone; last, which
#: layers are measured together if a stack takes the momenta of its layers for each other's.
ASKED = """
import json, sys
from bnlint.experiment import Experiment, LayerSpec
from bnlint.verify.backends.keras import open_backend, stack

layers = [LayerSpec(kind, arguments) for kind, arguments in json.load(sys.stdin)]
backend = open_backend("cpu")
for kind in sys.argv[1:]:
    together = backend.measure_together(kind, layers, "cpu")
    experiments = [facts and Experiment(kind, "keras", (layer,)) for layer, facts in zip(layers, together)]
    alone = [its and backend.measure(its, its.layers[0], "cpu") for its in experiments]
    print(json.dumps([together, alone]))
right = stack.Stack.hyperparameters.func
stack.Stack.hyperparameters = property(lambda self: [values[::-1] for values in right(self)])
print(json.dumps([facts is not None for facts in backend.measure_together("tape-step", layers[:6], "cpu")]))
"""


@pytest.mark.parametrize("engine", ["tensorflow", "torch"])
def test_stacked_layers_of_keras_get_what_each_gets_alone(engine: str, tmp_path: Path) -> None:
    for package in ("keras", engine):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    layers = [(layer.kind, layer.arguments) for layer in keras_layers()]
    done = subprocess.run(
        [sys.executable, "-c", ASKED, *KERAS_KINDS],
        input=json.dumps(layers),
        capture_output=True,
        text=True,
        env=runner._environment(engine, "cpu", str(tmp_path)),
        check=True,
    )
    *measured, mistaken = map(json.loads, done.stdout.splitlines())
    assert mistaken == [False] * 6
    for kind, (together, alone) in zip(KERAS_KINDS, measured, strict=True):
        # Frozen layers do not show the statistics of a batch, as the one that is measured alone tells.
        stacked = STACKED - 2 * (kind == "momentum-memory")
        assert [facts is not None for facts in together] == [place < stacked for place in range(len(layers))], kind
        for one, other in zip(together[:stacked], alone, strict=False):
            assert_close(one, other)
