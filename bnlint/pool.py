"""Many files through the engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from bnlint.engine import FileResult, lint_file
from bnlint.rule import Rule
from bnlint.semantics.project import Project
from bnlint.source.discovery import SourceFile


def lint_all(files: Sequence[SourceFile], rules: Sequence[Rule], jobs: int) -> Generator[FileResult, None, None]:
    """The results for the files, in their order."""
    project = Project()
    for file in files:
        yield lint_file(file.path, file.shown, rules, project)
