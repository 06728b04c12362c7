"""What a project tells bnlint of its own functions and classes, in ``[tool.bnlint]``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bnlint.cli import main
from bnlint.config import load_settings
from bnlint.errors import UsageError

Lint = Callable[[str, str], list[tuple[str, int]]]

MODEL = """\
import torch
from torch import nn
from mine.tools import evaluating, prepare, build, ABN
"""


@pytest.fixture
def lint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lint:
    """Codes and lines, counted from the end of ``MODEL``, in a program with these settings."""

    def run(settings: str, program: str) -> list[tuple[str, int]]:
        monkeypatch.chdir(tmp_path)
        Path("pyproject.toml").write_text(f"[tool.bnlint]\n{settings}\n")
        Path("program.py").write_text(MODEL + program)
        assert main(["--format", "json", "program.py"]) in (0, 1)
        found = json.loads(capsys.readouterr().out)["findings"]
        return [(finding["code"], finding["line"] - MODEL.count("\n")) for finding in found]

    return run


VALIDATE = """\
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
known = []
def arrange(model):
    known.append(model)
class Tools:
    def arrange(self, model):
        known.append(model)
def test(x):
    with torch.no_grad():
        return net(x)
"""


@pytest.mark.parametrize(
    "name, call, is_believed",
    [
        ("arrange", "arrange(net)", True),
        ("program.arrange", "arrange(net)", True),
        ("arrange", "Tools().arrange(net)", True),
        ("Tools.arrange", "Tools().arrange(net)", True),
        ("Tools.arrange", "arrange(net)", False),
        ("other.arrange", "arrange(net)", False),
        ("range", "arrange(net)", False),
    ],
)
def test_a_function_that_manages_modes_is_believed(lint: Lint, name: str, call: str, is_believed: bool) -> None:
    program = f"{VALIDATE}{call}\ntest(1)\n"
    assert lint("", program) == [("BNL002", 10)]
    assert lint(f'mode-managers = ["{name}"]', program) == ([] if is_believed else [("BNL002", 10)])


def test_methods_of_a_managed_class_are_run_in_the_right_mode(lint: Lint) -> None:
    program = """\
class Base:
    pass
class Loop(Base):
    def __init__(self):
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.net.load_state_dict(torch.load("net.pt"))
    def validate(self, x):
        with torch.no_grad():
            return self.net(x)
"""
    assert lint("", program) == [("BNL002", 9)]
    assert lint('managed-classes = ["Base"]', program) == []
    assert lint('managed-classes = ["program.Loop"]', program) == []


def test_a_batchnorm_class_has_the_arguments_and_convention_of_the_one_it_is_like(lint: Lint) -> None:
    program = """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = ABN(8, momentum=0.99)
"""
    assert lint("", program) == []
    assert lint('batchnorm-classes = { "mine.tools.ABN" = "torch" }', program) == [("BNL101", 4)]
    assert lint('batchnorm-classes = { ABN = "keras" }', program) == []


def test_a_factory_builds_what_is_said(lint: Lint) -> None:
    program = VALIDATE.replace("nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))", "build()") + "test(1)\n"
    assert lint("", program) == []
    assert lint('model-factories = { "tools.build" = ["torch.nn.BatchNorm2d"] }', program) == [("BNL002", 10)]
    managed = program.replace("known = []", "net.train()")
    assert lint("", managed) == [("BNL002", 10)]
    assert lint('model-factories = { "tools.build" = [] }', managed) == []


@pytest.mark.parametrize(
    "settings, said",
    [
        ('mode-managers = "prepare"', "list of strings"),
        ('batchnorm-classes = { ABN = "jax" }', "none of torch, keras"),
        ('batchnorm-classes = ["ABN"]', "table"),
        ('model-factories = { build = "torch.nn.BatchNorm2d" }', "list of layers"),
        ('model-factories = { build = ["torch.nn.BatchNorm2"] }', "did you mean 'torch.nn.BatchNorm2d'"),
    ],
)
def test_a_wrong_lesson_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(f"[tool.bnlint]\n{settings}\n")
    with pytest.raises(UsageError, match=said):
        load_settings(".")
