"""The flake8 plugin: a thin door to the same engine.

It imports no framework, and nothing of flake8 until flake8 runs it: whoever runs it has flake8, so that is an
extra of this package and no dependency. What is on is decided here, by flake8's configuration alone
(``bnlint-select``, ``bnlint-ignore``, ``bnlint-extend-select``, ``bnlint-min-confidence``) and not by
``[tool.bnlint]``: flake8's users look for settings in one place. ``noqa`` comments are left to flake8.

A file that concerns no rule, nearly every one, costs a search for needles: flake8 has parsed it, and the engine is
imported for the first that does.
"""

from __future__ import annotations

import ast
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bnlint import __version__
from bnlint.assumptions import NOTHING_ASSUMED, Assumptions
from bnlint.config import CONFIDENCES, Selection, Settings, load_settings, suggestion
from bnlint.errors import UsageError
from bnlint.rule import FILE_ERROR_CODE, Rule, registry

if TYPE_CHECKING:
    from bnlint.semantics.project import Project

_CODES = {
    "--bnlint-select": "bnlint's codes or prefixes to run instead of its default ones",
    "--bnlint-extend-select": "bnlint's codes or prefixes to run as well",
    "--bnlint-ignore": "bnlint's codes or prefixes to leave out",
}

#: Line, column from 0, text and plugin, as flake8 wants them.
_Result = tuple[int, int, str, "type[Plugin]"]


class Plugin:
    """What flake8 makes an instance of for each file. The settings are its class's, since flake8 makes no other."""

    name = "bnlint"
    version = __version__
    _settings: ClassVar[Settings] = Settings(root="")
    _rules: ClassVar[tuple[Rule, ...]] = ()
    #: These are facts about the project, so they come from its pyproject.toml here too.
    _assumptions: ClassVar[Assumptions] = NOTHING_ASSUMED
    #: What files import, shared by all that a process lints.
    _project: ClassVar[Project | None] = None

    def __init__(self, tree: ast.AST, lines: Sequence[str], filename: str) -> None:
        """flake8 passes what is named here; it takes for its tree checks only plugins that want ``tree``."""
        self._lines = lines
        self._filename = filename

    @classmethod
    def add_options(cls, manager: Any) -> None:
        """Make flake8 know our options, on its command line and in its configuration."""
        for option, text in _CODES.items():
            manager.add_option(
                option,
                default="",
                metavar="CODES",
                parse_from_config=True,
                comma_separated_list=True,
                help=text,
            )
        manager.add_option(
            "--bnlint-min-confidence",
            default=cls._settings.min_confidence,
            metavar="CONFIDENCE",
            parse_from_config=True,
            help=f"show bnlint's findings that are at least this sure: {', '.join(CONFIDENCES)} (default: %(default)s)",
        )

    @classmethod
    def parse_options(cls, options: Namespace) -> None:
        """Decide which rules run. What is wrong ends the run, in flake8's own way of saying so."""
        try:
            rules = registry()
            selection = Selection(
                select=tuple(options.bnlint_select) or None,
                extend_select=tuple(options.bnlint_extend_select),
                ignore=tuple(options.bnlint_ignore),
                source="bnlint-",
            )
            selection.check(rules)
            least = options.bnlint_min_confidence
            if least not in CONFIDENCES:
                choose = suggestion(least, CONFIDENCES, "choose one of " + ", ".join(CONFIDENCES))
                raise UsageError(f"bnlint-min-confidence: unknown confidence {least!r}{choose}")
            cls._assumptions = load_settings(os.getcwd()).assumptions()
        except UsageError as error:
            from flake8.exceptions import ExecutionError

            raise ExecutionError(f"bnlint: {error}") from error
        cls._settings = Settings(root="", selections=(selection,), min_confidence=least)
        cls._rules = tuple(rule for rule in rules.values() if cls._settings.enabled(rule.code, rule.default))

    def run(self) -> Iterator[_Result]:
        """The findings in the file, and what went wrong: an exception here would end the whole of flake8's run."""
        try:
            text = "".join(self._lines)
            data = text.encode("utf-8", "surrogatepass")
            taught = self._assumptions.teaching.names_batchnorm(text)
            results = self._lint(text) if taught or any(rule.concerns(data) for rule in self._rules) else []
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            results = [(1, 0, f"{FILE_ERROR_CODE} internal error in bnlint ({what}); please report it", type(self))]
        yield from results

    def _lint(self, text: str) -> list[_Result]:
        from bnlint.engine import lint_text
        from bnlint.semantics.project import Project
        from bnlint.source.discovery import shown

        if Plugin._project is None:
            Plugin._project = Project(assumptions=Plugin._assumptions)
        path = shown(self._filename)
        result = lint_text(text, path, self._rules, Plugin._project, parsed=True, heed_noqa=False)
        found = [(problem.line, problem.column, f"{problem.code} {problem.message}") for problem in result.diagnostics]
        found += [
            (finding.location.line, finding.location.column, f"{finding.code} {finding.message}")
            for finding in result.findings
            if self._settings.shows(finding.confidence.value)
        ]
        return [(line, column - 1, message, type(self)) for line, column, message in found]
