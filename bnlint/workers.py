"""Worker processes, and what becomes of a file that ends one.

A worker takes chunks of neighbouring files, which import much the same, and tells the result of each file as soon as it
has it. So when a worker dies, the file that it died of is known: one diagnostic, and another goes on behind it.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from bnlint.assumptions import NOTHING_ASSUMED, Assumptions
from bnlint.engine import FileResult, lint_file
from bnlint.finding import Diagnostic
from bnlint.rule import FILE_ERROR_CODE, Rule
from bnlint.semantics.project import Project
from bnlint.source.discovery import SourceFile

#: Objects that have come about since the last collection, some 100 bytes each.
_WORTH_COLLECTING = 300_000


class _Worker:
    """A process, the connection to it, and the numbers of the files that it has still to do."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.doing: deque[int] = deque()

    def give(self, chunk: Iterable[int]) -> None:
        self.doing.extend(chunk)
        with suppress(OSError):  # it has died, which shows when it is listened to
            self.connection.send(list(self.doing))


class Pool:
    """Processes that share the files, given as numbers in ``chunks``."""

    def __init__(
        self,
        files: Sequence[SourceFile],
        rules: Sequence[Rule],
        chunks: Iterable[list[int]],
        assumptions: Assumptions = NOTHING_ASSUMED,
    ) -> None:
        self._files = files
        self._assumptions = assumptions
        self._rules = rules
        self._waiting = deque(chunks)
        self._workers: dict[Connection, _Worker] = {}
        self._results: dict[int, FileResult] = {}

    def results(self, jobs: int) -> Generator[FileResult, None, None]:
        """The results for the files, in their order."""
        try:
            for _ in range(min(jobs, len(self._waiting))):
                self._start()
            for number in range(len(self._files)):
                while number not in self._results:
                    for connection in wait(list(self._workers)):
                        assert isinstance(connection, Connection)
                        self._hear(self._workers[connection])
                yield self._results.pop(number)
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.join()

    def _start(self) -> None:
        """One more worker, with something to do."""
        ours, theirs = multiprocessing.Pipe()
        process: BaseProcess
        if sys.platform == "linux":  # elsewhere there is no forking, or it is not safe
            arguments = (theirs, self._files, self._rules, self._assumptions, (ours, *self._workers))
            process = multiprocessing.get_context("fork").Process(target=_serve, args=arguments, daemon=True)
        else:
            arguments = (theirs, self._files, self._rules, self._assumptions, ())
            process = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # else the end of the process would not be the end of the connection
        self._workers[ours] = worker = _Worker(process, ours)
        worker.give(self._waiting.popleft())

    def _hear(self, worker: _Worker) -> None:
        try:
            number, result = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        self._results[number] = result
        worker.doing.remove(number)
        if not worker.doing and self._waiting:
            worker.give(self._waiting.popleft())

    def _bury(self, worker: _Worker) -> None:
        del self._workers[worker.connection]
        worker.process.join()
        if worker.doing:
            lost = worker.doing.popleft()
            self._results[lost] = _lost(self._files[lost], worker.process.exitcode or 0)
        if worker.doing:
            self._waiting.appendleft(list(worker.doing))
        if self._waiting:
            self._start()


def _serve(
    connection: Connection,
    files: Sequence[SourceFile],
    rules: Sequence[Rule],
    assumptions: Assumptions,
    inherited: Iterable[Connection],
) -> None:
    """What a worker does until nobody listens any more."""
    for other in inherited:
        other.close()  # else it would listen to itself
    gc.disable()
    gc.freeze()  # all that has been imported: there is no garbage in it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard reaches all processes, and ours ends its workers
    project = Project(assumptions=assumptions)
    with suppress(EOFError, OSError):
        while True:
            for number in connection.recv():
                file = files[number]
                connection.send((number, lint_file(file.path, file.shown, rules, project)))
                _collect_now_and_then()


def _collect_now_and_then() -> None:
    """Garbage is what the analysis of a file leaves behind; what is kept of files is not looked through again."""
    if gc.get_count()[0] > _WORTH_COLLECTING:
        gc.collect()
        gc.freeze()


def _lost(file: SourceFile, status: int) -> FileResult:
    try:
        how = f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        how = f"ended with status {status}"
    message = f"the process that analysed this file {how}; exclude the file, and please report it"
    return FileResult(diagnostics=(Diagnostic(file.shown, 1, 1, FILE_ERROR_CODE, message),))
