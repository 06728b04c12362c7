"""The question the project began with, through the command as a stranger runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = "fixtures/stackoverflow"


@pytest.fixture(scope="module")
def findings() -> dict[tuple[str, str], dict[str, Any]]:
    if find_spec("torch") is None or find_spec("keras") is None:
        pytest.skip("torch and keras are not installed")
    options = ("--verify", "--device", "cpu", "--no-cache", "--format", "json")
    command = [sys.executable, "-m", "bnlint", *options, PROGRAMS]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    return {(Path(found["path"]).name, found["code"]): found for found in json.loads(run.stdout)["findings"]}


def test_exactly_the_three_pitfalls_are_found_and_confirmed(findings: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert set(findings) == {("question.py", "BNL010"), ("question.py", "BNL210"), ("port.py", "BNL101")}
    assert all(found["verification"]["verdict"] == "confirmed" for found in findings.values())


def test_pytorch_gives_zero_in_train_mode_and_nearly_one_in_eval_mode(
    findings: dict[tuple[str, str], dict[str, Any]],
) -> None:
    measured = findings["question.py", "BNL010"]["verification"]["measurements"]
    assert measured["output_train"] == 0.0
    assert measured["output_eval"] == pytest.approx((1 + 1e-5) ** -0.5, abs=1e-6)


def test_keras_gives_nearly_one_by_default_and_zero_in_training(
    findings: dict[tuple[str, str], dict[str, Any]],
) -> None:
    measured = findings["question.py", "BNL210"]["verification"]["measurements"]
    assert measured["output_default"] == pytest.approx((1 + 1e-3) ** -0.5, abs=1e-6)
    assert measured["output_training_true"] == 0.0


def test_the_copied_momentum_forgets_all_but_the_last_batch(findings: dict[tuple[str, str], dict[str, Any]]) -> None:
    measured = findings["port.py", "BNL101"]["verification"]["measurements"]
    assert measured["effective_batches"] == pytest.approx((2 - 0.99) / 0.99, rel=1e-3)


def test_the_programs_do_what_the_verifier_says() -> None:
    """The programs themselves, run: the verifier rebuilt the layers from the text alone."""
    if find_spec("torch") is None or find_spec("tensorflow") is None:
        pytest.skip("torch and tensorflow are not installed")
    question, answer = (
        subprocess.run([sys.executable, f"{PROGRAMS}/{name}.py"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in ("question", "answer")
    )
    assert "tensor(0., grad_fn" in question.stdout
    assert "0.9995003" in question.stdout
    assert "tensor(1.0000, grad_fn" in answer.stdout
