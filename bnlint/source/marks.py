"""Which statements of a file a rule is about, told from their text."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple


class Mark(NamedTuple):
    """Patterns that are all found in a statement which a rule is about.

    ``callers`` tells that what calls it matters too: the rule is about what happens there to what others build.
    ``follows_modes`` tells that it takes a long analysis. ``excuse`` is a pattern for what counts beside it: statements
    in which something speaks against a mistake elsewhere in the file.
    """

    patterns: tuple[str, ...]
    callers: bool = True
    follows_modes: bool = True
    excuse: str = ""

    def is_on(self, text: str) -> bool:
        return all(_is_in(pattern, text) for pattern in self.patterns)

    def may_be_on(self, text: str) -> bool:
        """Whether a part of a marked statement is one that the mark is about."""
        if self.excuses(text):
            return True
        return not self.patterns or _is_in(self.patterns[0], text)

    def excuses(self, text: str) -> bool:
        return bool(self.excuse) and _is_in(self.excuse, text)


@lru_cache(maxsize=2_000)  # several rules ask the same of the statements of a file
def _is_in(pattern: str, text: str) -> bool:
    return _pattern(pattern).search(text) is not None


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
