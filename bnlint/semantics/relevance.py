"""Which files of a project have nothing to do with the frameworks.

What such a file defines can neither build a module nor set its mode by itself, so that calls of it need not be followed
unless they are handed one. Settings, logging, metrics, readers of data: they are much of what a program calls.
"""

from __future__ import annotations

import re

from bnlint.semantics.project import Project
from bnlint.source.parse import Source

_FRAMEWORK = re.compile(r"(?<![\w.])(?:torch|keras|tensorflow|tf|timm|lightning|nn|import_module|__import__)\b")
#: Imports of imports are looked at this far; beyond, a file counts as one that may have to do with a framework.
_DEPTH = 2


class Relevance:
    def __init__(self, project: Project | None) -> None:
        self._project = project
        self._known: dict[Source, bool] = {}

    def is_neutral(self, source: Source, depth: int = _DEPTH) -> bool:
        known = self._known.get(source)
        if known is None:
            self._known[source] = False  # of files that import each other
            known = _FRAMEWORK.search(source.text) is None and self._imports_neutral(source, depth)
            self._known[source] = known
        return known

    def _imports_neutral(self, source: Source, depth: int) -> bool:
        assert self._project is not None
        for segment in source.segments:
            for name in segment.imports:
                found = self._project.find(source.path, name)
                if found is None:
                    continue
                inner = self._project.source(found.shown) if found.shown is not None else None
                if depth == 0 or inner is None or not self.is_neutral(inner, depth - 1):
                    return False
        return True
