"""Many files through the engine: in this process, or in several where that pays."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence

from bnlint.assumptions import NOTHING_ASSUMED, Assumptions
from bnlint.engine import FileResult, lint_file
from bnlint.rule import Rule
from bnlint.semantics.project import Project
from bnlint.source.dependencies import read
from bnlint.source.discovery import SourceFile

#: Bytes of files that concern a rule below which starting processes takes longer than it saves.
ENOUGH = 300_000
#: A file that concerns no rule is only parsed, by ``ast``: what a byte of it counts.
_IDLE = 0.05
#: Chunks for each worker: more keep all of them busy to the end, fewer share more of what is imported.
_CHUNKS = 16

_Results = Generator[FileResult, None, None]


def lint_all(
    files: Sequence[SourceFile], rules: Sequence[Rule], jobs: int, assumptions: Assumptions = NOTHING_ASSUMED
) -> _Results:
    """The results for the files, in their order, which do not depend on the number of ``jobs``."""
    if jobs == 1 or len(files) == 1 or not _are_enough(files, rules):
        return _in_this_process(files, rules, assumptions)
    from bnlint.workers import Pool  # multiprocessing takes a while to import

    # How much work a file is shows only to who reads it, which is left to the workers.
    sizes = [_size(file) for file in files]
    return Pool(files, rules, _chunks(sizes, sum(sizes) / (jobs * _CHUNKS)), assumptions).results(jobs)


def _in_this_process(files: Iterable[SourceFile], rules: Sequence[Rule], assumptions: Assumptions) -> _Results:
    project = Project(assumptions=assumptions)
    for file in files:
        yield lint_file(file.path, file.shown, rules, project)


def _are_enough(files: Iterable[SourceFile], rules: Sequence[Rule]) -> bool:
    """Whether there is work for several processes; no more is read than it takes to know."""
    work = 0.0
    for file in files:
        work += _work(file, rules)
        if work >= ENOUGH:
            return True
    return False


def _size(file: SourceFile) -> int:
    try:
        return os.stat(file.path).st_size
    except OSError:  # who reads it will say so
        return 0


def _work(file: SourceFile, rules: Sequence[Rule]) -> float:
    data, _ = read(file.path)
    return len(data) * (1 if any(rule.concerns(data) for rule in rules) else _IDLE)


def _chunks(work: Sequence[float], share: float) -> list[list[int]]:
    """Numbers of neighbouring files that make about an equal ``share`` of the work."""
    chunks: list[list[int]] = [[]]
    filled = 0.0
    for number, amount in enumerate(work):
        if chunks[-1] and filled + amount / 2 > share:
            chunks.append([])
            filled = 0.0
        chunks[-1].append(number)
        filled += amount
    return chunks
