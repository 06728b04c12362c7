"""The flake8 plugin, through a real flake8 process: the same findings at the same places as the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnlint.cli import main
from bnlint.flake8 import Plugin
from bnlint.rule import registry

BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"
FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("setup.cfg").write_text("[flake8]\n", encoding="utf-8")
    return tmp_path


def flake8(*arguments: str, stdin: str | None = None, config: str = "") -> subprocess.CompletedProcess[str]:
    if config:
        Path("setup.cfg").write_text(f"[flake8]\n{config}\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "flake8", "--select=BNL", *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def test_a_finding_and_its_place() -> None:
    Path("a.py").write_text(BAD, encoding="utf-8")
    result = flake8("a.py")
    assert result.stdout.startswith("a.py:4:1: BNL001 ")
    assert result.stdout.count("\n") == 1
    assert (result.returncode, result.stderr) == (1, "")


def test_it_is_on_without_being_asked_for() -> None:
    Path("a.py").write_text(BAD, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "flake8", "a.py"], capture_output=True, text=True, check=False, timeout=120
    )
    assert "BNL001" in result.stdout


def test_the_same_findings_as_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Over all fixtures, with every rule on."""
    codes = ",".join(registry())
    paths = [path for path in sorted(FIXTURES.rglob("*.py")) if "flake8" not in path.read_text(encoding="utf-8")]
    assert paths
    names = [os.path.relpath(path) for path in paths]
    result = flake8(f"--bnlint-select={codes}", "--format=%(path)s:%(row)d:%(col)d:%(code)s", *names)
    assert result.stderr == ""
    main(["--format", "json", "--no-cache", "--select", codes, *names])
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == []
    expected = {f"{f['path']}:{f['line']}:{f['column']}:{f['code']}" for f in report["findings"]}
    assert expected
    assert set(result.stdout.splitlines()) == expected


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"# coding: latin-1\n# \xe9\xe9\n"])
def test_encodings_and_line_ends(start: bytes, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = start + BAD.replace("model.eval", "'ab'; model.eval").encode()
    Path("a.py").write_bytes(text.replace(b"\n", ending.encode()))
    assert main(["--format", "json", "a.py"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["column"] == 7
    assert flake8("a.py").stdout.startswith(f"a.py:{finding['line']}:7: BNL001 ")


@pytest.mark.parametrize("comment", ["# noqa", "# noqa: BNL001", "# noqa: BNL", "# noqa: BNL101", "# noqa: E501"])
def test_noqa_works_the_same_in_both(comment: str) -> None:
    Path("a.py").write_text(BAD.replace("model.eval", f"model.eval  {comment}"), encoding="utf-8")
    assert flake8("a.py").returncode == main(["a.py"])
    assert flake8("--disable-noqa", "a.py").returncode == 1


def test_standard_input() -> None:
    result = flake8("--stdin-display-name=src/x.py", "-", stdin=BAD)
    assert result.stdout.startswith("src/x.py:4:1: BNL001 ")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("bnlint-select = BNL0", True),
        ("bnlint-select = BNL1, BNL2", False),
        ("bnlint-select =\n    BNL1\n    BNL001", True),
        ("bnlint-ignore = BNL001", False),
        ("bnlint-ignore = BNL\nbnlint-extend-select = BNL001", True),
        ("per-file-ignores =\n    a.py: BNL001", False),
    ],
)
def test_settings_come_from_flake8s_configuration(config: str, found: bool) -> None:
    Path("pyproject.toml").write_text('[tool.bnlint]\nignore = ["BNL"]', encoding="utf-8")
    Path("a.py").write_text(BAD, encoding="utf-8")
    result = flake8("a.py", config=config)
    assert result.stderr == ""
    assert ("BNL001" in result.stdout) is found


def test_several_processes_see_the_settings() -> None:
    for number in range(4):
        Path(f"a{number}.py").write_text(BAD, encoding="utf-8")
    assert flake8("-j2", ".").stdout.count("BNL001") == 4
    assert flake8("-j2", ".", config="bnlint-ignore = BNL001").stdout == ""


def test_a_wrong_code_is_said_in_one_line() -> None:
    Path("a.py").write_text(BAD, encoding="utf-8")
    result = flake8("a.py", config="bnlint-select = BML001")
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert "no rule has the code or prefix 'BML001'; did you mean 'BNL001'?" in output
    assert "Traceback" not in output


def test_an_internal_error_is_one_diagnostic(project: Path) -> None:
    Path("sitecustomize.py").write_text(
        "import bnlint.semantics\n"
        "def analyse(*arguments): raise ZeroDivisionError('as the test wants it')\n"
        "bnlint.semantics.analyse = analyse\n",
        encoding="utf-8",
    )
    Path("a.py").write_text(BAD, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "flake8", "-j1", "--select=BNL,E", "a.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    assert result.stdout.startswith("a.py:1:1: BNL900 internal error")
    assert "ZeroDivisionError: as the test wants it" in result.stdout
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stdout + result.stderr


def test_a_syntax_error_is_reported_once() -> None:
    Path("a.py").write_text("def (\n", encoding="utf-8")
    assert flake8("--select=BNL,E9", "a.py").stdout.count("\n") == 1


def test_importing_the_plugin_imports_neither_a_framework_nor_the_analysis() -> None:
    program = "import sys, bnlint.flake8; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unwanted = {"torch", "tensorflow", "keras", "numpy", "flake8", "libcst", "rich"}
    assert unwanted.isdisjoint(result.stdout.split())


def test_a_file_that_concerns_no_rule_imports_no_engine_and_is_not_parsed_again() -> None:
    program = (
        "import ast, sys, bnlint.flake8\n"
        "from bnlint.rule import registry\n"
        "bnlint.flake8.Plugin._rules = tuple(registry().values())\n"
        "tree = ast.parse('x = 1')\n"
        "ast.parse = None\n"
        "print(list(bnlint.flake8.Plugin(tree, ['x = 1\\n'], 'a.py').run()), *sorted(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("[] ")
    unwanted = {"libcst", "rich", "pathspec", "bnlint.engine", "bnlint.semantics.analysis", "bnlint.source.syntax"}
    assert unwanted.isdisjoint(result.stdout.split())


NET = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))\n"
USER = "import torch\nfrom {net} import build\n\nmodel = build()\nwith torch.no_grad():\n    print(model(x))\n"


@pytest.mark.parametrize("paths", [["."], ["pkg", "user.py"], ["./pkg/other.py", "user.py"]])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_findings_that_rest_on_other_files(paths: list[str], jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pkg").mkdir()
    Path("pkg/__init__.py").touch()
    Path("pkg/net.py").write_text(NET, encoding="utf-8")
    Path("pkg/look.py").write_text(
        "import torch\n\ndef look(model):\n    with torch.no_grad():\n        return model(x)\n", encoding="utf-8"
    )
    Path("pkg/other.py").write_text(USER.format(net=".net"), encoding="utf-8")
    Path("user.py").write_text(
        "from pkg.net import build\nfrom pkg.look import look\n\nprint(look(build()))  # torch\n", encoding="utf-8"
    )
    main(["--format", "json", "--no-cache", *paths])
    findings = json.loads(capsys.readouterr().out)["findings"]
    expected = sorted(f"{f['path']}:{f['line']}:{f['column']}:{f['code']} {f['message']}" for f in findings)
    assert {place.split(":")[0] for place in expected} == {"pkg/other.py", "user.py"}
    result = flake8(f"-j{jobs}", "--format=%(path)s:%(row)d:%(col)d:%(code)s %(text)s", *paths)
    assert sorted(line.removeprefix("./") for line in result.stdout.splitlines()) == expected


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ("", ["certain", "likely"]),
        ("bnlint-min-confidence = certain", ["certain"]),
        ("bnlint-min-confidence = possible", ["certain", "likely", "possible"]),
    ],
)
def test_how_sure_findings_must_be(
    config: str, shown: list[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sitecustomize.py").write_text(
        "import bnlint.engine\n"
        "from bnlint.finding import *\n"
        "def lint_text(text, path, *arguments, **options):\n"
        "    at = Location(path, 1, 1, 1, 2)\n"
        "    return bnlint.engine.FileResult(tuple(\n"
        "        Finding(at, 'BNL001', 'n', confidence.value, Severity.INFO, confidence) for confidence in Confidence\n"
        "    ))\n"
        "bnlint.engine.lint_text = lint_text\n",
        encoding="utf-8",
    )
    Path("a.py").write_text(BAD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(project))
    result = flake8("-j1", "a.py", config=config)
    assert [line.split()[-1] for line in result.stdout.splitlines()] == shown


def test_a_wrong_confidence_is_said_in_one_line() -> None:
    Path("a.py").write_text(BAD, encoding="utf-8")
    result = flake8("a.py", config="bnlint-min-confidence = posible")
    assert result.returncode != 0
    assert "unknown confidence 'posible'; did you mean 'possible'?" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_even_a_failing_engine_is_one_diagnostic(monkeypatch: pytest.MonkeyPatch) -> None:
    import ast

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no\nmore")

    monkeypatch.setattr("bnlint.engine.lint_text", fail)
    monkeypatch.setattr(Plugin, "_rules", tuple(registry().values()))
    ((line, column, text, kind),) = Plugin(ast.parse(""), [BAD], "a.py").run()
    assert (line, column, kind) == (1, 0, Plugin)
    assert text.startswith("BNL900 internal error in bnlint (OSError: no more)")
