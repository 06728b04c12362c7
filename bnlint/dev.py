"""For who works on bnlint: ``python -m bnlint.dev new-rule BNL130 some-name`` and ``python -m bnlint.dev docs``.

Both work in a checkout, from whose root they are started. ``docs`` writes the pages in ``docs/rules/`` from the rules'
own documentation; a test holds that they are what it would write.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from bnlint.errors import UsageError
from bnlint.rule import RETIRED, Rule, registry

_FOLDER = Path("docs", "rules")

_MODULE = '''\
from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts


class $class_name(Rule):
    """One line that says what is wrong in the code.

    ## What it does
    Reports ...

    ## Why is this bad?
    What is computed instead of what was meant, with numbers.

    ## Example
    ```python
    ...
    ```

    ## Use instead
    ```python
    ...
    ```

    ## When it does not fire
    For ...

    ## How --verify confirms it
    It ...

    ## Fix safety
    There is no fix: ...

    ## References
    - <https://...>
    """

    code: ClassVar[str] = "$code"
    name: ClassVar[str] = "$name"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-gap",)
    evidence: ClassVar[int] = 0  # distinct public reports of the mistake
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"BatchNorm",))
    marks: ClassVar[tuple[str, ...]] = (r"BatchNorm",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for built in file.layers:
            if support.is_batchnorm(built.instance):
                yield self.finding(
                    built.location,
                    "say what is wrong here, and why",
                    Confidence.CERTAIN,
                    built.where.calls,
                    experiment=support.experiment("mode-gap", "torch", [built.instance]),
                )
'''
_BAD = """\
from torch import nn

layer = nn.BatchNorm2d(8)  # expect: $code
"""
_GOOD = """\
from torch import nn

layer = nn.GroupNorm(4, 8)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status is 0, 1 where ``docs --check`` finds pages out of date, and 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bnlint.dev", description="Work on bnlint, in a checkout.")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new-rule", help="write a rule's module and fixtures, to be filled in")
    new.add_argument("code", help="BNL and three digits")
    new.add_argument("name", help="lower case with hyphens")
    docs = commands.add_parser("docs", help="write docs/rules/ from the documentation of the rules")
    docs.add_argument("--check", action="store_true", help="write nothing, and fail if a page is not what it should be")
    options = parser.parse_args(arguments)
    try:
        if not Path("rules").is_dir() or not Path("fixtures").is_dir():
            raise UsageError("no rules/ and fixtures/ here; run it from the root of a checkout")
        if options.command == "new-rule":
            return _new_rule(options.code, options.name)
        return _docs(options.check)
    except UsageError as error:
        print(f"bnlint.dev: error: {error}", file=sys.stderr)
        return 2


def _new_rule(code: str, name: str) -> int:
    rules = registry()
    if not re.fullmatch(r"BNL[0-8]\d\d|BNL9(?!00)\d\d", code):
        raise UsageError(f"{code!r} is no code; write BNL and three digits (BNL900 is taken)")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r} is no name; write it in lower case with hyphens")
    if code in rules or code in RETIRED:
        raise UsageError(f"{code} is taken; see bnlint --explain {code}")
    if any(rule.name == name for rule in rules.values()):
        raise UsageError(f"there is a rule named {name} already; choose another name")
    words = {"code": code, "name": name, "class_name": "".join(word.capitalize() for word in name.split("-"))}
    fixtures = Path("fixtures", name)
    files = {Path("rules", f"{code.lower()}_{name.replace('-', '_')}.py"): _MODULE}
    files |= {fixtures / f"bad_{number}.py": _BAD for number in ("one", "two", "three")}
    files |= {fixtures / f"good_{number}.py": _GOOD for number in ("one", "two", "three")}
    for path, text in files.items():
        if path.exists():
            raise UsageError(f"{path} exists; move it away or choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(words), encoding="utf-8")
        print(path)
    print(f"Now: fill them in, put {code} into NULLS in tests/test_rules.py and into CHANGELOG.md, run")
    print("python -m bnlint.dev docs and python -m pytest tests/test_rules.py tests/test_dev.py")
    return 0


def _docs(check: bool) -> int:
    pages = rule_pages(registry())
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    left_over = [path for path in _FOLDER.glob("BNL*.md") if path not in pages]
    if check:
        for path in sorted([*stale, *left_over]):
            print(f"{path}: not what the rules say; run python -m bnlint.dev docs")
        return 1 if stale or left_over else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path], encoding="utf-8")
        print(path)
    for path in left_over:
        path.unlink()
        print(f"{path} removed")
    return 0


def rule_pages(rules: Mapping[str, Rule]) -> dict[Path, str]:
    """The pages of bnlint's own rules and of retired codes, and their index, by path."""
    own = [rule for code, rule in rules.items() if code.startswith("BNL")]
    pages = {_FOLDER / f"{rule.code}.md": _page(rule) for rule in own}
    pages |= {_FOLDER / f"{code}.md": _tombstone(code, name, why) for code, (name, why) in RETIRED.items()}
    return {**pages, _FOLDER / "index.md": _index(own)}


_GENERATED = "<!-- Written by python -m bnlint.dev docs. -->\n\n"


def _page(rule: Rule) -> str:
    state = "On by default." if rule.default else f"Off by default; `--extend-select {rule.code}` switches it on."
    facts = f"{', '.join(rule.frameworks)}. Severity: {rule.severity.value}. {state}"
    summary, _, rest = rule.documentation().partition("\n\n")
    return f"{_GENERATED}# {rule.code} {rule.name}\n\n{summary}\n\n{facts}\n\n{rest}\n"


def _tombstone(code: str, name: str, why: str) -> str:
    return f"{_GENERATED}# {code} {name}\n\nThere is no such rule: {why}.\n"


def _index(rules: Sequence[Rule]) -> str:
    lines = [
        "# Rules",
        "",
        "*Fix*: safe fixes compute what the code computes now. *Verified by*: the kinds of experiment that `--verify`",
        "carries out, described in [verification](../verification.md). *Reports*: distinct public threads or places in",
        "public code in which somebody had the problem, as far as we counted them; a lower bound, and no measure of",
        "how frequent it is.",
        "",
        "| code | name | frameworks | default | fix | verified by | reports |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in rules:
        cells = (
            f"[{rule.code}]({rule.code}.md)",
            rule.name,
            ", ".join(rule.frameworks),
            "on" if rule.default else "off",
            fix_of(rule),
            ", ".join(rule.experiments),
            str(rule.evidence),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Codes without a rule:", ""]
    lines += [f"- [{code}]({code}.md) {name}" for code, (name, _) in RETIRED.items()]
    lines += ["- BNL900 cannot-analyse: a file that could not be analysed; no rule"]
    return _GENERATED + "\n".join(lines) + "\n"


def fix_of(rule: Rule) -> str:
    """``safe``, ``unsafe`` or ``none``, as the rule's documentation begins to speak of its fix."""
    text = rule.documentation().partition("## Fix safety\n")[2]
    for beginning, said in (("There is no fix", "none"), ("Safe", "safe"), ("Unsafe", "unsafe")):
        if text.startswith(beginning):
            return said
    raise UsageError(f"{rule.code}: Fix safety begins with none of Safe, Unsafe and There is no fix; mend it")


if __name__ == "__main__":
    sys.exit(main())
