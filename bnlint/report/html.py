"""One page that a person looks at: every finding with its source, its trace, its verdict and what was measured.

The page holds everything that it needs and no script; what comes from elsewhere goes through ``clean`` and is
escaped by the template. It is pure ASCII, so that it can go to a standard output of any encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from bnlint import __version__
from bnlint.finding import Finding, Location, Verdict, Verification
from bnlint.outcome import Report
from bnlint.report.excerpt import Excerpt, clean, excerpt
from bnlint.report.measured import conditions, rows
from bnlint.report.plots import HEIGHT, WIDTH, Drawing, draw
from bnlint.report.summary import summary, versions_of
from bnlint.source.decode import split_lines

#: Lines of source shown before and after the reported ones, and how many of these at most.
CONTEXT = 2
MOST = 8
#: Characters of a line that are shown.
_LIMIT = 160


@dataclass(frozen=True)
class Row:
    """A line of source; ``marked`` where it is part of what is reported."""

    number: int
    shown: Excerpt
    marked: bool = False


@dataclass(frozen=True)
class Step:
    place: str
    row: Row | None
    message: str


@dataclass(frozen=True)
class Measured:
    verdict: str
    where: str
    reason: str
    rows: list[tuple[str, str]]
    conditions: str
    drawings: list[Drawing]


@dataclass(frozen=True)
class Entry:
    """A finding as the template wants it."""

    finding: Finding
    anchor: str
    place: str
    message: str
    rows: list[Row]
    steps: list[Step]
    fix: str
    measured: Measured | None


def render(report: Report) -> str:
    texts = {path: split_lines(text) for path, text in report.sources.items()}
    entries = [_entry(finding, f"finding-{number}", texts) for number, finding in enumerate(report.findings, 1)]
    files = [
        (_clean(path), list(group)) for path, group in groupby(entries, key=lambda entry: entry.finding.location.path)
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = _clean
    verdicts = [verdict.value for verdict in Verdict]
    counts = {
        verdict: sum(entry.measured is not None and entry.measured.verdict == verdict for entry in entries)
        for verdict in verdicts
    }
    page = environment.get_template("page.html.jinja").render(
        version=__version__,
        summary=_clean(summary(report)),
        files=files,
        counts=counts if report.verified else {},
        diagnostics=report.diagnostics,
        width=WIDTH,
        height=HEIGHT,
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _entry(finding: Finding, anchor: str, texts: dict[str, list[str]]) -> Entry:
    at = finding.location
    fix = "" if finding.fix is None else f"({finding.fix.safety.value}): {_clean(finding.fix.message)}"
    return Entry(
        finding=finding,
        anchor=anchor,
        place=_clean(f"{at.path}:{at.line}:{at.column}"),
        message=_clean(finding.message),
        rows=list(_source(at, texts.get(at.path, []))),
        steps=[
            Step(
                _place(step.location, at.path),
                _row(step.location, step.location.line, texts.get(step.location.path, []), dedent=True),
                _clean(step.message),
            )
            for step in finding.trace
        ],
        fix=fix,
        measured=None if finding.verification is None else _measured(finding.verification),
    )


def _place(at: Location, path: str) -> str:
    return _clean(f"line {at.line}" if at.path == path else f"{at.path}:{at.line}")


def _source(at: Location, lines: list[str]) -> Iterator[Row]:
    last = min(max(at.line, at.end_line), at.line + MOST - 1)
    for number in range(max(1, at.line - CONTEXT), last + CONTEXT + 1):
        row = _row(at, number, lines)
        if row is not None:
            yield row


def _row(at: Location, number: int, lines: list[str], dedent: bool = False) -> Row | None:
    """Line ``number`` with what of the location is in it; None where there is no such line."""
    if not 0 < number <= len(lines):
        return None
    line = lines[number - 1]
    if not at.line <= number <= max(at.line, at.end_line):
        return Row(number, excerpt(line, 0, 0, _LIMIT, "utf-8"))
    start = at.column - 1 if number == at.line else len(line) - len(line.lstrip())
    end = at.end_column - 1 if number == at.end_line else len(line)
    return Row(number, excerpt(line, start, end, _LIMIT, "utf-8", dedent), marked=True)


def _measured(verification: Verification) -> Measured:
    versions = versions_of(verification.versions)
    return Measured(
        verdict=verification.verdict.value,
        where=_clean(", ".join(part for part in (verification.device or "", versions) if part)),
        reason=_clean(verification.reason),
        rows=[(_clean(name.strip()), _clean(value)) for name, value in rows(verification.measurements)],
        conditions=_clean(conditions(verification.measurements)),
        drawings=[draw(plot) for plot in verification.plots],
    )


def _clean(text: str) -> str:
    return clean(" ".join(text.split()), "utf-8")
