"""Suppression by comment: ``# noqa`` and ``# flake8: noqa``, read exactly as flake8 reads them.

bnlint has two doors, its own command and the flake8 plugin, and in the second flake8 itself decides what a
comment silences. So this module follows flake8 to the letter, its surprises included: a comment with
something that is no code (``# noqa: BNL``) silences everything, the codes themselves are upper case, a
``# noqa`` inside a string counts, and ``# flake8: noqa: BNL101`` silences its whole file for every code.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Sequence
from functools import lru_cache

from bnlint.finding import Finding

_INLINE = re.compile(r"# noqa(?::\s?(?P<codes>(?:[A-Z]+[0-9]+[,\s]*)+))?", re.IGNORECASE)
_WHOLE_FILE = re.compile(r"\s*# flake8[:=]\s*noqa", re.IGNORECASE)


def suppressed(finding: Finding, lines: Sequence[str]) -> bool:
    """Whether a comment in the finding's file, given as its ``lines``, silences the finding.

    What counts is the line on which the finding begins, together with the lines that a multi-line string or
    a backslash ties to it; a bracket ties no lines together.
    """
    comments = _comments(tuple(lines))
    if comments is None:
        return True
    match = _INLINE.search(comments.get(finding.location.line, ""))
    if match is None:
        return False
    codes = match["codes"]
    return codes is None or finding.code.startswith(tuple(re.split(r"[,\s]+", codes.strip(", \t\n\r\f\v"))))


@lru_cache(maxsize=2)
def _comments(lines: tuple[str, ...]) -> dict[int, str] | None:
    """For each line number the text in which to look for a comment; ``None`` if the file is silenced.

    Files without any comment, nearly all of them, are not tokenised. The cache spares a file with many
    findings the repetition.
    """
    lines = tuple(line if line.endswith(("\n", "\r")) else line + "\n" for line in lines)
    if any(_WHOLE_FILE.match(line) for line in lines):
        return None
    if not any(_INLINE.search(line) for line in lines):
        return {}
    texts = dict(enumerate(lines, start=1))
    source = iter(lines)
    first, last = len(lines), 0
    try:
        for token in tokenize.generate_tokens(lambda: next(source, "")):
            if token.type in (tokenize.ENDMARKER, tokenize.DEDENT):
                continue
            first, last = min(first, token.start[0]), max(last, token.end[0])
            if token.type in (tokenize.NL, tokenize.NEWLINE):
                if first < last:
                    texts.update(dict.fromkeys(range(first, last + 1), "".join(lines[first - 1 : last])))
                first, last = len(lines), 0
    except (tokenize.TokenError, SyntaxError):
        return dict(enumerate(lines, start=1))  # as flake8: each line by itself
    return texts
