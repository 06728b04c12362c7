"""What is noted of rules, so that they need not be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnlint.cache import ResultCache
from bnlint.fingerprint import installed
from bnlint.rule import registry

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_noted_tells_which_files_concern_a_rule() -> None:
    for _ in range(2):  # found out, and noted
        with ResultCache.open(".") as cache:
            there = installed(cache)
        assert [(rule.code, rule.default) for rule in there.rules] == [
            (rule.code, rule.default) for rule in registry().values()
        ]
        for path in FIXTURES.rglob("*.py"):
            data = path.read_bytes()
            for sketch in there.rules:
                assert sketch.concerns(data.decode()) is registry()[sketch.code].concerns(data), (sketch.code, path)
