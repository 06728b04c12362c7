"""The terminal report: exact small renderings without colour, and what must never reach a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bnlint.finding import (
    Confidence,
    Diagnostic,
    Finding,
    Fix,
    Location,
    Safety,
    Severity,
    TraceStep,
    Verdict,
    Verification,
)
from bnlint.outcome import Report
from bnlint.report import write
from bnlint.report.text import render


def at(line: int, column: int, end_column: int, path: str = "m.py", end_line: int | None = None) -> Location:
    return Location(path, line, column, line if end_line is None else end_line, end_column)


def finding(place: Location, message: str = "it is wrong", **more: Any) -> Finding:
    severity, confidence = more.pop("severity", Severity.ERROR), more.pop("confidence", Confidence.CERTAIN)
    return Finding(place, more.pop("code", "BNL002"), "some-name", message, severity, confidence, **more)


def verification(verdict: Verdict, reason: str = "why", **measurements: Any) -> Verification:
    return Verification(verdict, reason, "cpu", "torch", {"torch": "2.13.0"}, measurements)


def shown(report: Report, width: int = 80, terminal: bool = False) -> list[str]:
    """The lines that a report comes to, without colour."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    render(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().split("\n")


def shown_source(line: str, column: int, end_column: int, **more: Any) -> tuple[str, str]:
    """A one-line file's source line and its marks, without the gutter."""
    report = Report((finding(at(1, column, end_column)),), files=1, sources={"m.py": line + "\n"})
    lines = shown(report, **more)
    assert lines[2].startswith("    1 │ ") and lines[3].startswith("      │ ")
    return lines[2][8:], lines[3][8:]


def written(report: Report, encoding: str) -> str:
    """What a stream of this encoding receives; raises if it cannot take it."""
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    write(report, "text", stream)
    stream.flush()
    return buffer.getvalue().decode(encoding)


# --- a finding -----------------------------------------------------------------------------------------


def test_a_finding_with_trace_and_fix() -> None:
    source = "model = Net()\n\nwith torch.no_grad():\n    out = model(x)\n"
    found = finding(
        at(4, 11, 19),
        trace=(TraceStep(at(1, 9, 14), "built here"), TraceStep(at(3, 6, 21), "run under no_grad here")),
        fix=Fix(Safety.UNSAFE, "insert model.eval()", ()),
    )
    assert shown(Report((found,), files=57, sources={"m.py": source})) == [
        "m.py:4:11: BNL002 some-name  [error · certain]",
        "  it is wrong",
        "    4 │     out = model(x)",
        "      │           ^^^^^^^^",
        "  trace:",
        "    1 │ model = Net()          built here",
        "    3 │ with torch.no_grad():  run under no_grad here",
        "  fix (unsafe): insert model.eval()",
        "",
        "1 finding in 1 file (1 error); 57 files checked",
        "",
    ]


def test_gutter_is_as_wide_as_the_largest_line_number() -> None:
    source = "model = Net()\n" + "\n" * 98 + "model(x)\n"
    found = finding(at(100, 1, 9), trace=(TraceStep(at(1, 9, 14), "built here"),))
    assert shown(Report((found,), files=1, sources={"m.py": source}))[2:6] == [
        "    100 │ model(x)",
        "        │ ^^^^^^^^",
        "  trace:",
        "      1 │ model = Net()  built here",
    ]


def test_steps_in_other_files_show_their_path_and_need_no_source() -> None:
    found = finding(
        at(1, 1, 9),
        trace=(
            TraceStep(at(7, 3, 5, path="lib/net.py"), "owns BatchNorm"),
            TraceStep(at(8, 1, 2, path="lib/net.py"), "calls it"),
            TraceStep(at(1, 1, 9), "run here"),
        ),
    )
    assert shown(Report((found,), files=1, sources={"m.py": "model(x)\n"}))[4:9] == [
        "  trace:",
        "  in lib/net.py:7:3",
        "    7 │           owns BatchNorm",
        "    8 │           calls it",
        "  in m.py:1:1",
    ]


def test_without_source_the_finding_still_stands() -> None:
    assert shown(Report((finding(at(9, 1, 4)),), files=1))[:3] == [
        "m.py:9:1: BNL002 some-name  [error · certain]",
        "  it is wrong",
        "",
    ]


def test_a_place_beyond_the_source_is_shown_without_it() -> None:
    report = Report((finding(at(9, 1, 4)),), files=1, sources={"m.py": "x\n"})
    assert shown(report)[2] == ""


# --- the marked line -----------------------------------------------------------------------------------


def test_span_over_several_lines_is_marked_to_the_first_ones_end() -> None:
    place = at(1, 5, 3, end_line=2)
    report = Report((finding(place),), files=1, sources={"m.py": "x = f(1,  \n  2)\n"})
    assert shown(report)[2:4] == ["    1 │ x = f(1,", "      │     ^^^^"]


def test_empty_span_gets_one_mark() -> None:
    assert shown_source("x = 1", 3, 3) == ("x = 1", "  ^")


def test_span_beyond_the_line_is_clamped() -> None:
    assert shown_source("x = 1", 5, 99) == ("x = 1", "    ^")
    assert shown_source("x = 1", 50, 99) == ("x = 1", "     ^")


@pytest.mark.parametrize(
    ("line", "column", "end_column", "before", "span"),
    [
        ("\tmodel(x)", 2, 10, "    ", "model(x)"),  # a tab reaches to the next multiple of four
        ("ab\tmodel(x)", 4, 12, "ab  ", "model(x)"),
        ('s = "日本"; m(x)', 11, 15, 's = "日本"; ', "m(x)"),  # wide characters take two cells
        ("日本(x)", 1, 3, "", "日本"),
        ('s = "e\u0301é"; m(x)', 12, 16, 's = "e\u0301é"; ', "m(x)"),  # a combining accent takes none
        ("s = '\x1b[31m'; m(x)", 14, 18, "s = '\\x1b[31m'; ", "m(x)"),  # an escape takes four
    ],
)
def test_marks_align(line: str, column: int, end_column: int, before: str, span: str) -> None:
    source, marks = shown_source(line, column, end_column)
    assert source == before + span + source[len(before + span) :]
    assert cell_len(before) == len(marks) - len(marks.lstrip())
    assert marks.strip() == "^" * cell_len(span)


# 40 cells less the gutter's 8 leave 32.
def test_line_that_fits_exactly_is_not_cropped() -> None:
    line = "x" * 32
    assert shown_source(line, 1, 2, width=40)[0] == line


def test_long_line_is_cropped_around_the_span() -> None:
    line = "a" * 2500 + "SPAN" + "b" * 2500
    source, marks = shown_source(line, 2501, 2505, width=40)
    assert source == "…" + "a" * 13 + "SPAN" + "b" * 13 + "…"
    assert marks == " " * 14 + "^^^^"


def test_off_a_terminal_a_line_of_source_has_120_cells_whatever_the_terminal_is() -> None:
    report = Report((finding(at(1, 1, 2)),), files=1, sources={"m.py": "x" * 5000})
    source = written(report, "utf-8").split("\n")[2]
    assert cell_len(source) == 119  # the 120th is kept for an ellipsis at the other end


def test_long_line_is_cropped_behind_a_span_at_its_start() -> None:
    assert shown_source("SPAN" + "b" * 5000, 1, 5, width=40) == ("SPAN" + "b" * 26 + "…", "^^^^")


def test_long_span_is_cropped_to_its_beginning() -> None:
    source, marks = shown_source("a" * 100 + "S" * 5000, 101, 5101, width=40)
    assert source == "…" + "S" * 30 + "…"
    assert marks == " " + "^" * 30


def test_wide_characters_are_cropped_by_cells() -> None:
    source, _ = shown_source("日" * 500 + "SPAN" + "本" * 500, 501, 505, width=40)
    assert "SPAN" in source and cell_len(source) <= 32


def test_a_line_of_megabytes_is_quick() -> None:
    line = "a" * 3_000_000 + "SPAN" + "b" * 3_000_000
    assert "SPAN" in shown_source(line, 3_000_001, 3_000_005)[0]


def test_only_what_python_calls_a_line_end_counts() -> None:
    source = "a = '\u2028\x0c'\r\nmodel(x)\r\n"
    report = Report((finding(at(2, 1, 9)),), files=1, sources={"m.py": source})
    assert shown(report)[2] == "    2 │ model(x)"


# --- what must not happen ------------------------------------------------------------------------------

HOSTILE = "\x1b]0;title\x07\x1b[2J\r\x08\x7f\x9b\u202e\u2066\u200b\ud800"


def test_nothing_foreign_commands_the_terminal() -> None:
    place = at(1, 1, 5, path=f"a{HOSTILE}.py")
    found = finding(
        place,
        f"message {HOSTILE}",
        trace=(TraceStep(at(1, 1, 2, path=f"b{HOSTILE}.py"), f"step {HOSTILE}"),),
        fix=Fix(Safety.SAFE, f"fix {HOSTILE}", ()),
        verification=Verification(
            Verdict.CONFIRMED,
            f"reason {HOSTILE}",
            f"cpu{HOSTILE}",
            "torch",
            {f"t{HOSTILE}": HOSTILE},
            {HOSTILE: HOSTILE},
        ),
    )
    problem = Diagnostic(f"c{HOSTILE}.py", 1, 1, "BNL900", f"bad {HOSTILE}")
    sources = {place.path: f"x = '{HOSTILE}'\n", f"b{HOSTILE}.py": f"y = '{HOSTILE}'"}
    for terminal in (False, True):
        text = "\n".join(shown(Report((found,), (problem,), 1, verified=True, sources=sources), terminal=terminal))
        assert not {c for c in text if not c.isprintable() and c != "\n"}
        assert "\\x1b" in text and "\\u202e" in text and "\\ud800" in text


def test_square_brackets_are_no_markup() -> None:
    report = Report((finding(at(1, 1, 2), "[bold]m[/bold] :smile:"),), files=1, sources={"m.py": "x[red]y[/red] \\["})
    lines = shown(report)
    assert lines[1] == "  [bold]m[/bold] :smile:"
    assert lines[2] == "    1 │ x[red]y[/red] \\["


def test_encoding_that_lacks_characters() -> None:
    sources = {"m.py": "s = 'é日'; m(x)\n"}
    report = Report((finding(at(1, 11, 15), "a → b … ü"),), files=1, sources=sources)
    ascii_lines = written(report, "ascii").split("\n")
    assert ascii_lines[:4] == [
        "m.py:1:11: BNL002 some-name  [error - certain]",
        "  a -> b ... \\xfc",
        "    1 | s = '\\xe9\\u65e5'; m(x)",
        "      |                   ^^^^",
    ]
    assert "s = 'é\\u65e5'; m(x)" in written(report, "cp1252")
    assert "│ s = 'é日'; m(x)" in written(report, "utf-8")


def test_encoding_of_a_real_process_without_utf8() -> None:
    program = (
        "import sys\nfrom bnlint.finding import *\nfrom bnlint.outcome import Report\nfrom bnlint.report import write\n"
        "at = Location('é.py', 1, 1, 1, 2)\n"
        "f = Finding(at, 'BNL002', 'n', 'm…', Severity.INFO, Confidence.LIKELY)\n"
        "write(Report((f,), files=1, sources={'é.py': 'x'}), 'text', sys.stdout)\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True, env=environment)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("\\xe9.py:1:1: BNL002 n  [info - likely]\n  m...\n    1 | x\n")


LONG = "word " * 60 + "end"


def test_nothing_is_wrapped_or_cut_off_a_terminal() -> None:
    found = finding(
        at(1, 1, 2),
        LONG,
        trace=(TraceStep(at(1, 1, 2), LONG),),
        fix=Fix(Safety.SAFE, LONG, ()),
        verification=verification(Verdict.CONFIRMED, LONG),
    )
    problem = Diagnostic("bad.py", 1, 1, "BNL900", LONG)
    lines = shown(Report((found,), (problem,), 1, verified=True, sources={"m.py": "x\n"}), width=40)
    assert sum(line.endswith(LONG) for line in lines) == 5


def test_messages_are_wrapped_to_the_terminal() -> None:
    found = finding(at(1, 1, 2), LONG, trace=(TraceStep(at(1, 1, 2), LONG),), fix=Fix(Safety.SAFE, "one two " * 6, ()))
    lines = shown(Report((found,), files=1, sources={"m.py": "x\n"}), width=48, terminal=True)
    assert max(map(len, lines)) <= 48
    assert " ".join(" ".join(lines).split()).count(LONG.strip()) >= 1  # no word is lost
    fix = lines.index("  fix (safe): one two one two one two one two")
    assert lines[fix + 1] == "    one two one two"


def test_a_message_is_one_line() -> None:
    assert shown(Report((finding(at(1, 1, 2), "first\nsecond\r\n  third"),)))[1] == "  first second third"


# --- colour --------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def coloured(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, **environment: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)
    write(Report((finding(at(1, 1, 2)),), files=1, sources={"m.py": "x\n"}), "text", stream)
    return stream.getvalue()


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;31mBNL002\x1b[0m" in coloured(monkeypatch, Terminal())
    assert "\x1b" not in coloured(monkeypatch, io.StringIO())


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    text = coloured(monkeypatch, Terminal(), NO_COLOR="1")
    assert "BNL002" in text and "[1;31m" not in text and "\x1b[3" not in text


def test_dumb_terminal_gets_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in coloured(monkeypatch, Terminal(), TERM="dumb")


def test_refuted_findings_are_dimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    found = finding(at(1, 1, 2), verification=verification(Verdict.REFUTED))
    render(Report((found,), files=1, verified=True, sources={"m.py": "x\n"}), console)
    assert isinstance(console.file, io.StringIO)
    block, _, _ = console.file.getvalue().partition("1 finding")
    assert all(line.startswith("\x1b[2m") for line in block.split("\n") if line)
    assert "[error · certain · refuted]" in block


# --- verification --------------------------------------------------------------------------------------


def test_verdict_and_numbers() -> None:
    found = finding(
        at(1, 1, 2),
        verification=verification(
            Verdict.CONFIRMED,
            "BatchNorm2d(100): the modes differ",
            layer="BatchNorm2d(100)",
            dtype="float32",
            seed=0,
            chosen=["channels=16"],
            input="16x16x4x4",
            gap=0.8512345,
            batch_dependence_eval=3.2e-7,
            tracks_running_stats=True,
            num_batches_tracked=1,
            output_train=0.0,
            output_eval=0.999995,
            something_new=[1, 2.5],
            unmeasured=None,
        ),
    )
    assert shown(Report((found,), files=1, verified=True))[2:-3] == [
        "  verified: confirmed on cpu (torch 2.13.0): BatchNorm2d(100): the modes differ",
        "      output in train mode                0.0",
        "      output in eval mode                 0.999995",
        "      gap between the two modes           85.1 %",
        "      dependence on the batch, eval mode  3.2e-07",
        "      keeps running statistics            yes",
        "      batches counted                     1",
        "      something new                       1, 2.5",
        "      unmeasured                          no finite number",
        "      input 16x16x4x4; float32; seed 0; not in the source, so chosen: channels=16",
    ]


def test_inconclusive_without_a_device() -> None:
    verdict = Verification(Verdict.INCONCLUSIVE, "keras is not installed: pip install keras", framework="keras")
    lines = shown(Report((finding(at(1, 1, 2), verification=verdict),), files=1, verified=True))
    assert lines[2] == "  verified: inconclusive: keras is not installed: pip install keras"


def test_finding_without_experiment_says_so_only_under_verify() -> None:
    for verified in (True, False):
        lines = shown(Report((finding(at(1, 1, 2)),), files=1, verified=verified))
        assert ("  verified: no, there is no experiment for it" in lines) is verified


# --- diagnostics and the last line ---------------------------------------------------------------------


def test_diagnostics_are_one_line_each() -> None:
    problems = (
        Diagnostic("bad.py", 3, 7, "BNL900", "invalid syntax"),
        Diagnostic("", 1, 1, "BNL900", "internal error"),
    )
    assert shown(Report((), problems, files=2)) == [
        "bad.py:3:7: BNL900 invalid syntax",
        "BNL900 internal error",
        "No findings in 2 files; 2 problems.",
        "",
    ]


def verified_finding(verdict: Verdict, device: str, versions: dict[str, str]) -> Finding:
    return finding(at(1, 1, 2), verification=Verification(verdict, "why", device, "x", versions))


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Report((), files=57), "No findings in 57 files."),
        (Report((), files=1), "No findings in 1 file."),
        (Report((), files=57, verified=True), "No findings in 57 files."),
        (Report((), files=0), "No Python files to check."),
        (
            Report(
                (
                    finding(at(1, 1, 2)),
                    finding(at(1, 1, 2, path="n.py"), severity=Severity.WARNING),
                    finding(at(2, 1, 2), severity=Severity.WARNING),
                ),
                files=57,
            ),
            "3 findings in 2 files (1 error, 2 warnings); 57 files checked",
        ),
        (
            Report(tuple(finding(at(n, 1, 2), severity=Severity.INFO) for n in (1, 2)), files=1),
            "2 findings in 1 file (2 info); 1 file checked",
        ),
        (
            Report(
                (
                    verified_finding(Verdict.CONFIRMED, "cpu", {"torch": "2.13.0"}),
                    verified_finding(Verdict.REFUTED, "cpu", {"torch": "2.13.0"}),
                    verified_finding(Verdict.CONFIRMED, "cpu", {"keras": "3.15.1"}),
                ),
                files=9,
                verified=True,
            ),
            "3 findings: 2 confirmed, 1 refuted, 0 inconclusive · cpu · torch 2.13.0, keras 3.15.1",
        ),
        (
            Report((finding(at(1, 1, 2)),), (Diagnostic("b.py", 1, 1, "BNL900", "m"),), files=2, verified=True),
            "1 finding: 0 confirmed, 0 refuted, 0 inconclusive, 1 without experiment; 1 problem",
        ),
    ],
)
def test_last_line(report: Report, line: str) -> None:
    assert shown(report, width=200)[-2] == line
    if not report.findings:
        assert len(shown(report)) == 2  # nothing else
