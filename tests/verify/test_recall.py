"""Verdicts of earlier runs: used where nothing has changed that they rest on, and nothing else is."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bnlint.cache import DIRECTORY, ResultCache
from bnlint.experiment import Experiment
from bnlint.finding import Curve, Finding, Plot, Verdict, Verification
from bnlint.frozen import freeze_verification, thaw_verification
from bnlint.verify import runner, verify

MakeFinding = Callable[..., Finding]

FULL = Verification(
    Verdict.REFUTED,
    "why",
    "cpu",
    "torch",
    {"torch": "2.13.0"},
    {"gap": 0.5, "chosen": ["a"]},
    (Plot("t", "x", "y", (0.0, 1.0), (Curve("a", (0.1, None)),), True, Curve("r", (3.0,))),),
)


class Runs:
    """Stands in for the children and counts what they are asked; the verdict can be set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = (FULL, True)

    def run(
        self, batches: Mapping[str, list[Experiment]], device: str, limit: float, path: list[str], plots: bool
    ) -> dict[str, list[runner.Answer]]:
        self.asked += [its.kind for experiments in batches.values() for its in experiments]
        return {framework: [self.answer] * len(experiments) for framework, experiments in batches.items()}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    standing_in = Runs()
    monkeypatch.setattr(runner, "run", standing_in.run)
    return standing_in


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, the first on the path."""
    folder = tmp_path / "lib" / "site-packages"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").touch()
    (folder / "torch-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


@pytest.fixture
def again(runs: Runs, packages: Path, make_finding: MakeFinding, torch_experiment: Experiment) -> Callable[..., int]:
    """How many experiments are measured when this one is verified (once more)."""

    def ask(experiment: Experiment = torch_experiment, device: str = "cpu", plots: bool = False) -> int:
        del runs.asked[:]
        with ResultCache.open(".") as cache:
            (verified,) = verify([make_finding(experiment)], device, plots=plots, cache=cache)
        assert verified.verification == runs.answer[0]
        return len(runs.asked)

    return ask


def test_a_verdict_survives_whole() -> None:
    assert thaw_verification(freeze_verification(FULL)) == FULL
    for wrong in ("{}", "[]", "1", '{"plots": [], "verdict": "odd"}', "no JSON"):
        with pytest.raises(ValueError):
            thaw_verification(wrong)


def test_the_same_is_measured_once(again: Callable[..., int]) -> None:
    assert [again(), again()] == [1, 0]


def test_experiment_device_and_pictures_count(
    again: Callable[..., int], torch_experiments: Mapping[str, Experiment]
) -> None:
    assert [again(), again(torch_experiments["seed"]), again(device="auto"), again(plots=True)] == [1, 1, 1, 1]
    assert [again(), again(torch_experiments["seed"]), again(device="auto"), again(plots=True)] == [0, 0, 0, 0]


def test_another_version_counts(again: Callable[..., int], packages: Path) -> None:
    assert [again(), again()] == [1, 0]
    (packages / "torch-1.0.dist-info").rename(packages / "torch-1.1.dist-info")
    assert [again(), again()] == [1, 0]
    os.utime(packages / "torch" / "__init__.py", ns=(1, 1))
    assert [again(), again()] == [1, 0]
    (packages / "onnxruntime-1.0.dist-info").mkdir()
    assert [again(), again()] == [1, 0]
    (packages / "requests-1.0.dist-info").mkdir()
    assert again() == 0


def test_hidden_devices_and_own_code_count(again: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [again(), again()] == [1, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert [again(), again()] == [1, 0]
    from bnlint import fingerprint

    real = fingerprint.installed
    monkeypatch.setattr(fingerprint, "installed", lambda cache: real(cache)._replace(fingerprint="another"))
    assert [again(), again()] == [1, 0]


def test_what_may_go_otherwise_the_next_time_is_not_kept(again: Callable[..., int], runs: Runs) -> None:
    runs.answer = (Verification(Verdict.INCONCLUSIVE, "torch took longer than 3 s"), False)
    assert [again(), again()] == [1, 1]


@pytest.mark.parametrize(
    ("answer", "lasts"),
    [
        (None, False),
        ({"fallback": "", "passing": False}, True),
        ({"fallback": "", "passing": True}, False),
        ({"fallback": "out of memory on cuda, measured on the CPU", "passing": False}, False),
    ],
)
def test_which_answers_last(answer: dict[str, object] | None, lasts: bool) -> None:
    assert runner._lasts(answer) is lasts


def test_what_is_broken_in_the_cache_is_measured_anew(again: Callable[..., int]) -> None:
    assert again() == 1
    with sqlite3.connect(Path(DIRECTORY, "results.sqlite3")) as database:
        ((text,),) = database.execute("SELECT text FROM verdicts").fetchall()
        assert json.loads(text)["reason"] == "why"
        database.execute("UPDATE verdicts SET text = '{}'")
    database.close()
    assert [again(), again()] == [1, 0]


def test_without_a_cache_everything_is_measured(
    runs: Runs, make_finding: MakeFinding, torch_experiment: Experiment
) -> None:
    for _ in range(2):
        verify([make_finding(torch_experiment)], "cpu", cache=ResultCache())
    assert len(runs.asked) == 2
    assert not Path(DIRECTORY).exists()
