"""The pre-commit hook: a real ``pre-commit run`` that has this checkout as its hook repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"
PACKAGED = ("bnlint", "rules", "pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml")


def run(directory: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    # Inside a git hook git's own variables point at the repository whose hook it is.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return subprocess.run(
        arguments,
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        env={**environment, **identity, "PRE_COMMIT_HOME": str(home), "PRE_COMMIT_COLOR": "never"},
        check=False,
        timeout=600,
    )


def git(directory: Path, *arguments: str) -> str:
    result = run(directory, "git", *arguments, home=directory)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
def test_the_hook(tmp_path: Path) -> None:
    """pre-commit clones its hook repositories, so the working tree is first committed to a copy."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, hooks / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, hooks / name)
    git(hooks, "init", "--quiet")
    git(hooks, "add", "--all")
    git(hooks, "commit", "--quiet", "--message", "The working tree")

    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "--quiet")
    (project / ".pre-commit-config.yaml").write_text(
        f"repos:\n- repo: {hooks}\n  rev: {git(hooks, 'rev-parse', 'HEAD')}\n  hooks:\n  - id: bnlint\n",
        encoding="utf-8",
    )
    (project / "good.py").write_text(BAD.replace("model.eval\n", "model.eval()\n"), encoding="utf-8")
    (project / "notes.txt").write_text("model.eval\n", encoding="utf-8")
    git(project, "add", "--all")

    command = (sys.executable, "-m", "pre_commit", "run", "--all-files")
    passed = run(project, *command, home=tmp_path / "home")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "Passed" in passed.stdout

    (project / "bad.py").write_text(BAD, encoding="utf-8")
    git(project, "add", "--all")
    failed = run(project, *command, home=tmp_path / "home")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "bad.py:4:1: BNL001" in failed.stdout
    assert "good.py" not in failed.stdout
