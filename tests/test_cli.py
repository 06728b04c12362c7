"""The command as its user meets it: options, output, exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bnlint
from bnlint.cli import main
from bnlint.finding import Finding, Verdict, Verification
from bnlint.rule import registry

BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"
GOOD = BAD.replace("model.eval\n", "model.eval()\n")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("[tool.bnlint]\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def bad(project: Path) -> str:
    Path("pkg").mkdir()
    Path("pkg/bad.py").write_text(BAD, encoding="utf-8")
    return "pkg/bad.py"


def bnlint_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main(["--format", "json", *arguments])
    return json.loads(capsys.readouterr().out)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bnlint", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )


def test_a_finding_makes_the_status_1_and_shows_its_line(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    output = capsys.readouterr()
    assert "pkg/bad.py:4:1: BNL001" in output.out
    assert "model.eval\n" in output.out
    assert output.err == ""


def test_nothing_found_is_status_0() -> None:
    Path("good.py").write_text(GOOD, encoding="utf-8")
    assert main(["good.py"]) == 0
    assert main(["--verify", "good.py"]) == 0


def test_exit_zero_forgives_findings_but_no_failure(bad: str) -> None:
    assert main(["--exit-zero", bad]) == 0
    assert main(["--exit-zero", bad, "missing.py"]) == 2


def test_failure_wins_over_findings_and_the_rest_is_linted(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["missing.py", bad]) == 2
    out = capsys.readouterr().out
    assert "missing.py" in out
    assert "BNL001" in out


def test_json_has_the_promised_keys(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = bnlint_json(capsys, bad)
    assert report["version"] == 1
    (finding,) = report["findings"]
    place = {"path": "pkg/bad.py", "line": 4, "column": 1, "end_line": 4, "end_column": 11}
    assert finding.items() >= {**place, "code": "BNL001", "name": "mode-not-called"}.items()
    assert {"message", "severity", "confidence", "trace", "fix", "verification"} <= finding.keys()
    assert report["errors"] == []


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ((), ["BNL001"]),
        (("--select", "BNL0"), ["BNL001"]),
        (("--select", "BNL1,BNL2"), []),
        (("--select", "BNL1", "--select", "BNL001"), ["BNL001"]),
        (("--select", "BNL1", "--extend-select", "BNL001"), ["BNL001"]),
        (("--ignore", "BNL"), []),
        (("--ignore", "BNL", "--extend-select", "BNL001"), ["BNL001"]),
    ],
)
def test_selection(bad: str, options: tuple[str, ...], codes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert [finding["code"] for finding in bnlint_json(capsys, *options)["findings"]] == codes


def test_options_come_before_settings(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text(
        '[tool.bnlint]\nignore = ["BNL001"]\nformat = "json"\nextend-exclude = ["other.py"]', encoding="utf-8"
    )
    Path("other.py").write_text(BAD, encoding="utf-8")
    main([])
    assert json.loads(capsys.readouterr().out)["findings"] == []
    main(["--select", "BNL001"])
    assert [finding["path"] for finding in json.loads(capsys.readouterr().out)["findings"]] == [bad]
    main(["--format", "text", "--extend-select", "BNL001"])
    assert capsys.readouterr().out.startswith("pkg/bad.py:4:1")


def test_refuted_findings_do_not_count(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict.REFUTED
    asked = []

    def verify(findings: list[Finding], device: str, **_: Any) -> list[Finding]:
        asked.append(device)
        return [finding.verified(Verification(verdict, "as the test wants it")) for finding in findings]

    monkeypatch.setattr("bnlint.verify.verify", verify)
    assert main(["--verify", "--device", "cpu", bad]) == 0
    verdict = Verdict.INCONCLUSIVE
    assert main(["--verify", bad]) == 1
    assert main([bad]) == 1
    assert asked == ["cpu", "auto"]


@pytest.mark.parametrize(
    ("verdict", "options", "status"),
    [
        (Verdict.CONFIRMED, (), 1),
        (Verdict.CONFIRMED, ("--exit-zero",), 0),
        (Verdict.REFUTED, (), 0),
        (Verdict.INCONCLUSIVE, (), 2),
        (Verdict.INCONCLUSIVE, ("--exit-zero",), 2),
        (None, ("--exit-zero",), 2),
    ],
)
def test_strictly_an_undecided_finding_is_a_failure(
    bad: str,
    verdict: Verdict | None,
    options: tuple[str, ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def verify(findings: list[Finding], device: str, **_: Any) -> list[Finding]:
        return [finding.verified(Verification(verdict, "why")) if verdict else finding for finding in findings]

    monkeypatch.setattr("bnlint.verify.verify", verify)
    assert main(["--verify-strict", *options, bad]) == status
    error = capsys.readouterr().err
    assert error == (
        "bnlint: 1 finding could not be decided (--verify-strict); the report says why\n" if status == 2 else ""
    )


def test_a_failing_verifier_leaves_the_findings(
    bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(findings: list[Finding], device: str, **_: Any) -> list[Finding]:
        raise OSError("no more processes")

    monkeypatch.setattr("bnlint.verify.verify", verify)
    assert main(["--verify", bad]) == 2
    out = capsys.readouterr().out
    assert "BNL001" in out
    assert "internal error while verifying (OSError: no more processes" in out


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, BAD.encode())
    assert main(["-"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("<stdin>:4:1: BNL001")
    assert "model.eval\n" in out, "the source line must be shown although there is no file"
    give(monkeypatch, BAD.encode())
    main(["-", "--stdin-filename", str(project / "src" / "x.py")])
    assert capsys.readouterr().out.startswith("src/x.py:4:1: BNL001")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "BML001"], "--select: no rule has the code or prefix 'BML001'; did you mean 'BNL001'?"),
        (["--ignore", "BNL900"], "--ignore: no rule has the code or prefix 'BNL900'"),
        (["--explain", "BNL0001"], "there is no rule 'BNL0001'; did you mean 'BNL001'?"),
        (["--explain", "mode-not-caled"], "did you mean 'mode-not-called'?"),
        (["--format", "jsn"], "--format: unknown format 'jsn'; did you mean 'json'?"),
        (["--device", "tpu"], "--device: unknown device 'tpu'"),
        (["-", "a.py"], "standard input (-) cannot be mixed with other paths"),
        (["--stdin-filename", "a.py"], "--stdin-filename goes with -"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("bnlint: error: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_wrong_settings_are_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text("[tool.bnlint]\nselct = []", encoding="utf-8")
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "bnlint: error: pyproject.toml: [tool.bnlint] selct: unknown key; did you mean 'select'?\n"
    )


@pytest.mark.parametrize("by", ["code", "name"])
def test_explain_shows_the_documentation(by: str, capsys: pytest.CaptureFixture[str]) -> None:
    for rule in registry().values():
        assert main(["--explain", getattr(rule, by)]) == 0
        assert capsys.readouterr().out == f"# {rule.code} {rule.name}\n\n{rule.documentation()}\n"


def test_explain_knows_the_code_of_files_that_cannot_be_analysed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "BNL900"]) == 0
    assert capsys.readouterr().out.startswith("# BNL900 cannot-analyse\n")


def test_list_rules_has_one_line_for_each_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for rule in registry().values():
        (line,) = [line for line in lines if rule.code in line.split()[:1]]
        assert line.split()[1:4] == [rule.name, "on" if rule.default else "off", rule.severity.value]


def test_version_is_quick() -> None:
    program = "import sys, bnlint.cli\ntry: bnlint.cli.main(['--version'])\nfinally: print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    version, modules = result.stdout.splitlines()
    assert version == f"bnlint {bnlint.__version__}"
    assert {"libcst", "rich", "pathspec", "bnlint.engine"}.isdisjoint(modules.split())


def imported_by(*arguments: str) -> set[str]:
    program = f"import sys, bnlint.cli\nbnlint.cli.main({list(arguments)})\nprint(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_an_empty_folder_is_quick() -> None:
    Path("empty").mkdir()
    heavy = {"libcst", "rich", "pathspec", "sqlite3", "hashlib", "bnlint.finding", "bnlint.rule", "bnlint.engine"}
    assert heavy.isdisjoint(imported_by("empty"))


def test_a_run_that_finds_nothing_new_is_quick(bad: str) -> None:
    Path("good.py").write_text(GOOD, encoding="utf-8")
    heavy = {"libcst", "pathspec", "multiprocessing", "bnlint.finding", "bnlint.rule", "bnlint.engine"}
    assert heavy & imported_by() == {"libcst", "bnlint.finding", "bnlint.rule", "bnlint.engine"}
    assert heavy & imported_by() == {"bnlint.finding"}, "which is shown"
    Path(bad).unlink()
    assert heavy.isdisjoint(imported_by())
    Path("good.py").write_text(GOOD + "# a comment", encoding="utf-8")
    assert heavy.isdisjoint(imported_by())


def test_no_colour_and_no_progress_bar_where_there_is_no_terminal(bad: str) -> None:
    result = command(bad, PYTHONIOENCODING="utf-8")
    assert result.returncode == 1
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
@pytest.mark.parametrize(("environment", "colour"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_on_a_terminal_unless_no_color_is_set(bad: str, environment: dict[str, str], colour: bool) -> None:
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    master, slave = os.openpty()
    variables |= {"TERM": "xterm-256color", "COLUMNS": "100", **environment}
    process = subprocess.Popen([sys.executable, "-m", "bnlint", bad], stdout=slave, stderr=slave, env=variables)
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:  # Linux's way of saying that the other end is closed
        pass
    os.close(master)
    assert process.wait(timeout=60) == 1
    assert b"BNL001" in shown
    colours = b"\x1b[31m" in shown or b";31m" in shown or b"\x1b[1;31m" in shown
    assert colours is colour


def test_a_reader_who_has_seen_enough_causes_no_noise(bad: str) -> None:
    for number in range(300):
        Path(f"pkg/bad{number}.py").write_text(BAD, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "bnlint", "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=60)


def test_control_c_ends_quietly(bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def analyse(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bnlint.semantics.analyse", analyse)
    assert main(["--no-cache", bad]) == 130
    assert capsys.readouterr() == ("", "")


def test_linting_imports_no_framework_and_runs_nothing(project: Path) -> None:
    Path("a.py").write_text(BAD + "open('ran', 'w')\n", encoding="utf-8")
    program = (
        "import sys\nfrom bnlint.cli import main\nmain(['a.py'])\n"
        "print({'torch', 'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert result.stdout.splitlines()[-1] == "set()"
    assert not Path("ran").exists()


@pytest.mark.parametrize(("after", "shown"), [(0.0, True), (60.0, False)])
def test_a_progress_bar_on_a_terminal_in_long_runs(
    after: float, shown: bool, bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("bnlint.cli.PROGRESS_AFTER", after)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["--format", "json", bad]) == 1
    output = capsys.readouterr()
    assert len(json.loads(output.out)["findings"]) == 1, "standard output stays clean"
    assert ("linting" in output.err) is shown


def test_a_linted_file_in_the_working_directory_is_never_imported(tmp_path: Path) -> None:
    """``python -m`` puts the working directory first on the import path."""
    (tmp_path / "random.py").write_text("raise SystemExit('linted code was run')\n")
    run = subprocess.run([sys.executable, "-m", "bnlint"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "No findings in 1 file.\n"), run.stderr


def test_a_run_with_known_verdicts_starts_no_process(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnlint.verify import runner

    counted = Verification(Verdict.CONFIRMED, "why", "cpu", "torch")
    asked = []

    def run(batches: dict[str, list[object]], *_: object) -> dict[str, list[tuple[Verification, bool]]]:
        asked.append(batches)
        return {framework: [(counted, True)] * len(experiments) for framework, experiments in batches.items()}

    monkeypatch.setattr(runner, "run", run)
    assert main(["--verify", bad]) == 1
    assert main(["--verify", "--no-cache", bad]) == 1
    assert len(asked) == 2
    monkeypatch.setattr(runner, "run", None)
    assert main(["--verify", bad]) == 1
