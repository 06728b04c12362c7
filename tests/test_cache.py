"""The result cache: used when nothing changed, passed over when anything did, never fatal."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bnlint.cache import DIRECTORY, ResultCache, key
from bnlint.cli import main
from bnlint.engine import FileResult
from bnlint.experiment import Experiment, InputSpec, LayerSpec
from bnlint.finding import Confidence, Edit, Finding, Fix, Location, Safety, Severity, TraceStep
from bnlint.fingerprint import installed
from bnlint.known import Known
from bnlint.rule import Rule, registry
from bnlint.source.dependencies import digest
from bnlint.source.discovery import SourceFile
from bnlint.source.parse import Source

BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"
A = SourceFile("a.py", "a.py")
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

    def analyse(source: Source, *arguments: Any) -> bnlint.semantics.FileFacts:
        paths.append(source.path)
        return real(source, *arguments)

    monkeypatch.setattr("bnlint.semantics.analyse", analyse)
    return paths


class Place:
    """The rules that are installed, and the cache, as a run sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def known(self, rules: Sequence[Rule], *keep: FileResult) -> tuple[list[Finding], list[SourceFile]]:
        """What is known of a.py with these rules, once these results for it have been kept."""
        self._monkeypatch.setattr("bnlint.rule.registry", lambda: {rule.code: rule for rule in rules})
        with ResultCache.open(".") as cache:
            there = installed(cache)
            environment = key(there.fingerprint, *(rule.code for rule in rules)).hex()
            known = Known(cache, there.rules, environment)
            for result in keep:
                known.keep("a.py", result)
        with ResultCache.open(".") as cache:
            return Known(cache, there.rules, environment).look_up([A])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def result(*findings: Finding, data: str = BAD) -> FileResult:
    return FileResult(findings, digest=digest(data.encode()))


def test_a_finding_survives_whole(place: Place) -> None:
    assert place.known([Example()], result(FINDING)) == ([FINDING], [])
    assert place.known([Example()], result()) == ([], []), "a clean file is known as well"


def test_content_path_and_rules_all_count(place: Place) -> None:
    assert place.known([Example()], result(FINDING, data="x")) == ([], [A])
    assert place.known([Example()], result(FINDING)) == ([FINDING], [])
    assert place.known([]) == ([], [A])
    assert place.known([Example(), *registry().values()]) == ([], [A])
    Path("b.py").write_text(BAD, encoding="utf-8")
    with ResultCache.open(".") as cache:
        b = SourceFile("b.py", "b.py")
        assert Known(cache, installed(cache).rules, "x").look_up([A, b]) == ([], [A, b])
    assert place.known([Example()]) == ([FINDING], [])


def test_an_edited_rule_takes_effect(project: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("acme_rules.py").write_text("# the first version", encoding="utf-8")
    monkeypatch.syspath_prepend(str(project))
    import acme_rules  # type: ignore[import-not-found]  # noqa: F401

    monkeypatch.setattr(Example, "__module__", "acme_rules")
    assert place.known([Example()], result(FINDING)) == ([FINDING], [])
    Path("acme_rules.py").write_text("# the second version", encoding="utf-8")
    assert place.known([Example()]) == ([], [A])
    Path("acme_rules.py").write_text("# the first version", encoding="utf-8")
    assert place.known([Example()]) == ([FINDING], []), "its content counts, not its time"


def test_what_is_installed_is_loaded_only_when_it_has_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.known([Example()])
    monkeypatch.setattr("bnlint.rule.registry", lambda: pytest.fail("the rules were loaded"))
    with ResultCache.open(".") as cache:
        assert installed(cache).rules == (("ACM001", True, [], ""),)


def test_what_has_not_changed_is_not_analysed_again(analysed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
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


def _foreign_dependencies() -> None:
    with sqlite3.connect(DATABASE) as database:
        database.execute("UPDATE results SET dependencies = '[7]'")


def _foreign_notes() -> None:
    with sqlite3.connect(DATABASE) as database:
        database.execute("UPDATE notes SET text = '[7]'")


def _truncated() -> None:
    DATABASE.write_bytes(DATABASE.read_bytes()[:5000])


@pytest.mark.parametrize(
    "damage", [_garbage, _foreign_format, _foreign_table, _foreign_rows, _foreign_dependencies, _truncated]
)
def test_a_broken_or_foreign_cache_is_made_anew(damage: object, analysed: list[str]) -> None:
    assert main([]) == 1
    assert callable(damage)
    damage()
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"]
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"], "it works again"


def test_a_foreign_note_is_passed_over(analysed: list[str]) -> None:
    assert main([]) == 1
    _foreign_notes()
    assert main([]) == 1
    assert analysed == ["a.py"], "the fingerprint is found out anew, and is the same"


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


NET = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))\n"
USER = "import torch\nfrom net import build\n\nmodel = build()\nwith torch.no_grad():\n    print(model(x))\n"


@pytest.fixture
def imports(project: Path) -> None:
    Path("a.py").unlink()
    Path("net.py").write_text(NET, encoding="utf-8")
    Path("user.py").write_text(USER, encoding="utf-8")
    Path("plain.py").write_text("import torch\nmodel.eval()\n", encoding="utf-8")


def test_a_changed_import_invalidates_its_importers(
    imports: None, analysed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    assert "user.py:6:11: BNL" in capsys.readouterr().out
    first = list(analysed)
    assert main([]) == 1
    assert analysed == first, "nothing has changed"
    Path("net.py").write_text(NET.replace(", nn.BatchNorm1d(3)", ""), encoding="utf-8")
    assert main([]) == 0
    assert set(analysed[len(first) :]) == {"net.py", "user.py"}
    del analysed[:]
    Path("net.py").write_text(NET, encoding="utf-8")
    assert main([]) == 1
    assert analysed == ["user.py"], "of net.py this content is known from before"


def test_a_change_deep_down_reaches_the_top(imports: None, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text("from deep import build\n", encoding="utf-8")
    Path("deep.py").write_text(NET, encoding="utf-8")
    assert main(["user.py"]) == 1
    Path("deep.py").write_text(NET.replace("BatchNorm1d", "Identity"), encoding="utf-8")
    assert main(["user.py"]) == 0


def test_a_new_file_that_satisfies_an_import_counts(imports: None) -> None:
    Path("net.py").unlink()
    assert main([]) == 0
    assert main([]) == 0
    Path("net.py").write_text(NET, encoding="utf-8")
    assert main([]) == 1
    Path("net").mkdir()
    Path("net/__init__.py").touch()
    assert main([]) == 0, "a package comes before a module"


def test_a_file_that_vanishes_counts(imports: None) -> None:
    assert main(["user.py"]) == 1
    Path("net.py").unlink()
    assert main(["user.py"]) == 0


def test_each_file_that_imports_depends_also_where_another_has_read_before(imports: None, analysed: list[str]) -> None:
    Path("again.py").write_text(USER, encoding="utf-8")
    assert main([]) == 1
    del analysed[:]
    Path("net.py").write_text(NET.replace("(3, 3)", "(3, 4)"), encoding="utf-8")
    assert main([]) == 1
    assert {"again.py", "user.py"} <= set(analysed)


def test_what_an_imported_file_shows_by_itself_is_depended_on(imports: None) -> None:
    """A finding is reported at the call only if the called function's own file does not show it."""
    Path("look.py").write_text(
        "import torch\nfrom net2 import build\n\ndef look(model, x):\n    with torch.no_grad():\n"
        "        return model(x)\n\nprint(look(build(), y))\n",
        encoding="utf-8",
    )
    Path("net2.py").write_text(NET, encoding="utf-8")
    Path("user.py").write_text(
        "import torch\nfrom net import build\nfrom look import look\n\nprint(look(build(), x))\n", encoding="utf-8"
    )
    assert main(["user.py"]) == 0, "look.py shows it"
    Path("net2.py").write_text(NET.replace("BatchNorm1d", "Identity"), encoding="utf-8")
    assert main(["user.py"]) == 1
    assert main(["look.py"]) == 0


def test_files_that_import_nothing_have_no_dependencies(imports: None) -> None:
    main([])
    with sqlite3.connect(DATABASE) as database:
        rows = database.execute("SELECT dependencies != '', count(*) FROM results GROUP BY dependencies").fetchall()
    assert sorted(rows) == [(0, 4), (1, 2)], "each under its content and under what counts of that"


def test_an_analysis_reads_no_more_than_so_many_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole libraries are reached through star imports; which files are left out does not depend on what is known."""
    monkeypatch.setattr("bnlint.semantics.project.MOST", 3)
    for number in range(6):
        part = f"from torch import nn\nthing{number} = nn.BatchNorm1d(3)\n"
        Path(f"part{number}.py").write_text(part, encoding="utf-8")
    stars = "".join(f"from part{number} import *\n" for number in range(6))
    for name in ("a", "b"):
        text = f"{stars}model = thing5\nmodel = thing0\nwith torch.no_grad():\n    model(x)\n"
        Path(f"{name}.py").write_text(f"import torch\n{text}", encoding="utf-8")
    main([])
    with sqlite3.connect(DATABASE) as database:
        texts = [text for (text,) in database.execute("SELECT dependencies FROM results WHERE dependencies != ''")]
    assert len(texts) == 4
    assert len(set(texts)) == 1
    assert len(json.loads(texts[0])["files"]) == 3


def test_what_is_no_code_does_not_count(analysed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    Path("a.py").write_text(BAD + "\n# torch: a comment\n", encoding="utf-8")
    assert main([]) == 1
    assert "a.py:4:1" in capsys.readouterr().out
    Path("a.py").write_text('"""New."""; ' + BAD, encoding="utf-8")
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"], "this line has changed"
    Path("a.py").write_text(f'"""New."""; {BAD}# more', encoding="utf-8")
    assert main([]) == 1
    assert analysed == ["a.py", "a.py"]


def test_a_comment_that_silences_counts(analysed: list[str]) -> None:
    assert main([]) == 1
    Path("a.py").write_text(BAD.replace("eval\n", "eval  # noqa\n"), encoding="utf-8")
    assert main([]) == 0
    Path("a.py").write_text(f"{BAD}# flake8: noqa\n", encoding="utf-8")
    assert main([]) == 0
    Path("a.py").write_text(BAD, encoding="utf-8")
    assert main([]) == 1


def test_a_comment_that_concerns_a_rule_counts(analysed: list[str]) -> None:
    Path("a.py").write_text("x = 1\n", encoding="utf-8")
    assert main([]) == 0
    assert analysed == []
    Path("a.py").write_text("x = 1\n# torch model.eval\n", encoding="utf-8")
    assert main([]) == 0
    assert analysed == ["a.py"]


def test_a_changed_file_that_concerns_no_rule_is_only_parsed(
    analysed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("b.py").write_text("x = 1\n", encoding="utf-8")
    assert main([]) == 1
    with monkeypatch.context() as patched:  # undo() would leave the temporary folder as well
        patched.setattr("bnlint.engine.lint_file", None)
        Path("b.py").write_text("x = 2\n", encoding="utf-8")
        assert main([]) == 1
        assert main([]) == 1
    Path("b.py").write_text("x = (\n", encoding="utf-8")
    assert main([]) == 2
    assert "b.py:1:5: BNL900 syntax error" in capsys.readouterr().out


def test_an_import_that_changes_in_nothing_that_counts(imports: None, analysed: list[str]) -> None:
    assert main([]) == 1
    del analysed[:]
    Path("net.py").write_text(NET + "\n# the end\n", encoding="utf-8")
    assert main([]) == 1
    assert analysed == []
    Path("net.py").write_text("\n" + NET, encoding="utf-8")
    assert main([]) == 1
    assert set(analysed) == {"net.py", "user.py"}, "places are shown in traces"


def test_an_import_that_becomes_broken_counts(imports: None) -> None:
    assert main(["user.py"]) == 1
    Path("net.py").write_text(NET + "def (\n", encoding="utf-8")
    assert main(["user.py"]) == 0
    Path("net.py").write_text(NET, encoding="utf-8")
    assert main(["user.py"]) == 1


def test_a_rule_that_does_not_go_by_its_needles_is_always_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Example):
        def concerns(self, data: bytes) -> bool:
            return True

    place.known([Other()])
    with ResultCache.open(".") as cache:
        assert installed(cache).rules == (("ACM001", True, None, ""),)
