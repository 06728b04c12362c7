"""Which versions of the frameworks a project declares, in the files that projects have."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnlint.assumptions import Versions
from bnlint.source.requirements import declared_versions, parse_versions


@pytest.mark.parametrize(
    "text, lowest, below",
    [
        ("3.15", (3, 15), (3, 16)),
        ("==2.13.0", (2, 13, 0), (2, 13, 1)),
        (">=3", (3,), None),
        (">=3,<4", (3,), (4,)),
        ("<3", None, (3,)),
        ("<=2.15", None, (2, 16)),
        ("~=2.4", (2, 4), (3,)),
        ("~=2.4.1", (2, 4, 1), (2, 5)),
        ("^2.1", (2, 1), (3,)),
        (">=2,!=2.3", (2,), None),
    ],
)
def test_a_range_is_what_its_clauses_leave(text: str, lowest: tuple[int, ...] | None, below: tuple[int, ...]) -> None:
    assert parse_versions(text, "here") == Versions(lowest, below, "here")


@pytest.mark.parametrize("text", ["", "three", "3.x", ">=", "3.15 or so"])
def test_what_is_no_version_is_none(text: str) -> None:
    assert parse_versions(text, "here") is None


def test_a_range_tells_what_it_can() -> None:
    versions = Versions((2, 9), (3,))
    assert versions.at_least(2, 9) is True
    assert versions.at_least(3) is False
    assert versions.at_least(2, 10) is None
    assert Versions().at_least(1) is None


@pytest.mark.parametrize(
    "file, text, expected",
    [
        ("requirements.txt", "numpy\ntorch==2.1.0+cu118  # the one that works\n", ((2, 1, 0), (2, 1, 1))),
        ("requirements.txt", "torch >= 1.8, < 2 ; python_version > '3'\n", ((1, 8), (2,))),
        ("requirements.txt", "torchvision==0.9\n-r other.txt\n", None),
        ("environment.yml", "dependencies:\n  - pytorch::torch=1.7\n  - pip:\n    - torch==1.7.1\n", ((1, 7), (1, 8))),
        ("environment.yml", "dependencies:\n  - pytorch=1.7.0=py3.8_cuda\n", ((1, 7, 0), (1, 7, 1))),
        ("setup.cfg", "install_requires =\n    torch>=2\n", ((2,), None)),
        ("pyproject.toml", '[project]\ndependencies = ["torch[opt]>=2.4"]\n', ((2, 4), None)),
        ("pyproject.toml", '[dependency-groups]\ntest = ["torch<3", {include-group = "x"}]\n', (None, (3,))),
        ("pyproject.toml", '[tool.poetry.dependencies]\ntorch = {version = "^2.1"}\n', ((2, 1), (3,))),
        ("pyproject.toml", "torch = [\n", None),
        ("uv.lock", '[[package]]\nname = "torch"\nversion = "2.13.0"\n', ((2, 13, 0), (2, 13, 1))),
    ],
)
def test_torch_is_found(tmp_path: Path, file: str, text: str, expected: tuple[object, object] | None) -> None:
    (tmp_path / file).write_text(text)
    torch, _ = declared_versions(str(tmp_path))
    assert torch == (Versions(*expected, file) if expected else Versions())  # type: ignore[arg-type]


def test_a_lock_file_comes_before_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("keras>=2\n")
    (tmp_path / "poetry.lock").write_text('[[package]]\nname = "Keras"\nversion = "3.15.1"\n')
    assert declared_versions(str(tmp_path))[1] == Versions((3, 15, 1), (3, 15, 2), "poetry.lock")


@pytest.mark.parametrize(
    "text, three",
    [
        ("tensorflow==2.15.0", False),
        ("tensorflow-cpu>=2.16", True),
        ("tensorflow>=2.4", None),
        ("tensorflow-gpu==1.14", False),
        ("tensorflow<2.16", False),
        ("tensorflow==2.15\nkeras>=3", True),
        ("tensorflow", None),
        ("numpy", None),
    ],
)
def test_tensorflow_tells_which_keras_comes_with_it(tmp_path: Path, text: str, three: bool | None) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    assert declared_versions(str(tmp_path))[1].at_least(3) is three


def test_what_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"torch==2\xff")
    (tmp_path / "pyproject.toml").mkdir()
    assert declared_versions(str(tmp_path)) == (Versions(), Versions())
