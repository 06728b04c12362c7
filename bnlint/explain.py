"""What the command tells of its rules: ``--list-rules`` and ``--explain``."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from bnlint.config import suggestion
from bnlint.errors import UsageError
from bnlint.rule import FILE_ERROR_CODE, FILE_ERROR_NAME, RETIRED, Rule

_FILE_ERROR = """\
A file, directory or path could not be analysed.

It is missing, cannot be read, is not text, is not valid Python or is nested too deep; or bnlint or a rule
pack failed on it. The message says which. The other files are linted all the same, and the exit status is 2.

It is no rule: it can be neither selected nor ignored. Mend the file or exclude it (`extend-exclude` in
`[tool.bnlint]`).
"""


def list_rules(rules: Mapping[str, Rule]) -> None:
    """Print a table of all rules, a line for each."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("code", "name", "default", "severity"):
        table.add_column(column, no_wrap=True)
    table.add_column("summary")
    for rule in rules.values():
        state = "on" if rule.default else "off"
        table.add_row(rule.code, rule.name, state, rule.severity.value, _plain(rule.summary()))
    # Where a program reads the output, a rule stays one line however long it is.
    Console(width=None if sys.stdout.isatty() else 1_000).print(table)


def explain(code: str, rules: Mapping[str, Rule]) -> None:
    """Print the documentation of a rule, by its code or name. Raises ``UsageError`` where there is none."""
    by_name = {rule.name: rule for rule in rules.values()}
    rule = rules.get(code) or by_name.get(code)
    if rule is not None:
        title, text = f"{rule.code} {rule.name}", rule.documentation()
    elif code in (FILE_ERROR_CODE, FILE_ERROR_NAME):
        title, text = f"{FILE_ERROR_CODE} {FILE_ERROR_NAME}", _FILE_ERROR
    elif code in RETIRED:
        name, why = RETIRED[code]
        title, text = f"{code} {name}", f"There is no such rule: {why}."
    else:
        known = [*rules, *by_name, FILE_ERROR_CODE, FILE_ERROR_NAME]
        raise UsageError(f"--explain: there is no rule {code!r}{suggestion(code, known)}")
    console = Console()
    markdown = f"# {title}\n\n{text}"
    if console.is_terminal:
        console.print(Markdown(markdown))
    else:
        print(markdown)


def _plain(markdown: str) -> str:
    return escape(markdown.replace("``", "").replace("`", ""))
