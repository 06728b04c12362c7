"""One file's way through the pipeline, readable top to bottom.

bytes → text → needles → syntax check → outline → facts → rules → suppression → findings. The command, standard
input and the flake8 plugin are doors to it, so that all give the same answer.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bnlint.errors import FileError
from bnlint.finding import Confidence, Diagnostic, Finding, Location, TraceStep
from bnlint.rule import FILE_ERROR_CODE, Rule
from bnlint.semantics.project import Project
from bnlint.source.decode import decode, split_lines
from bnlint.source.dependencies import Dependencies
from bnlint.source.dependencies import digest as digest_of
from bnlint.source.marks import Mark
from bnlint.source.syntax import check_syntax, essence, no_collection
from bnlint.suppress import suppressed

if TYPE_CHECKING:
    from bnlint.source.parse import Source


@dataclass(frozen=True)
class FileResult:
    """What there is to say of a file; ``digest`` names the content that it was said of, ``essence`` what of that counts
    (where a rule is concerned), ``dependencies`` are what it rests on beside that."""

    findings: tuple[Finding, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    dependencies: Dependencies = field(default_factory=Dependencies)
    digest: str = ""
    essence: str = ""


def lint_file(path: str, shown: str, rules: Sequence[Rule], project: Project) -> FileResult:
    """Lint the file at ``path``, which reports name ``shown``."""
    try:
        with open(path, "rb", buffering=0) as stream:
            data = stream.read()
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}; check its permissions or exclude it"
        return FileResult(diagnostics=(Diagnostic(shown, 1, 1, FILE_ERROR_CODE, message),))
    return lint_bytes(data, shown, rules, project)


def lint_bytes(data: bytes, path: str, rules: Sequence[Rule], project: Project | None = None) -> FileResult:
    """Lint one file, given as it lies on disk."""
    try:
        text = decode(data)
    except FileError as error:
        return FileResult(diagnostics=(_diagnostic(path, error),))
    return lint_text(text, path, rules, project, digest=digest_of(data))


def lint_text(
    text: str,
    path: str,
    rules: Sequence[Rule],
    project: Project | None = None,
    *,
    digest: str = "",
    parsed: bool = False,
    heed_noqa: bool = True,
) -> FileResult:
    """Lint one decoded file, and what it imports from its ``project``. Whatever goes wrong becomes one diagnostic;
    nothing is raised. ``parsed`` says that somebody has made sure of the syntax already."""
    try:
        concerned = _concerned(rules, text, project)
        if not concerned:
            if not parsed:
                check_syntax(path, text)  # a broken file is reported whatever it holds
            return FileResult(digest=digest)
        from bnlint.source.parse import parse

        source = parse(path, text) if project is None else project.root(path, text, digest or digest_of(_bytes(text)))
        recording = nullcontext(Dependencies()) if project is None else project.recording()
        with no_collection(then_collect=True), recording as dependencies:
            findings = _once_a_place(_findings(source, concerned, rules, project))
        if findings and heed_noqa:
            lines = split_lines(text)
            findings = [finding for finding in findings if not suppressed(finding, lines)]
    except FileError as error:
        return FileResult(diagnostics=(_diagnostic(path, error),))
    except Exception as error:  # MemoryError and RecursionError among them: the other files go on
        return FileResult(diagnostics=(internal_error(path, "analysing this file", error),))
    seen = essence(source.gist, text, [rule.code for rule in concerned])
    return FileResult(tuple(findings), (), dependencies, digest, seen)


def _concerned(rules: Sequence[Rule], text: str, project: Project | None) -> list[Rule]:
    """The rules that a file may break; all of them where it names a layer that only the settings know."""
    if _is_taught(text, project):
        return list(rules)
    data = _bytes(text)
    return [rule for rule in rules if rule.concerns(data)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_taught(text: str, project: Project | None) -> bool:
    return project is not None and project.assumptions.teaching.names_batchnorm(text)


def marks(rules: Sequence[Rule]) -> tuple[Mark, ...]:
    """What a statement contains that one of these rules is about."""
    return tuple(dict.fromkeys(rule.mark() for rule in rules))


def internal_error(path: str, activity: str, error: Exception) -> Diagnostic:
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


def _findings(
    source: Source, concerned: Sequence[Rule], rules: Sequence[Rule], project: Project | None
) -> Iterator[Finding]:
    for finding in _found(source, concerned, project):
        if finding.location.path == source.path:
            yield finding
        elif project is not None:
            yield from _at_the_call(finding, source.path, rules, project)


def _found(source: Source, concerned: Sequence[Rule], project: Project | None) -> Iterator[Finding]:
    from bnlint.semantics import analyse

    # What rules look for in the text does not foresee the names of layers that only the settings know.
    facts = analyse(source, project, None if _is_taught(source.text, project) else marks(concerned))
    for rule in concerned:
        yield from rule.check(facts)


def _at_the_call(finding: Finding, path: str, rules: Sequence[Rule], project: Project) -> Iterator[Finding]:
    """A finding in a file that ``path`` calls is reported at that call, unless that file shows it by itself."""
    at = finding.location
    steps = [step.location for step in finding.trace]
    until = steps.index(at) if at in steps else len(steps)
    calls = [step for step in finding.trace[:until] if step.location.path == path]
    own = _own_findings(at.path, rules, project).get((at, finding.code)) if calls else None
    if not calls or (own is not None and not _is_surer(finding, own)):
        return
    step = TraceStep(at, "this is where it happens")
    message = f"{finding.message} (in {at.path}, line {at.line})"
    yield replace(finding, location=calls[-1].location, message=message, trace=(*finding.trace, step), fix=None)


def _own_findings(path: str, rules: Sequence[Rule], project: Project) -> dict[tuple[Location, str], Finding]:
    """What a file shows when nothing is known of its callers, by place and code."""
    if path not in project.own_findings:
        found: Iterable[Finding] = ()
        with project.recording() as dependencies, suppress(FileError):
            source = project.source(path)
            if source is not None:
                concerned = _concerned(rules, source.text, project)
                found = _once_a_place(its for its in _found(source, concerned, project) if its.location.path == path)
        project.own_findings[path] = ({(its.location, its.code): its for its in found}, dependencies)
    own, dependencies = project.own_findings[path]
    project.depend_on(dependencies)
    return own


def _once_a_place(findings: Iterable[Finding]) -> list[Finding]:
    """One finding of a rule at a place: several callers may lead there, the surest of them is shown."""
    best: dict[tuple[Location, str], Finding] = {}
    for finding in findings:
        place = (finding.location, finding.code)
        if place not in best or _is_surer(finding, best[place]):
            best[place] = finding
    return sorted(best.values(), key=lambda finding: finding.sort_key)


def _is_surer(finding: Finding, other: Finding) -> bool:
    surest = list(Confidence)
    return surest.index(finding.confidence) < surest.index(other.confidence)


def _diagnostic(path: str, error: FileError) -> Diagnostic:
    return Diagnostic(path, error.line, error.column, FILE_ERROR_CODE, error.message)
