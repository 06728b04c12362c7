"""What earlier runs know of files: their findings, as long as everything that these rest on is as it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnlint.cache import ResultCache, key
from bnlint.source.dependencies import Snapshot, read
from bnlint.source.discovery import SourceFile

if TYPE_CHECKING:
    from bnlint.engine import FileResult
    from bnlint.finding import Finding


class Known:
    """The results in a cache for one environment: the rules that are on, and the code that runs them."""

    def __init__(self, cache: ResultCache, environment: str) -> None:
        self._cache = cache
        self._environment = environment
        self._snapshot = Snapshot()

    def look_up(self, files: Sequence[SourceFile]) -> tuple[list[Finding], list[SourceFile]]:
        """The findings in those of the files that have not changed, and the other files."""
        if not self._cache:
            return [], list(files)
        keys = []
        for file in files:
            digest = read(file.path)[1]
            self._snapshot.add(file.shown, digest)
            keys.append(self._key(file.shown, digest))
        rows = self._cache.results(keys)
        findings: list[Finding] = []
        others = []
        for file, name in zip(files, keys, strict=True):
            found = self._thaw(*rows[name]) if name in rows else None
            if found is None:
                others.append(file)
            else:
                findings += found
        return findings, others

    def keep(self, shown: str, result: FileResult) -> None:
        """Remember a result for later runs, unless something went wrong: that may go right the next time."""
        if self._cache and not result.diagnostics:
            from bnlint.frozen import freeze

            dependencies = json.dumps(result.dependencies.to_json()) if result.dependencies else ""
            self._cache.keep(self._key(shown, result.digest), freeze(result.findings), dependencies)

    def _key(self, shown: str, digest: str) -> bytes:
        return key(self._environment, shown, digest)

    def _thaw(self, findings: str, dependencies: str) -> Sequence[Finding] | None:
        try:
            if dependencies and not self._snapshot.holds(json.loads(dependencies)):
                return None
            if findings == "[]":
                return ()
            from bnlint.frozen import thaw

            return thaw(findings)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # not what was written: it is analysed and written anew
