"""The pipeline, readable top to bottom; the only place that knows the whole order.

bytes → text → syntax check → needles → parse → facts → rules → suppression → findings. The command, standard
input and the flake8 plugin are doors to it, so that all give the same answer.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bnlint.cache import ResultCache
from bnlint.config import Settings
from bnlint.errors import FileError
from bnlint.finding import Confidence, Diagnostic, Finding, Location, Report, TraceStep
from bnlint.rule import FILE_ERROR_CODE, Rule
from bnlint.semantics.project import Project
from bnlint.source.marks import Marks
from bnlint.source.decode import decode, split_lines
from bnlint.source.discovery import DEFAULT_EXCLUDE, Patterns, SourceFile, discover, patterns
from bnlint.suppress import suppressed


@dataclass(frozen=True)
class FileResult:
    findings: tuple[Finding, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class Stdin:
    """What came in through standard input, and the path to show for it."""

    data: bytes
    shown: str


def run(
    inputs: Sequence[str] | Stdin,
    settings: Settings,
    rules: Sequence[Rule],
    *,
    verify: bool = False,
    use_cache: bool = True,
    progress: Callable[[str, int, int], None] = lambda activity, done, total: None,
) -> Report:
    """Lint paths or standard input, and verify what is found if asked to.

    ``progress`` hears what is being done and how many of how many items are done.
    """
    began = time.monotonic()
    findings: list[Finding] = []
    diagnostics: list[Diagnostic] = []
    sources: dict[str, str] = {}
    files: list[SourceFile] = []
    total = 0
    if isinstance(inputs, Stdin):
        total = 1
        results: Iterator[tuple[str, bytes, FileResult]] = iter(
            [(inputs.shown, inputs.data, lint_bytes(inputs.data, inputs.shown, rules, Project()))]
        )
    else:
        for item in discover(inputs, _exclusion(settings)):
            if isinstance(item, SourceFile):
                files.append(item)
            else:
                diagnostics.append(item)
        total = len(files)
        results = _lint_files(
            files, rules, ResultCache.open(settings.root, rules) if use_cache else ResultCache()
        )

    for done, (path, data, result) in enumerate(results, start=1):
        findings += result.findings
        diagnostics += result.diagnostics
        if result.findings or result.diagnostics:
            sources.update(_text(path, data))
        progress("linting", done, total)

    if verify:
        progress("verifying", 0, len(findings))
        findings, problems = _verify(findings, settings.device)
        diagnostics += problems
    return Report(
        findings=tuple(sorted(findings, key=lambda finding: finding.sort_key)),
        diagnostics=tuple(
            sorted(diagnostics, key=lambda problem: (problem.path, problem.line, problem.column))
        ),
        files=total,
        seconds=time.monotonic() - began,
        verified=verify,
        sources=sources,
    )


def lint_bytes(data: bytes, path: str, rules: Sequence[Rule], project: Project | None = None) -> FileResult:
    """Lint one file, given as it lies on disk."""
    try:
        text = decode(data)
    except FileError as error:
        return FileResult(diagnostics=(_diagnostic(path, error),))
    return lint_text(text, path, rules, project)


def lint_text(
    text: str, path: str, rules: Sequence[Rule], project: Project | None = None, *, heed_noqa: bool = True
) -> FileResult:
    """Lint one decoded file, and what it imports from its ``project``. Whatever goes wrong becomes one diagnostic;
    nothing is raised."""
    try:
        findings = _once_a_place(_findings(text, path, rules, project))
        if findings and heed_noqa:
            lines = split_lines(text)
            findings = [finding for finding in findings if not suppressed(finding, lines)]
    except FileError as error:
        return FileResult(diagnostics=(_diagnostic(path, error),))
    except Exception as error:  # MemoryError and RecursionError among them: the other files go on
        return FileResult(diagnostics=(_internal_error(path, "analysing this file", error),))
    return FileResult(tuple(findings))


def _once_a_place(findings: Iterable[Finding]) -> list[Finding]:
    """One finding of a rule at a place: several callers may lead there, the surest of them is shown."""
    surest = list(Confidence)
    best: dict[tuple[Location, str], Finding] = {}
    for finding in findings:
        place = (finding.location, finding.code)
        other = best.get(place)
        if other is None or surest.index(finding.confidence) < surest.index(other.confidence):
            best[place] = finding
    return sorted(best.values(), key=lambda finding: finding.sort_key)


def _findings(text: str, path: str, rules: Sequence[Rule], project: Project | None = None) -> Iterator[Finding]:
    from bnlint.source.parse import check_syntax, parse

    data = text.encode("utf-8", "surrogatepass")
    concerned = [rule for rule in rules if rule.concerns(data)]
    if not concerned:
        check_syntax(path, text)  # a broken file is reported whatever it holds
        return
    from bnlint.semantics import analyse

    facts = analyse(parse(path, text), project, marks(concerned))
    for rule in concerned:
        for finding in rule.check(facts):
            if finding.location.path == path:
                yield finding
            elif project is not None:
                yield from _at_the_call(finding, path, rule, project)


def _at_the_call(finding: Finding, path: str, rule: Rule, project: Project) -> Iterator[Finding]:
    """A finding in a file that ``path`` calls is reported at that call, unless that file shows it by itself."""
    steps = [step.location for step in finding.trace]
    until = steps.index(finding.location) if finding.location in steps else len(steps)
    calls = [step for step in finding.trace[:until] if step.location.path == path]
    if not calls or _shows_by_itself(finding.location, rule, project):
        return
    at = finding.location
    step = TraceStep(at, "this is where it happens")
    message = f"{finding.message} (in {at.path}, line {at.line})"
    yield replace(finding, location=calls[-1].location, message=message, trace=(*finding.trace, step), fix=None)


def _shows_by_itself(place: Location, rule: Rule, project: Project) -> bool:
    """Whether the file of ``place`` has a finding of the rule there, when nothing is known of its callers."""
    from bnlint.semantics import analyse

    known = project.own_findings.get((place.path, rule.code))
    if known is None:
        source = project.source(place.path)
        facts = analyse(source, project, marks([rule])) if source is not None else None
        known = frozenset(its.location for its in rule.check(facts)) if facts is not None else frozenset()
        project.own_findings[place.path, rule.code] = known
    return place in known


def marks(rules: Sequence[Rule]) -> Marks:
    """What a statement contains that one of these rules is about."""
    return tuple(sorted({rule.marks for rule in rules}))


def _lint_files(
    files: Sequence[SourceFile], rules: Sequence[Rule], cache: ResultCache
) -> Iterator[tuple[str, bytes, FileResult]]:
    project = Project()
    with cache:
        for file in files:
            try:
                with open(file.path, "rb") as stream:
                    data = stream.read()
            except OSError as error:
                message = f"cannot be read: {error.strerror or error}; check its permissions or exclude it"
                problem = Diagnostic(file.shown, 1, 1, FILE_ERROR_CODE, message)
                yield file.shown, b"", FileResult(diagnostics=(problem,))
                continue
            findings = cache.get(data, file.shown)
            if findings is not None:
                yield file.shown, data, FileResult(findings)
                continue
            result = lint_bytes(data, file.shown, rules, project)
            if not result.diagnostics:  # what went wrong may go right the next time: memory, a newer Python
                cache.put(data, file.shown, result.findings)
            yield file.shown, data, result


def _verify(findings: list[Finding], device: str) -> tuple[list[Finding], list[Diagnostic]]:
    from bnlint.verify import verify

    try:
        return verify(findings, device=device), []
    except Exception as error:
        return findings, [_internal_error("", "verifying", error)]


def _exclusion(settings: Settings) -> Patterns:
    base = DEFAULT_EXCLUDE if settings.exclude is None else settings.exclude
    return patterns(settings.root, (*base, *settings.extend_exclude))


def _text(path: str, data: bytes) -> dict[str, str]:
    try:
        return {path: decode(data)}
    except FileError:
        return {}


def _diagnostic(path: str, error: FileError) -> Diagnostic:
    return Diagnostic(path, error.line, error.column, FILE_ERROR_CODE, error.message)


def _internal_error(path: str, activity: str, error: Exception) -> Diagnostic:
    """One line for a fault of bnlint's or of a rule pack's own; its traceback only where it is asked for."""
    if os.environ.get("BNLINT_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "an unknown place"
    what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    message = (
        f"internal error while {activity} ({what}, in {where}); "
        "please report it with what BNLINT_DEBUG=1 makes bnlint print"
    )
    return Diagnostic(path, 1, 1, FILE_ERROR_CODE, message)
