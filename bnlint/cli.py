"""The command. Whatever is heavy is imported where it is needed, so that ``bnlint --version`` is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bnlint import __version__
from bnlint.errors import UsageError

if TYPE_CHECKING:
    from bnlint.config import Settings
    from bnlint.outcome import Report

#: Seconds after which a run is long enough for a progress bar.
PROGRESS_AFTER = 1.0

_EPILOG = """\
exit status:
  0  nothing found (with --verify: nothing that was not refuted)
  1  findings (with --verify: confirmed or inconclusive ones)
  2  could not run: wrong usage, or a file or path that could not be analysed (with --verify-strict: or a finding
     that could not be decided, also where --exit-zero forgives findings)

What cannot be analysed is reported under the code BNL900, which is no rule and cannot be selected or ignored;
exclude the file instead. Settings come from [tool.bnlint] in the nearest pyproject.toml upward that has it:
select, extend-select, ignore, exclude, extend-exclude, format, device, min-confidence, torch-version, keras-version,
keras-backend, mode-managers, managed-classes, batchnorm-classes, model-factories; the README shows them. An option
comes before a setting, and --select starts afresh: the settings' select, extend-select and ignore no longer count. Of
two prefixes that fit a code the longer decides. Versions that no setting gives are read from the project's lock and
requirements files. A file that is named is always linted; directories are searched for *.py files that git does not
ignore and exclude does not cover.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is what ``--help`` says."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name need not be printable in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(_parser().parse_args(arguments))
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"bnlint: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:  # a full disk; whatever concerns a linted file has been dealt with before
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        reason = f"cannot write the report: {error.strerror}; free some space or write it elsewhere"
        print(f"bnlint: error: {reason}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bnlint",
        description="Find Python code in which BatchNorm silently computes something else than was meant.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        default=["."],
        metavar="PATH",
        help="files and directories; - is standard input (default: .)",
    )
    rules = parser.add_argument_group(
        "rules", "CODES are codes or prefixes, comma-separated; the options can be repeated"
    )
    rules.add_argument("--select", action="append", metavar="CODES", help="run these instead of the default ones")
    rules.add_argument("--extend-select", action="append", metavar="CODES", help="run these as well")
    rules.add_argument("--ignore", action="append", metavar="CODES", help="leave these out")
    rules.add_argument("--min-confidence", help="show findings that are at least certain, likely (default) or possible")
    rules.add_argument("--explain", metavar="CODE", help="show the documentation of a rule and exit")
    rules.add_argument("--list-rules", action="store_true", help="show all rules and exit")
    verifier = parser.add_argument_group("verification")
    verifier.add_argument(
        "--verify",
        action="store_true",
        help="rebuild the flagged layers and measure the effect; runs none of the linted code",
    )
    verifier.add_argument(
        "--verify-strict",
        action="store_true",
        help="the same, and inconclusive findings make the exit status 2: something could not be measured",
    )
    verifier.add_argument(
        "--verify-models",
        action="store_true",
        help="also build the project's own models and measure those; this runs code of their classes, in a child "
        "process without network that may not write",
    )
    verifier.add_argument("--device", help="where to measure: auto (default), cpu, cuda, mps")
    output = parser.add_argument_group("output")
    output.add_argument("--format", help="text (default), json or html")
    output.add_argument("--html", metavar="FILE", help="also write the report as a page, with plots if verified")
    output.add_argument("--exit-zero", action="store_true", help="findings do not make the exit status 1")
    parser.add_argument("--stdin-filename", metavar="PATH", help="the path to show for standard input")
    parser.add_argument(
        "--jobs", metavar="N", help="use at most N processes (default: as many as there are processor cores)"
    )
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write .bnlint_cache/")
    parser.add_argument("--version", action="version", version=f"bnlint {__version__}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


class _Formatter(argparse.HelpFormatter):
    """For checking options while they are added: asking for the terminal's width imports a good deal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def _run(options: argparse.Namespace) -> int:
    if options.list_rules or options.explain is not None:
        from bnlint.explain import explain, list_rules
        from bnlint.rule import registry

        if options.list_rules:
            list_rules(registry())
        else:
            explain(options.explain, registry())
        return 0
    from bnlint.report import write

    settings = _settings(options)
    if options.html is not None and not os.path.isdir(os.path.dirname(options.html) or "."):
        raise UsageError(f"--html: there is no folder {os.path.dirname(options.html)!r}; make it first")
    report = _lint(options, settings)
    if options.html is not None:
        _write_page(report, options.html)
    write(report, settings.format, sys.stdout)
    if report.diagnostics or (options.verify_strict and _undecided(report)):
        return 2
    return 0 if options.exit_zero or not _standing(report) else 1


def _write_page(report: Report, path: str) -> None:
    from bnlint.report import write

    try:
        with open(path, "w", encoding="ascii") as stream:
            write(report, "html", stream)
    except OSError as error:
        raise UsageError(f"--html: {path} cannot be written: {error.strerror}; choose another file") from error


def _settings(options: argparse.Namespace) -> Settings:
    from bnlint.config import CONFIDENCES, Selection, load_settings, suggestion
    from bnlint.report import FORMATS
    from bnlint.verify import DEVICES

    settings = load_settings(os.getcwd())
    select, extend_select, ignore = map(_split, (options.select, options.extend_select, options.ignore))
    selection = Selection(select, extend_select or (), ignore or (), "--")
    for option, choices in (("format", FORMATS), ("device", DEVICES), ("min-confidence", CONFIDENCES)):
        value = getattr(options, option.replace("-", "_"))
        if value is not None and value not in choices:
            choose = "choose one of " + ", ".join(choices)
            raise UsageError(f"--{option}: unknown {option} {value!r}{suggestion(value, choices, choose)}")
    return settings._replace(
        selections=(*settings.selections, selection),
        format=options.format or settings.format,
        device=options.device or settings.device,
        min_confidence=options.min_confidence or settings.min_confidence,
    )


def _split(values: Sequence[str] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    return tuple(code.strip() for value in values for code in value.split(",") if code.strip())


def _lint(options: argparse.Namespace, settings: Settings) -> Report:
    from bnlint.run import Stdin, run
    from bnlint.source.discovery import shown

    inputs: Sequence[str] | Stdin = options.paths
    jobs = _jobs(options.jobs)
    if "-" in options.paths:
        if len(options.paths) > 1:
            raise UsageError("standard input (-) cannot be mixed with other paths; give it alone")
        name = "<stdin>" if options.stdin_filename is None else shown(options.stdin_filename)
        inputs = Stdin(sys.stdin.buffer.read(), name)
    elif options.stdin_filename is not None:
        raise UsageError("--stdin-filename goes with - (standard input); add - as the path")
    with _progress() as progress:
        return run(
            inputs,
            settings,
            verify=options.verify or options.verify_strict or options.verify_models,
            verify_models=options.verify_models,
            plots=options.html is not None or settings.format == "html",
            use_cache=not options.no_cache,
            jobs=jobs,
            progress=progress,
        )


def _jobs(given: str | None) -> int:
    if given is None:
        # Not all cores of the machine need be ours.
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"--jobs: must be a whole number from 1 upward, not {given!r}")
    return int(given)


def _standing(report: Report) -> bool:
    """Whether there is a finding that the verifier did not refute."""
    if not report.findings:
        return False
    from bnlint.finding import Verdict

    return any(
        finding.verification is None or finding.verification.verdict is not Verdict.REFUTED
        for finding in report.findings
    )


def _undecided(report: Report) -> bool:
    """Whether there is a finding without a verdict; if so, standard error says how many there are."""
    if not report.findings:
        return False
    from bnlint.finding import Verdict

    decided = (Verdict.CONFIRMED, Verdict.REFUTED)
    verifications = [finding.verification for finding in report.findings]
    count = sum(its is None or its.verdict not in decided for its in verifications)
    if count:
        findings = "1 finding" if count == 1 else f"{count} findings"
        print(f"bnlint: {findings} could not be decided (--verify-strict); the report says why", file=sys.stderr)
    return count > 0


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, where that is a terminal and once it has taken a while."""
    if not sys.stderr.isatty():
        yield lambda activity, done, total: None
        return
    import time

    began = time.monotonic()
    bar = None

    def progress(activity: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            # Verifying starts a framework, which always takes a while.
            if time.monotonic() - began < PROGRESS_AFTER and activity != "verifying":
                return
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            bar.add_task(activity)
            bar.start()
        # There is no counting what the verifier's child processes have done: the bar just moves.
        bar.update(bar.task_ids[0], description=activity, completed=done, total=total if done else None)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()
