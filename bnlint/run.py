"""A whole run, readable top to bottom: which files, what earlier runs know of them, the others through the engine, and
a report.

Nothing is imported here that a run which finds nothing new can do without: the engine and the rules take longer to
import than such a run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple

from bnlint.config import Settings
from bnlint.outcome import Report
from bnlint.source.discovery import DEFAULT_EXCLUDE, SourceFile, discover
from bnlint.source.ignore import Patterns

if TYPE_CHECKING:
    from bnlint.finding import Diagnostic, Finding

Progress = Callable[[str, int, int], None]


class Stdin(NamedTuple):
    """What came in through standard input, and the path to show for it."""

    data: bytes
    shown: str


def run(
    inputs: Sequence[str] | Stdin,
    settings: Settings,
    *,
    verify: bool = False,
    verify_models: bool = False,
    plots: bool = False,
    use_cache: bool = True,
    jobs: int = 1,
    progress: Progress = lambda activity, done, total: None,
) -> Report:
    """Lint paths or standard input with at most ``jobs`` processes, and verify what is found if asked to, with
    ``plots`` for a report that shows them.

    ``progress`` hears what is being done and how many of how many items are done. Raises ``UsageError`` for settings
    that name what is no rule, and for rules that cannot be loaded.
    """
    findings: list[Finding] = []
    diagnostics: list[Diagnostic] = []
    if isinstance(inputs, Stdin):
        files, results = [SourceFile(inputs.shown, inputs.shown)], _lint_stdin(inputs, settings)
    else:
        items = list(discover(inputs, _exclusion(settings)))
        files = [item for item in items if isinstance(item, SourceFile)]
        diagnostics += [item for item in items if not isinstance(item, SourceFile)]
        results = _lint_files(files, settings, use_cache, jobs)
    done = 0
    with closing(results):
        for count, found, problems in results:
            done += count
            findings += (finding for finding in found if settings.shows(finding.confidence.value))
            diagnostics += problems
            progress("linting", done, len(files))
    if verify and findings:
        progress("verifying", 0, len(findings))
        findings, problems = _verify(findings, settings, use_cache, models=verify_models, plots=plots)
        diagnostics += problems
    return Report(
        findings=tuple(sorted(findings, key=lambda finding: finding.sort_key)),
        diagnostics=tuple(sorted(diagnostics, key=lambda problem: (problem.path, problem.line, problem.column))),
        files=len(files),
        verified=verify,
        sources=_sources(findings, diagnostics, inputs),
    )


#: How many files, and what was found in them.
_Results = Generator[tuple[int, "Sequence[Finding]", "Sequence[Diagnostic]"], None, None]


def _lint_stdin(inputs: Stdin, settings: Settings) -> _Results:
    from bnlint.engine import lint_bytes
    from bnlint.rule import registry
    from bnlint.semantics.project import Project

    rules = registry()
    settings.check(rules)
    selected = [rule for rule in rules.values() if settings.enabled(rule.code, rule.default)]
    project = Project(assumptions=settings.assumptions())
    result = lint_bytes(inputs.data, inputs.shown, selected, project)
    yield 1, result.findings, result.diagnostics


def _lint_files(files: Sequence[SourceFile], settings: Settings, use_cache: bool, jobs: int) -> _Results:
    if not files and not settings.names_codes:
        return
    from bnlint.cache import ResultCache, key
    from bnlint.fingerprint import installed
    from bnlint.known import Known

    with ResultCache.open(settings.root) if use_cache and files else ResultCache() as cache:
        there = installed(cache)
        settings.check([rule.code for rule in there.rules])
        rules = [rule for rule in there.rules if settings.enabled(rule.code, rule.default)]
        codes = [rule.code for rule in rules]
        assumptions = settings.assumptions()
        known = Known(cache, rules, key(there.fingerprint, repr(assumptions), *codes).hex(), assumptions.teaching)
        findings, others = known.look_up(files)
        yield len(files) - len(others), findings, ()
        if not others:
            return
        from bnlint.pool import lint_all
        from bnlint.rule import registry

        with closing(lint_all(others, [registry()[code] for code in codes], jobs, assumptions)) as results:
            for file, result in zip(others, results, strict=True):
                known.keep(file.shown, result)
                yield 1, result.findings, result.diagnostics


def _verify(
    findings: list[Finding], settings: Settings, use_cache: bool, *, models: bool, plots: bool
) -> tuple[list[Finding], list[Diagnostic]]:
    from bnlint.cache import ResultCache
    from bnlint.verify import verify

    try:
        with ResultCache.open(settings.root) if use_cache else ResultCache() as cache:
            return verify(findings, device=settings.device, models=models, plots=plots, cache=cache), []
    except Exception as error:
        from bnlint.engine import internal_error

        return findings, [internal_error("", "verifying", error)]


def _exclusion(settings: Settings) -> Patterns:
    base = DEFAULT_EXCLUDE if settings.exclude is None else settings.exclude
    return Patterns(settings.root, (*base, *settings.extend_exclude))


def _sources(
    findings: Sequence[Finding], diagnostics: Sequence[Diagnostic], inputs: Sequence[str] | Stdin
) -> dict[str, str]:
    """The texts of all files that are named in a report."""
    if not findings and not diagnostics:
        return {}
    from bnlint.errors import FileError
    from bnlint.source.decode import decode
    from bnlint.source.dependencies import read

    paths = {problem.path for problem in diagnostics}
    for finding in findings:
        paths.update((finding.location.path, *(step.location.path for step in finding.trace)))
    texts = {}
    for path in paths:
        data = inputs.data if isinstance(inputs, Stdin) and path == inputs.shown else read(path)[0]
        with suppress(FileError):
            texts[path] = decode(data)
    return texts
