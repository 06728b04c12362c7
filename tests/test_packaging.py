"""A built wheel, installed elsewhere and run from elsewhere, has its rules and nothing too much."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import bnlint
from bnlint.rule import registry

ROOT = Path(__file__).parent.parent
BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"
RULE_PACK = '''
from bnlint.finding import Confidence, Location, Severity
from bnlint.rule import Rule

class Shout(Rule):
    """Somebody shouts.

    {sections}
    """

    code = "ACM001"
    name = "shout"
    severity = Severity.INFO
    needles = ((b"SHOUT",),)

    def check(self, file):
        yield self.finding(Location("a.py", 1, 1, 1, 6), "do not shout", Confidence.CERTAIN)
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that neither stale build products get in nor new ones lie about."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("bnlint", "rules", "fixtures", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, source],
        check=True,
        capture_output=True,
    )
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment with the wheel, and with bnlint's dependencies copied from this one."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = next(path for path in (home / "bin/python", home / "Scripts/python.exe") if path.exists())
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for distribution in _dependencies("bnlint"):
        for file in importlib.metadata.distribution(distribution).files or ():
            if ".." not in file.parts:
                target = Path(packages, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    return python


def _dependencies(name: str, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """The names of all distributions that ``name`` needs without extras, directly or not."""
    for requirement in importlib.metadata.requires(name) or ():
        matched = re.match(r"[\w.-]+", requirement)
        assert matched
        if "extra ==" not in requirement and matched[0] not in known and _installed(matched[0]):
            known = _dependencies(matched[0], known | {matched[0]})
    return known


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False  # needed only by another version of Python
    return True


def run(python: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [python, *arguments],
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        check=False,
        timeout=120,
    )


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    expected = {
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / "bnlint").rglob("*.py")),
        *(f"bnlint/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "rules").rglob("*.py")),
        "bnlint/frameworks/catalogue.json",
        "bnlint/report/page.html.jinja",
        "bnlint/py.typed",
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_the_installed_command_finds_its_rules(python: Path, tmp_path: Path) -> None:
    listed = run(python, tmp_path, "-m", "bnlint", "--list-rules")
    assert listed.stderr == ""
    codes = {line.split()[0] for line in listed.stdout.splitlines() if re.match(r"\s+[A-Z]{3}\d{3} ", line)}
    assert codes == set(registry())

    (tmp_path / "a.py").write_text(BAD, encoding="utf-8")
    linted = run(python, tmp_path, "-m", "bnlint", "a.py")
    assert (linted.returncode, linted.stderr) == (1, "")
    assert linted.stdout.startswith("a.py:4:1: BNL001")


def test_there_is_no_top_level_module_called_rules(python: Path, tmp_path: Path) -> None:
    result = run(python, tmp_path, "-c", "import bnlint.rules, rules")
    assert "ModuleNotFoundError: No module named 'rules'" in result.stderr


def test_no_module_of_the_rules_is_loaded_twice() -> None:
    registry()
    assert "bnlint.rules" in sys.modules
    assert "rules" not in sys.modules


def test_the_wheel_declares_its_doors(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(entry_points).decode()
    assert "bnlint = bnlint.cli:main" in text
    assert "BNL = bnlint.flake8:Plugin" in text
    assert wheel.name.startswith(f"bnlint-{bnlint.__version__}-")


def _install_pack(directory: Path, text: str) -> None:
    from bnlint.rule import SECTIONS

    sections = "\n\n    ".join(f"## {section}" for section in SECTIONS)
    (directory / "acme_rules.py").write_text(text.replace("{sections}", sections), encoding="utf-8")
    information = directory / "acme-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n", encoding="utf-8")
    (information / "entry_points.txt").write_text("[bnlint.rules]\nacme = acme_rules\n", encoding="utf-8")


def bnlint_with(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bnlint", *arguments],
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(directory), "PYTHONIOENCODING": "utf-8"},
        check=False,
        timeout=120,
    )


def test_a_third_partys_pack_is_found(tmp_path: Path) -> None:
    _install_pack(tmp_path, RULE_PACK)
    (tmp_path / "a.py").write_text("SHOUT = 1\n", encoding="utf-8")
    result = bnlint_with(tmp_path, "--select", "ACM", "a.py")
    assert result.stdout.startswith("a.py:1:1: ACM001 shout")
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "class Shout",
            "raise OSError('broken')\nclass Shout",
            "rule pack 'acme' (acme_rules) cannot be loaded",
        ),
        ('"ACM001"', '"BNL001"', "code BNL001 is already taken"),
        ("## Example", "## Sample", "its documentation lacks the sections Example"),
    ],
)
def test_a_wrong_pack_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    from bnlint.rule import SECTIONS

    sections = "\n\n    ".join(f"## {section}" for section in SECTIONS)
    _install_pack(tmp_path, RULE_PACK.replace("{sections}", sections).replace(old, new))
    result = bnlint_with(tmp_path, ".")
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_upper_caps() -> None:
    for requirement in importlib.metadata.requires("bnlint") or ():
        assert not re.search(r"<(?!\s*['\"]?3\.11)|==(?!\s*['\"])|~=", requirement), requirement
