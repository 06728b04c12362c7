"""Which statements of a file a rule is about, told from their text."""

from __future__ import annotations

import re
from functools import cache

#: Alternatives, each of patterns that must all be found.
Marks = tuple[tuple[str, ...], ...]


def is_marked(text: str, marks: Marks) -> bool:
    return any(all(_pattern(pattern).search(text) for pattern in patterns) for patterns in marks)


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
