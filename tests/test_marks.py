"""Which statements rules are about: what is fast to look for must be in all that the slow search finds."""

from pathlib import Path

import pytest

from bnlint.rule import Rule, registry
from bnlint.source.marks import Pattern

_FIXTURES = sorted((Path(__file__).parent.parent / "fixtures").rglob("*.py"))


@pytest.mark.parametrize("rule", registry().values(), ids=lambda rule: rule.code)
def test_whatever_a_pattern_matches_has_one_of_its_stems(rule: Rule) -> None:
    texts = [line for path in _FIXTURES for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    texts += [path.read_text(encoding="utf-8", errors="replace") for path in _FIXTURES]
    for pattern in rule.mark().patterns:
        without = Pattern(pattern.regex)
        if pattern.stems:
            assert [text for text in texts if without.is_in(text)] == [text for text in texts if pattern.is_in(text)]
