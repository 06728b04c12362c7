"""Which statements of a file a rule is about, told from their text."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple


class Mark(NamedTuple):
    """Patterns that are all found in a statement which a rule is about.

    ``callers`` tells that what calls it matters too: the rule is about what happens there to what others build.
    ``follows_modes`` tells that it takes a long analysis.
    """

    patterns: tuple[str, ...]
    callers: bool = True
    follows_modes: bool = True

    def is_on(self, text: str) -> bool:
        return all(_pattern(pattern).search(text) for pattern in self.patterns)

    def may_be_on(self, text: str) -> bool:
        """Whether a part of a marked statement is one that the mark is about."""
        return not self.patterns or _pattern(self.patterns[0]).search(text) is not None


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
