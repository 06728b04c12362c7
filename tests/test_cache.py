"""The result cache: used when nothing changed, passed over when anything did, never fatal."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bnlint.cache import DIRECTORY, ResultCache
from bnlint.cli import main
from bnlint.experiment import Experiment, InputSpec, LayerSpec
from bnlint.finding import Confidence, Edit, Finding, Fix, Location, Safety, Severity, TraceStep
from bnlint.rule import Rule, registry
from bnlint.source.parse import Source

BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"
DATABASE = Path(DIRECTORY, "results.sqlite3")

FINDING = Finding(
    Location("a.py", 1, 2, 3, 4),
    "BNL101",
    "torch-momentum-keras-style",
    "a message",
    Severity.WARNING,
    Confidence.LIKELY,
    trace=(TraceStep(Location("b.py", 5, 6, 7, 8), "built here"),),
    fix=Fix(Safety.UNSAFE, "turn it round", (Edit(Location("a.py", 1, 2, 1, 5), "0.1"),)),
    experiment=Experiment(
        "momentum-memory",
        "torch",
        (
            LayerSpec(
                "torch.nn.BatchNorm2d",
                {"num_features": 16, "momentum": 0.9, "affine": True},
                ("num_features",),
            ),
        ),
        InputSpec((2, 16), 1.0),
    ),
)


class Example(Rule):
    code = "ACM001"
    name = "example"
    severity = Severity.INFO
    needles = ()

    def check(self, file: object) -> Iterator[Finding]:
        yield FINDING


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text(BAD, encoding="utf-8")
    return tmp_path


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that were really analysed."""
    import bnlint.semantics

    paths: list[str] = []
    real = bnlint.semantics.analyse

    def analyse(source: Source) -> bnlint.semantics.FileFacts:
        paths.append(source.path)
        return real(source)

    monkeypatch.setattr("bnlint.semantics.analyse", analyse)
    return paths


def kept(rules: Sequence[Rule], data: bytes = b"x", path: str = "a.py") -> tuple[Finding, ...] | None:
    with ResultCache.open(".", rules) as cache:
        return cache.get(data, path)


def test_a_finding_survives_whole() -> None:
    with ResultCache.open(".", [Example()]) as cache:
        cache.put(b"x", "a.py", [FINDING])
        cache.put(b"y", "a.py", [])
    assert kept([Example()]) == (FINDING,)
    assert kept([Example()], data=b"y") == ()


def test_content_path_and_rules_all_count() -> None:
    with ResultCache.open(".", [Example()]) as cache:
        cache.put(b"x", "a.py", [FINDING])
    assert kept([Example()], data=b"z") is None
    assert kept([Example()], path="b.py") is None
    assert kept([]) is None
    assert kept([Example(), *registry().values()]) is None
    assert kept([Example()]) is not None


def test_an_edited_rule_takes_effect(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("acme_rules.py").write_text("# the first version", encoding="utf-8")
    monkeypatch.syspath_prepend(str(project))
    import acme_rules  # type: ignore[import-not-found]  # noqa: F401

    monkeypatch.setattr(Example, "__module__", "acme_rules")
    with ResultCache.open(".", [Example()]) as cache:
        cache.put(b"x", "a.py", [FINDING])
    assert kept([Example()]) is not None
    Path("acme_rules.py").write_text("# the second version", encoding="utf-8")
    assert kept([Example()]) is None


def test_what_has_not_changed_is_not_analysed_again(
    analysed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    first = capsys.readouterr().out
    assert main([]) == 1
    assert analysed == ["a.py"]
    assert capsys.readouterr().out == first, "source lines included"
    Path("a.py").write_text("# moved down\n" + BAD, encoding="utf-8")
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"]
    assert "a.py:5:1" in capsys.readouterr().out


def test_clean_files_are_remembered_and_broken_ones_are_not(
    analysed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.py").write_text(BAD.replace("model.eval\n", "model.eval()\n"), encoding="utf-8")
    Path("b.py").write_text("def (", encoding="utf-8")
    for _ in range(2):
        assert main([]) == 2
        assert "syntax error" in capsys.readouterr().out
    assert analysed == ["a.py"]


def test_no_cache_leaves_no_trace(analysed: list[str]) -> None:
    for _ in range(2):
        assert main(["--no-cache"]) == 1
    assert analysed == ["a.py", "a.py"]
    assert not Path(DIRECTORY).exists()


def test_the_cache_keeps_itself_out_of_git() -> None:
    main([])
    assert Path(DIRECTORY, ".gitignore").read_text(encoding="utf-8") == "*\n"


def _garbage() -> None:
    DATABASE.write_bytes(b"this is no database" * 100)


def _foreign_format() -> None:
    with sqlite3.connect(DATABASE) as database:
        database.execute("PRAGMA user_version = 99")


def _foreign_table() -> None:
    with sqlite3.connect(DATABASE) as database:
        database.execute("DROP TABLE results")
        database.execute("CREATE TABLE results (something)")


def _foreign_rows() -> None:
    with sqlite3.connect(DATABASE) as database:
        database.execute("UPDATE results SET findings = '[{\"location\": 3}]'")


def _truncated() -> None:
    DATABASE.write_bytes(DATABASE.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [_garbage, _foreign_format, _foreign_table, _foreign_rows, _truncated])
def test_a_broken_or_foreign_cache_is_made_anew(damage: object, analysed: list[str]) -> None:
    assert main([]) == 1
    assert callable(damage)
    damage()
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"]
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"], "it works again"


def test_a_locked_cache_is_passed_over(analysed: list[str]) -> None:
    assert main([]) == 1
    with sqlite3.connect(DATABASE, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert main([]) == 1
        other.execute("ROLLBACK")
    assert analysed == ["a.py", "a.py"]
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"], "the other run's cache is still there"


def test_where_nothing_can_be_written_there_is_no_cache(analysed: list[str]) -> None:
    Path(DIRECTORY).write_text("a file where the directory would be", encoding="utf-8")
    assert main([]) == 1
    os.unlink(DIRECTORY)
    Path(DIRECTORY, "results.sqlite3").mkdir(parents=True)
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"]
