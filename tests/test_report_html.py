"""The page: everything on it, nothing from elsewhere, and nothing of the linted text taken for markup."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bnlint.cli import main
from bnlint.finding import (
    Confidence,
    Curve,
    Diagnostic,
    Finding,
    Location,
    Plot,
    Severity,
    TraceStep,
    Verdict,
    Verification,
)
from bnlint.outcome import Report
from bnlint.report import write
from bnlint.report.plots import HEIGHT, WIDTH, draw

LINES = Plot(
    "Running mean", "batch", "mean", (1.0, 2.0, 3.0), (Curve("a", (0.5, None, 2.5)),), reference=Curve("true", (3.0,))
)
BINS = Plot(
    "Output", "output", "share", (-1.0, 0.0, 1.0), (Curve("train", (0.25, 0.75)), Curve("eval", (1.0, 0.0))), bins=True
)
VOID = ("meta", "path", "br")


class Page(HTMLParser):
    """What is on a page; raises where a tag is not closed."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        stream = io.StringIO()
        write(report, "html", stream)
        self.source = stream.getvalue()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def finding(path: str = "m.py", verification: Verification | None = None, message: str = "it is wrong") -> Finding:
    at = Location(path, 3, 5, 3, 10)
    step = TraceStep(Location("net.py", 1, 1, 1, 4), "built here")
    return Finding(at, "BNL002", "name", message, Severity.ERROR, Confidence.LIKELY, (step,), verification=verification)


def verification(*plots: Plot) -> Verification:
    return Verification(
        Verdict.CONFIRMED, "why so", "cpu", "torch", {"torch": "2.13.0"}, {"gap": 0.5, "seed": 1234}, plots
    )


SOURCES = {"m.py": "a = 1\nb = 2\nx = model(a)\nc = 3\n", "net.py": "net = Net()\n"}


def test_a_finding_is_on_the_page_with_all_that_is_known_of_it() -> None:
    page = Page(Report((finding(verification=verification(LINES, BINS)),), files=1, verified=True, sources=SOURCES))
    for part in ("BNL002 name", "m.py:3:5", "it is wrong", "net.py:1", "built here", "why so", "50 %", "seed 1234"):
        assert part in page.text, part
    assert "1 finding: 1 confirmed, 0 refuted, 0 inconclusive \u00b7 cpu \u00b7 torch 2.13.0" in page.text
    pictures = [its for its in page.all("svg") if its.get("role") == "img"]
    assert [its["aria-label"] for its in pictures] == [
        "Running mean; a: from 0.5 to 2.5, between 0.5 and 2.5; true: 3",
        "Output; train: from -1 to 1; eval: from -1 to 0",
    ]
    anchors = {its.get("id") for _, its in page.tags}
    assert all(str(its["href"])[1:] in anchors for its in page.all("a"))


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = Page(Report((finding(verification=verification(LINES)),), files=1, verified=True, sources=SOURCES))
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") or name == "src" for _, its in page.tags for name in its)
    assert "url(" not in page.source and "@import" not in page.source and "://" not in page.source
    assert "prefers-color-scheme: dark" in page.source and page.source.isascii()


def test_linted_text_stays_text() -> None:
    hostile = "</pre><script>alert(1)</script>{{ 7 * 7 }}\u202e\x1b"
    path = "<b>caf\udce9\u00e9.py"
    found = finding(path, Verification(Verdict.INCONCLUSIVE, hostile, measurements={hostile: hostile}), hostile)
    page = Page(
        Report((found,), (Diagnostic(path, 1, 1, "BNL900", hostile),), 1, True, {path: f"a\nb\n    {hostile}\n"})
    )
    assert "script" not in {tag for tag, _ in page.tags} and "b" not in {tag for tag, _ in page.tags}
    assert "{{ 7 * 7 }}" in page.text and "\u202e" not in page.text and "\x1b" not in page.text
    assert "<b>caf\\udce9\u00e9.py" in page.text


def test_nothing_found() -> None:
    assert "No findings in 57 files." in Page(Report((), files=57)).text


@pytest.mark.parametrize("plot", [LINES, BINS])
def test_a_plot_stays_in_its_picture(plot: Plot) -> None:
    drawing = draw(plot)
    for line in drawing.lines:
        for command, x, y in re.findall(r"([MLHV])([\d.-]+)(?: ([\d.-]+))?", line.path):
            across = float(x) if command != "V" else 0.0
            down = float(y) if y else float(x) if command == "V" else 0.0
            assert 0 <= across <= WIDTH and 0 <= down <= HEIGHT
    assert [tick.label for tick in drawing.x_ticks][:1] == [f"{plot.x[0]:g}"]
    assert drawing.lines[0].path.count("M") == (2 if plot is LINES else 1), "a missing value is a gap"


@pytest.mark.parametrize("values", [(None, None), (3.0, 3.0), (0.0, 0.0), (1e-9, 1e9), (-5e-324, 5e-324)])
def test_odd_values_can_be_drawn(values: tuple[float | None, ...]) -> None:
    draw(Plot("t", "x", "y", (1.0, 2.0), (Curve("a", values),)))


def test_the_page_can_be_written_beside_any_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("from torch import nn\nm = nn.Sequential(nn.BatchNorm2d(9))\nm.eval\n", encoding="utf-8")
    assert main(["--html", "page.html", "a.py"]) == 1
    assert "a.py:3:1: BNL001" in capsys.readouterr().out
    assert "BNL001" in Path("page.html").read_text(encoding="ascii")
    assert main(["--format", "html", "a.py"]) == 1
    assert capsys.readouterr().out == Path("page.html").read_text(encoding="ascii")
    assert main(["--html", "no/page.html", "a.py"]) == 2
    assert "there is no folder 'no'" in capsys.readouterr().err
    assert main(["--html", ".", "a.py"]) == 2
    assert capsys.readouterr().err.startswith("bnlint: error: --html: . cannot be written: ")
