"""Devices: asked for and missing here, and the same verdicts on a GPU where there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec

import pytest

from bnlint.experiment import Experiment
from bnlint.finding import Verdict, Verification

Ask = Callable[..., list[Verification]]
Answers = Mapping[str, Verification]

QUESTION = (
    "import torch; print('cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else '')"
)


@cache
def accelerator() -> str:
    """The accelerator that torch sees here, or ''. Asked of another process: this one imports no framework."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    done = subprocess.run([sys.executable, "-c", QUESTION], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def test_a_device_that_is_missing_is_named(ask: Ask, torch_experiment: Experiment) -> None:
    missing = "mps" if accelerator() == "cuda" else "cuda"
    if accelerator() == missing:
        pytest.skip("both kinds of accelerator are here")
    answer = ask([torch_experiment], missing)[0]
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert f"device {missing} was asked for" in answer.reason


def test_a_missing_device_is_named_for_keras_too(ask: Ask, keras_experiment: Experiment) -> None:
    if find_spec("keras") is None:
        pytest.skip("keras is not installed")
    missing = "cuda" if sys.platform == "darwin" else "mps"
    answer = ask([keras_experiment], missing)[0]
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert f"device {missing} was asked for" in answer.reason


def test_a_card_that_cannot_be_used_is_passed_over_and_named() -> None:
    """As where the driver does not fit: it is found, and the first computation fails."""
    if find_spec("torch") is None or accelerator():
        pytest.skip("torch is not installed, or finds a GPU that works")
    code = (
        "import torch; torch.cuda.is_available = lambda: True\n"
        "from bnlint.verify.backends.torch import open_backend\n"
        "backend = open_backend('auto'); print(backend.device, backend.fallback)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cpu torch ") and "cannot use cuda: " in done.stdout
    assert done.stdout.endswith("; measured on the CPU\n")


@pytest.mark.gpu
def test_the_gpu_gives_the_same_verdicts(
    ask: Ask,
    torch_experiments: Mapping[str, Experiment],
    torch_mistakes: Mapping[str, Experiment],
    on_torch: Answers,
    on_torch_mistakes: Answers,
) -> None:
    if not accelerator():
        pytest.skip("torch finds no GPU here")
    experiments = {**torch_experiments, **torch_mistakes}
    on_cpu = {**on_torch, **on_torch_mistakes}
    answers = ask(list(experiments.values()), "auto", time_limit=300)
    for (name, experiment), answer in zip(experiments.items(), answers, strict=True):
        assert answer.verdict is on_cpu[name].verdict, f"{name}: {answer.reason}"
        if answer.measurements and experiment.kind == "eps-gap":
            assert answer.measurements["scale"] == pytest.approx(on_torch[name].measurements["scale"], rel=1e-5)
        assert answer.device == accelerator()
