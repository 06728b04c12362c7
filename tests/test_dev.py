"""Codes are the same in code, documentation, fixtures and changelog; a scaffold is a rule that works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnlint.cli import main as bnlint
from bnlint.dev import main, rule_pages
from bnlint.rule import RETIRED, registry

ROOT = Path(__file__).parents[1]
OWN = {code: rule for code, rule in registry().items() if code.startswith("BNL")}


def test_the_pages_are_what_the_rules_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["docs", "--check"]) == 0


def test_the_check_fails_for_a_page_that_is_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("rules", "fixtures"):
        Path(folder).mkdir()
    assert main(["docs"]) == 0
    assert main(["docs", "--check"]) == 0
    page = Path("docs", "rules", "BNL001.md")
    page.write_text(page.read_text() + "more\n")
    Path("docs", "rules", "BNL777.md").write_text("left over\n")
    assert main(["docs", "--check"]) == 1
    assert main(["docs"]) == 0 and main(["docs", "--check"]) == 0


def test_codes_agree_everywhere() -> None:
    codes = set(OWN)
    assert {path.stem for path in (ROOT / "docs/rules").glob("BNL*.md")} == codes | set(RETIRED)
    assert {path.stem[:6].upper() for path in (ROOT / "rules").glob("bnl*.py")} == codes
    folders = {path.name for path in (ROOT / "fixtures").iterdir()} - {"projects", "stackoverflow"}
    assert folders == {rule.name for rule in OWN.values()}
    listed = re.findall(r"^- (BNL\d{3}) ([a-z0-9-]+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert dict(listed) == {code: rule.name for code, rule in OWN.items()}
    assert len(listed) == len(codes)


@pytest.mark.parametrize("code", OWN)
def test_a_rule_has_what_its_page_says_of_it(code: str) -> None:
    rule = OWN[code]
    assert rule.frameworks and rule.experiments and rule.evidence >= 0
    assert any(path.name == "index.md" and f"| {rule.name} |" in text for path, text in rule_pages(OWN).items())


@pytest.mark.parametrize("code", RETIRED)
def test_a_retired_code_explains_itself(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code not in OWN
    assert bnlint(["--explain", code]) == 0
    assert RETIRED[code][1] in capsys.readouterr().out


def test_a_scaffold_is_found_and_reports_what_its_fixtures_say(tmp_path: Path) -> None:
    for folder in ("bnlint", "rules", "fixtures"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    run = [sys.executable, "-m", "bnlint.dev", "new-rule", "BNL199", "brand-new"]
    made = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    # As it will be installed: the rules as a package of bnlint's.
    shutil.copytree(tmp_path / "rules", tmp_path / "bnlint/rules")
    code = "import sys; sys.path.insert(0, '.'); from bnlint.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-S", "-c", code, "--no-cache", "--select", "BNL199", "fixtures/brand-new"]
    paths = [path for path in sys.path if path.endswith("site-packages")]
    linted = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": ":".join(paths), "PATH": ""}
    )
    assert linted.returncode == 1, linted.stderr
    assert linted.stdout.count("BNL199 brand-new") == 3
    again = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and "is taken" in again.stderr


@pytest.mark.parametrize(
    "code, name, said",
    [
        ("BNL001", "brand-new", "is taken"),
        ("BNL313", "brand-new", "is taken"),
        ("BNL900", "brand-new", "no code"),
        ("X1", "brand-new", "no code"),
        ("BNL199", "Brand New", "no name"),
        ("BNL199", "mode-not-called", "already"),
    ],
)
def test_a_wrong_code_or_name_is_refused(
    code: str, name: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["new-rule", code, name]) == 2
    assert said in capsys.readouterr().err


def test_a_retired_code_cannot_be_selected_and_the_message_says_where_to_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bnlint(["--select", "BNL313", str(ROOT / "fixtures/stackoverflow")]) == 2
    assert "bnlint --explain BNL313 says why" in capsys.readouterr().err
