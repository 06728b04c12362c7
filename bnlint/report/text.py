"""What an engineer reads in the terminal: place, message, source, trace, fix and verdict of each finding.

Everything foreign goes through ``clean`` or ``excerpt`` first. On a terminal messages are wrapped to its
width; elsewhere each stays one line, so that nothing is lost to a log or to ``grep``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bnlint.finding import Diagnostic, Finding, Location, Severity, Verdict, Verification
from bnlint.outcome import Report
from bnlint.report.excerpt import clean, excerpt
from bnlint.report.measured import conditions, rows
from bnlint.report.summary import summary, versions_of
from bnlint.source.decode import split_lines

#: Room for a line of source where no terminal sets it.
WIDTH = 120
#: The least room, in cells, that is worth wrapping or showing anything in.
_NARROWEST = 20
_TRACE_SHARE = 0.5

_SEVERITY = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold cyan"}
_VERDICT = {
    Verdict.CONFIRMED: "bold red",
    Verdict.REFUTED: "bold green",
    Verdict.INCONCLUSIVE: "bold magenta",
}
_GUTTER = "blue"
_QUIET = "dim"
_LABEL = "bold"


def console_for(stream: TextIO) -> Console:
    """A console on ``stream``: coloured only on a terminal, without colours where ``NO_COLOR`` is set."""
    width = None if stream.isatty() else WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def render(report: Report, console: Console) -> None:
    page = _Page(report, console)
    for finding in report.findings:
        page.print(*page.finding(finding), Text())
    for diagnostic in report.diagnostics:
        page.print(page.diagnostic(diagnostic))
    if report.findings and report.diagnostics:
        page.print(Text())
    page.print(*page.wrapped(Text(), summary(report), indent=0, hang=0))


class _Page:
    def __init__(self, report: Report, console: Console) -> None:
        self.verified = report.verified
        self.sources = report.sources
        self.console = console
        self.encoding = console.encoding
        self._lines: dict[str, list[str]] = {}

    def print(self, *lines: Text) -> None:
        self.console.print(Text("\n").join(lines), soft_wrap=True)

    def finding(self, finding: Finding) -> list[Text]:
        verification = finding.verification
        refuted = verification is not None and verification.verdict is Verdict.REFUTED
        places = [finding.location, *(step.location for step in finding.trace)]
        gutter = max(len(str(place.line)) for place in places) + 4
        style = _SEVERITY[finding.severity]
        parts = [
            self._header(finding, style, refuted),
            *self.wrapped(Text(), finding.message, hang=2),
            *self._source(finding.location, gutter, style),
            *self._trace(finding, gutter),
        ]
        if finding.fix is not None:
            parts += self.wrapped(Text(f"fix ({finding.fix.safety.value}): ", _LABEL), finding.fix.message)
        if verification is not None:
            parts += self._verification(verification)
        elif self.verified:
            parts += self.wrapped(Text("verified: ", _LABEL), "no, there is no experiment for it")
        return [Text(part.plain, style=_QUIET) for part in parts] if refuted else parts

    def diagnostic(self, diagnostic: Diagnostic) -> Text:
        place = f"{diagnostic.path}:{diagnostic.line}:{diagnostic.column}: " if diagnostic.path else ""
        return Text.assemble(
            (self.clean(place), _LABEL),
            (self.clean(diagnostic.code), "bold red"),
            " " + self.clean(_one_line(diagnostic.message)),
        )

    def wrapped(self, label: Text, message: str, indent: int = 2, hang: int = 4, style: str = "") -> list[Text]:
        """The message after its label, ``indent`` cells in; on a terminal its other lines ``hang`` cells."""
        text = Text.assemble(label, (self.clean(_one_line(message)), style))
        lines = self._wrap(text, self.console.width - hang)
        return [Text.assemble(" " * (hang if number else indent), line) for number, line in enumerate(lines)]

    def _wrap(self, text: Text, room: int) -> list[Text]:
        if not self.console.is_terminal or room < _NARROWEST:
            return [text]
        lines = list(text.wrap(self.console, room))
        for line in lines:
            line.rstrip()
        return lines or [text]

    def clean(self, text: str) -> str:
        return clean(text, self.encoding)

    def _header(self, finding: Finding, style: str, refuted: bool) -> Text:
        at = finding.location
        axes = [finding.severity.value, finding.confidence.value, *(["refuted"] if refuted else [])]
        return Text.assemble(
            (self.clean(f"{at.path}:{at.line}:{at.column}: "), _LABEL),
            (self.clean(finding.code), style),
            (" " + self.clean(finding.name), _LABEL),
            (self.clean(f"  [{' · '.join(axes)}]"), _QUIET),
        )

    def _source(self, at: Location, gutter: int, style: str) -> Iterator[Text]:
        line = self._line(at)
        if line is None:
            return
        start, end = _span(at, line)
        shown = excerpt(line, start, end, self._room(gutter), self.encoding)
        yield Text.assemble(self._gutter(gutter, at.line), shown.before, (shown.span, _LABEL), shown.after)
        yield Text.assemble(self._gutter(gutter), " " * shown.indent, ("^" * shown.width, style))

    def _trace(self, finding: Finding, gutter: int) -> Iterator[Text]:
        if not finding.trace:
            return
        yield Text("  trace:", style=_LABEL)
        limit = max(_NARROWEST, int(self._room(gutter) * _TRACE_SHARE))
        shown = []
        for step in finding.trace:
            line = self._line(step.location)
            if line is not None:
                shown.append(excerpt(line, *_span(step.location, line), limit, self.encoding, dedent=True))
            else:
                shown.append(excerpt("", 0, 0, limit, self.encoding))
        column = max(cell_len(part.text) for part in shown)
        path = finding.location.path
        for step, part in zip(finding.trace, shown, strict=True):
            at = step.location
            if at.path != path:
                path = at.path
                yield Text(self.clean(f"  in {path}:{at.line}:{at.column}"), style=_QUIET)
            left = Text.assemble(self._gutter(gutter, at.line), part.before, (part.span, _LABEL), part.after)
            left.append(" " * (column - cell_len(part.text) + (2 if column else 0)))
            yield from self._beside(left, step.message)

    def _beside(self, left: Text, message: str) -> Iterator[Text]:
        """A step's message to the right of its source, on a terminal wrapped in what room there is."""
        indent = left.cell_len
        lines = self._wrap(Text(self.clean(_one_line(message)), style="cyan"), self.console.width - indent)
        for number, line in enumerate(lines):
            yield Text.assemble(" " * indent if number else left, line)

    def _verification(self, verification: Verification) -> Iterator[Text]:
        where = f" on {verification.device}" if verification.device else ""
        where += f" ({versions_of(verification.versions)})" if verification.versions else ""
        label = Text.assemble(
            ("verified: ", _LABEL),
            (verification.verdict.value, _VERDICT[verification.verdict]),
            self.clean(where) + ": ",
        )
        yield from self.wrapped(label, verification.reason)
        measured = [(self.clean(name), self.clean(value)) for name, value in rows(verification.measurements)]
        column = max((cell_len(name) for name, _ in measured), default=0)
        for name, value in measured:
            yield Text.assemble("      ", (name + " " * (column - cell_len(name) + 2), _QUIET), value)
        if told := conditions(verification.measurements):
            yield from self.wrapped(Text(), told, indent=6, hang=6, style=_QUIET)

    def _gutter(self, width: int, line: int | None = None) -> Text:
        number = "" if line is None else str(line)
        return Text(f"{number.rjust(width)} {self.clean('│')} ", style=_GUTTER)

    def _room(self, gutter: int) -> int:
        return max(_NARROWEST, self.console.width - gutter - 3)

    def _line(self, at: Location) -> str | None:
        """The source line at which ``at`` begins, if it is known."""
        if at.path not in self._lines:
            source = self.sources.get(at.path)
            self._lines[at.path] = [] if source is None else split_lines(source)
        lines = self._lines[at.path]
        return lines[at.line - 1] if 0 < at.line <= len(lines) else None


def _span(at: Location, line: str) -> tuple[int, int]:
    """0-based start and end of ``at`` in its first line; one of several lines reaches to its end."""
    return at.column - 1, at.end_column - 1 if at.end_line == at.line else len(line)


def _one_line(text: str) -> str:
    return " ".join(text.split())
