"""Which files are linted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bnlint.finding import Diagnostic
from bnlint.source.discovery import DEFAULT_EXCLUDE, SourceFile, discover
from bnlint.source.ignore import Patterns


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(*files: str) -> None:
    for file in files:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ignore(directory: str, *lines: str) -> None:
    Path(directory, ".gitignore").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def found(*paths: str, exclude: Sequence[str] = DEFAULT_EXCLUDE) -> list[str]:
    items = list(discover(paths or ["."], Patterns(os.getcwd(), exclude)))
    assert not [item for item in items if isinstance(item, Diagnostic)]
    return [item.shown for item in items if isinstance(item, SourceFile)]


def problems(*paths: str) -> list[Diagnostic]:
    items = discover(paths or ["."], Patterns(os.getcwd(), DEFAULT_EXCLUDE))
    return [item for item in items if isinstance(item, Diagnostic)]


def test_python_files_in_sorted_order() -> None:
    lay("b.py", "a/z.py", "a/b/c.py", "a.py", "a/notes.txt", "stub.pyi", "B.py")
    assert found() == ["B.py", "a/b/c.py", "a/z.py", "a.py", "b.py"]


def test_a_named_file_is_always_taken() -> None:
    lay("script", ".venv/x.py", "ignored.py")
    ignore(".", "ignored.py")
    assert found("script", ".venv/x.py", "ignored.py") == ["script", ".venv/x.py", "ignored.py"]


def test_each_file_once() -> None:
    lay("a/b.py", "a/c.py")
    assert found("a/c.py", "a", "./a/../a/b.py") == ["a/c.py", "a/b.py"]


def test_paths_are_shown_relative_to_the_working_directory(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay("a/b.py", "c/d.py")
    monkeypatch.chdir(project / "c")
    assert found(str(project)) == ["../a/b.py", "d.py"]


@pytest.mark.parametrize("directory", [".git", ".venv", "venv", "node_modules", "__pycache__", "x.egg-info", ".tox"])
def test_never_code_of_the_project(directory: str) -> None:
    lay("a.py", f"{directory}/b.py", f"deep/{directory}/c.py")
    assert found() == ["a.py"]


def test_a_virtual_environment_under_any_name() -> None:
    lay("a.py", "env311/pyvenv.cfg", "env311/lib/b.py")
    assert found() == ["a.py"]
    assert found("env311") == ["env311/lib/b.py"]


def test_gitignore_at_every_level() -> None:
    lay(
        "a.py",
        "gen_a.py",
        "sub/gen_b.py",
        "sub/gen_kept.py",
        "sub/local.py",
        "other/local.py",
        "out/c.py",
        "x/out/d.py",
    )
    ignore(".", "# comment", "gen_*.py", "/out/")
    ignore("sub", "!gen_kept.py", "local.py")
    assert found() == ["a.py", "other/local.py", "sub/gen_kept.py", "x/out/d.py"]


def test_a_file_in_an_ignored_directory_cannot_be_taken_back() -> None:
    lay("out/kept.py", "a.py")
    ignore(".", "out/", "!out/kept.py")
    assert found() == ["a.py"]


def test_the_init_of_a_package_belongs_to_its_modules() -> None:
    lay(
        "pkg/__init__.py",
        "pkg/Net.py",
        "pkg/_own.py",
        "notes/__init__.py",
        "notes/_own.py",
        "out/__init__.py",
        "out/a.py",
    )
    ignore(".", "_*", "out/")
    assert found() == ["pkg/Net.py", "pkg/__init__.py"]


def test_gitignore_above_the_start_counts_up_to_the_repository_root(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("repo/.git").mkdir(parents=True)
    lay("repo/pkg/sub/a.py", "repo/pkg/sub/gen.py", "repo/pkg/sub/outside.py")
    ignore("repo", "gen.py")
    ignore(".", "outside.py")
    assert found("repo/pkg/sub") == ["repo/pkg/sub/a.py", "repo/pkg/sub/outside.py"]
    monkeypatch.chdir(project / "repo/pkg/sub")
    assert found() == ["a.py", "outside.py"]


def test_a_named_directory_is_searched_although_it_is_left_out() -> None:
    Path(".git").mkdir()
    lay("out/a.py", "out/gen.py", "vendor/b.py", "vendor/deep/c.py")
    ignore(".", "out/", "gen.py")
    assert found("out") == ["out/a.py", "out/gen.py"]
    assert found("vendor/deep", exclude=["vendor/"]) == ["vendor/deep/c.py"]


def test_invalid_lines_in_a_gitignore_are_passed_over() -> None:
    lay("a.py", "b.py")
    ignore(".", "!", "\\", "[", "b.py")
    assert found() == ["a.py"]


def test_exclude_wins_over_what_git_takes_back() -> None:
    lay("a.py", "gen/b.py", "x/gen/c.py")
    ignore(".", "!gen/")
    assert found(exclude=["/gen/"]) == ["a.py", "x/gen/c.py"]


def test_default_exclusion_holds_outside_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay("elsewhere/a.py", "elsewhere/node_modules/b.py", "here/c.py")
    monkeypatch.chdir(project / "here")
    assert found("../elsewhere") == ["../elsewhere/a.py"]


def test_directory_loops_end() -> None:
    lay("a/b.py")
    Path("a/loop").symlink_to("..", target_is_directory=True)
    Path("a/self").symlink_to("self")
    assert found() == ["a/b.py"]


def test_a_linked_directory_is_searched_when_named() -> None:
    lay("real/b.py")
    Path("link").symlink_to("real", target_is_directory=True)
    assert found("link") == ["link/b.py"]


def test_what_is_no_file_is_passed_over() -> None:
    lay("a.py")
    Path(".#lock.py").symlink_to("nowhere")
    Path("dir.py").mkdir()
    os.mkfifo("pipe.py")
    assert found() == ["a.py"]


def test_a_missing_path_does_not_stop_the_others() -> None:
    lay("a.py")
    items = list(discover(["missing/x.py", "a.py"], Patterns(os.getcwd(), DEFAULT_EXCLUDE)))
    assert isinstance(items[0], Diagnostic)
    assert (items[0].path, items[0].code) == ("missing/x.py", "BNL900")
    assert "no such file or directory" in items[0].message
    assert isinstance(items[1], SourceFile)


def test_a_directory_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    lay("locked/a.py", "open/b.py")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # permissions do not hold for root, who runs many a CI
    (problem,) = problems()
    assert problem.path == "locked"
    assert "cannot be listed: Permission denied" in problem.message


def test_notebooks_are_refused_in_words() -> None:
    lay("a.ipynb")
    assert found() == []
    (problem,) = problems("a.ipynb")
    assert "notebooks cannot be linted yet" in problem.message


def test_directories_nested_deeper_than_python_recurses() -> None:
    depth = 1_200
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("a.py").touch()
    try:
        os.chdir("../" * depth)
        assert [path.count("/") for path in found()] == [depth]
    finally:  # pytest's own cleaning would recurse
        os.chdir("d/" * depth)
        os.remove("a.py")
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")


def test_a_link_to_itself_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("")
    (tmp_path / "self.py").symlink_to(tmp_path / "self.py")
    command = [sys.executable, "-m", "bnlint", "."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "No findings in 1 file.\n", "")
