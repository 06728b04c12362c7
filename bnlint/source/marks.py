"""Which statements of a file a rule is about, told from their text."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple


class Pattern(NamedTuple):
    """A regular expression, and strings of lower case of which any text that it matches has at least one.

    To look for these is a hundred times faster, and most statements have none.
    """

    regex: str
    stems: tuple[str, ...] = ()

    def is_in(self, text: str) -> bool:
        return _is_in(self, text)


class Mark(NamedTuple):
    """Patterns that are all found in a statement which a rule is about.

    ``callers`` tells that what calls it matters too: the rule is about what happens there to what others build.
    ``follows_modes`` tells that it takes a long analysis, ``follows_chains`` that it is about which layer feeds which.
    ``excuse`` is a pattern for what counts beside it: statements in which something speaks against a mistake elsewhere
    in the file. With ``scripts_only`` it is on no statement: the rule is about a file's own top-level code, which is
    run whatever stands there.
    """

    patterns: tuple[Pattern, ...]
    callers: bool = True
    follows_modes: bool = True
    excuse: Pattern | None = None
    scripts_only: bool = False
    follows_chains: bool = False

    def is_on(self, text: str) -> bool:
        return not self.scripts_only and all(pattern.is_in(text) for pattern in _cheapest_first(self.patterns))

    def may_be_on(self, text: str) -> bool:
        """Whether a part of a marked statement is one that the mark is about."""
        if self.scripts_only:
            return False
        return not self.patterns or self.patterns[0].is_in(text) or self.excuses(text)

    def excuses(self, text: str) -> bool:
        return self.excuse is not None and self.excuse.is_in(text)


@cache
def _cheapest_first(patterns: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    return tuple(sorted(patterns, key=lambda pattern: 0 if pattern.stems else len(pattern.regex)))


@lru_cache(maxsize=2_000)  # several rules ask the same of the statements of a file
def _is_in(pattern: Pattern, text: str) -> bool:
    if pattern.stems:
        lowered = _lowered(text)
        if not any(stem in lowered for stem in pattern.stems):
            return False
    return _compiled(pattern.regex).search(text) is not None


@lru_cache(maxsize=100)
def _lowered(text: str) -> str:
    return text.lower()


@cache
def _compiled(regex: str) -> re.Pattern[str]:
    return re.compile(regex)
