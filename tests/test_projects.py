"""Findings across files: every project of fixtures/projects has those that it marks, and no others.

A finding is expected where the file that is linted has ``# expect: CODE`` at the end of a line.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bnlint.config import Settings
from bnlint.finding import Finding
from bnlint.run import run

PROJECTS = sorted(path for path in (Path(__file__).parents[1] / "fixtures" / "projects").iterdir() if path.is_dir())


def findings_in(project: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Finding, ...]:
    monkeypatch.chdir(project)
    report = run(["."], Settings(root=str(project)), use_cache=False)
    assert not report.diagnostics
    return report.findings


def expected_in(project: Path) -> set[tuple[str, int, str]]:
    return {
        (path.relative_to(project).as_posix(), number, code)
        for path in project.rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if (mark := re.search(r"# expect: ([A-Z0-9 ]+)$", line))
        for code in mark[1].split()
    }


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_project_has_the_findings_that_it_marks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings_in(project, monkeypatch)
    assert {(one.location.path, one.location.line, one.code) for one in found} == expected_in(project)


def test_a_finding_in_a_called_file_is_shown_at_the_call_with_its_own_place_in_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = next(path for path in PROJECTS if path.name == "validate_helper")
    (finding, *_) = findings_in(project, monkeypatch)
    assert finding.location.path == "train.py"
    assert finding.trace[-1].location.path == "utils.py"
    assert "utils.py" in finding.message
