"""The flake8 plugin: a thin door to the same engine.

It imports no framework, and nothing of flake8 until flake8 runs it: whoever runs it has flake8, so that is an
extra of this package and no dependency. What is on is decided here, by flake8's configuration alone
(``bnlint-select``, ``bnlint-ignore``, ``bnlint-extend-select``) and not by ``[tool.bnlint]``: flake8's users
look for settings in one place. ``noqa`` comments are left to flake8.
"""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from bnlint import __version__
from bnlint.config import Selection, Settings
from bnlint.errors import UsageError
from bnlint.rule import FILE_ERROR_CODE, Rule, registry

_OPTIONS = {
    "--bnlint-select": "bnlint's codes or prefixes to run instead of its default ones",
    "--bnlint-extend-select": "bnlint's codes or prefixes to run as well",
    "--bnlint-ignore": "bnlint's codes or prefixes to leave out",
}


class Plugin:
    name = "bnlint"
    version = __version__
    _rules: ClassVar[tuple[Rule, ...]] = ()

    def __init__(self, tree: ast.AST, lines: Sequence[str], filename: str) -> None:
        """flake8 passes what is named here; it takes for its tree checks only plugins that want ``tree``."""
        self._lines = lines
        self._filename = filename

    @classmethod
    def add_options(cls, manager: Any) -> None:
        for option, text in _OPTIONS.items():
            manager.add_option(
                option,
                default="",
                metavar="CODES",
                parse_from_config=True,
                comma_separated_list=True,
                help=text,
            )

    @classmethod
    def parse_options(cls, options: Namespace) -> None:
        """Decide which rules run. Wrong codes end the run, in flake8's own way of saying so."""
        try:
            rules = registry()
            selection = Selection(
                select=tuple(options.bnlint_select) or None,
                extend_select=tuple(options.bnlint_extend_select),
                ignore=tuple(options.bnlint_ignore),
                source="bnlint-",
            )
            selection.check(rules)
        except UsageError as error:
            from flake8.exceptions import ExecutionError

            raise ExecutionError(f"bnlint: {error}") from error
        settings = Settings(root="", selections=(selection,))
        cls._rules = tuple(rule for rule in rules.values() if settings.enabled(rule.code, rule.default))

    def run(self) -> Iterator[tuple[int, int, str, type[Plugin]]]:
        try:
            from bnlint.engine import lint_text
            from bnlint.semantics.project import Project

            result = lint_text("".join(self._lines), self._filename, self._rules, Project(), heed_noqa=False)
        except Exception as error:  # an exception here would end the whole flake8 run
            what = " ".join(f"{type(error).__name__}: {error}".split())
            yield 1, 0, f"{FILE_ERROR_CODE} internal error in bnlint ({what}); please report it", type(self)
            return
        for problem in result.diagnostics:
            yield problem.line, problem.column - 1, f"{problem.code} {problem.message}", type(self)
        shown = Settings(root="")  # what is only possible is for the command
        for finding in result.findings:
            if not shown.shows(finding.confidence.value):
                continue
            place = finding.location
            yield place.line, place.column - 1, f"{finding.code} {finding.message}", type(self)
