"""The files that a file imports: read and parsed once, and only when they are asked for.

Whoever asks depends on the answer, also where another has asked before: ``recording`` collects what an analysis
rested on, so that its result can be kept until something of that changes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bnlint.assumptions import NOTHING_ASSUMED, Assumptions
from bnlint.errors import FileError
from bnlint.source.decode import decode
from bnlint.source.dependencies import Dependencies, place_of, read
from bnlint.source.modules import Found, Modules
from bnlint.source.parse import Source, parse
from bnlint.source.syntax import LARGEST

if TYPE_CHECKING:
    from bnlint.finding import Finding, Location

__all__ = ["Found", "Project"]

#: Characters of the files that are kept at a time; beyond that the longest unused are forgotten, and read again.
CAPACITY = 8_000_000
#: Files that one analysis is told of. More are asked for only through star imports of whole libraries; it then takes
#: long and depends on everything.
MOST = 200


class Project:
    """Reads and finds the files below the working directory, and above it up to the project's own folder."""

    def __init__(
        self, directory: str | None = None, also: tuple[str, ...] = (), assumptions: Assumptions = NOTHING_ASSUMED
    ) -> None:
        """``also`` are packages of frameworks that are looked for all the same (``torchvision.models``)."""
        self.assumptions = assumptions
        self._modules = Modules(directory, also)
        self._sources: OrderedDict[str, tuple[Source | None, str]] = OrderedDict()
        self._characters = 0
        self._recorded: Dependencies | None = None
        #: What a file shows by itself, by place and code, and what that rests on: kept here by the engine.
        self.own_findings: dict[str, tuple[dict[tuple[Location, str], Finding], Dependencies]] = {}

    @contextmanager
    def recording(self) -> Iterator[Dependencies]:
        """Collects what is asked for meanwhile, for whoever records around it as well."""
        outer, self._recorded = self._recorded, Dependencies()
        recorded = self._recorded
        try:
            yield recorded
        finally:
            self._recorded = outer
            self.depend_on(recorded)

    def depend_on(self, dependencies: Dependencies) -> None:
        """Record an answer that was recorded before and is used again."""
        if self._recorded is not None:
            self._recorded.update(dependencies)

    def root(self, shown: str, text: str, digest: str) -> Source:
        """The file that is being linted, with what an importing file has made of it already; kept for others."""
        source, known = self._sources.get(shown, (None, ""))
        if source is None or known != digest:
            source = parse(shown, text)
            if len(text) <= LARGEST:
                self._keep(shown, source, digest)
        return source

    def source(self, shown: str) -> Source | None:
        """A file of the project; None where it cannot be read, is not Python, or is one too many."""
        recorded = self._recorded
        if recorded is not None and len(recorded.files) >= MOST and shown not in recorded.files:
            return None
        if shown in self._sources:
            self._sources.move_to_end(shown)
        else:
            self._keep(shown, *self._read(shown))
        source, digest = self._sources[shown]
        if recorded is not None:
            recorded.files[shown] = (digest, source.gist if source is not None else "")
        return source

    def find(self, importer: str, name: str) -> Found | None:
        """Where a module lies that the file ``importer`` (as shown) imports by ``name``, dots of relative imports
        included; None if it is none of the project's."""
        return self._find(os.path.dirname(importer), name)

    def submodule(self, folder: str, name: str) -> Found | None:
        """Where the module ``name`` of the package in ``folder`` lies."""
        return self._find(folder, f".{name}")

    def _find(self, folder: str, name: str) -> Found | None:
        if self._recorded is not None:
            self._recorded.modules[folder, name] = place_of(self._modules, folder, name)
        return self._modules.find(folder, name)

    def _keep(self, shown: str, source: Source | None, digest: str) -> None:
        before, _ = self._sources.pop(shown, (None, ""))
        self._sources[shown] = (source, digest)
        self._characters += _length(source) - _length(before)
        while self._characters > CAPACITY and len(self._sources) > 1:
            _, (forgotten, _) = self._sources.popitem(last=False)
            self._characters -= _length(forgotten)

    def _read(self, shown: str) -> tuple[Source | None, str]:
        data, digest = read(self._modules.path(shown))
        try:
            text = decode(data)
            return parse(shown, text) if digest and len(text) <= LARGEST else None, digest
        except FileError:
            return None, digest


def _length(source: Source | None) -> int:
    return len(source.text) if source is not None else 0
