"""What earlier runs know of files: their findings, as long as everything that these rest on is as it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnlint.assumptions import NOTHING_TAUGHT, Teaching
from bnlint.cache import ResultCache, key
from bnlint.errors import FileError
from bnlint.fingerprint import Sketch
from bnlint.source.dependencies import FEW, Snapshot, read
from bnlint.source.discovery import SourceFile

if TYPE_CHECKING:
    from bnlint.engine import FileResult
    from bnlint.finding import Finding


#: A file, and the key of what would be known of it.
_Wanted = tuple[SourceFile, bytes]


class Known:
    """The results in a cache for one environment: the rules that are on, and the code that runs them."""

    def __init__(
        self, cache: ResultCache, rules: Sequence[Sketch], environment: str, teaching: Teaching = NOTHING_TAUGHT
    ) -> None:
        self._cache = cache
        self._rules = rules
        self._environment = environment
        self._teaching = teaching
        self._snapshot = Snapshot()

    def look_up(self, files: Sequence[SourceFile]) -> tuple[list[Finding], list[SourceFile]]:
        """The findings in those of the files in which nothing that counts has changed, and the other files."""
        if not self._cache:
            return [], list(files)
        keys = []
        for file in files:
            digest = read(file.path)[1]
            self._snapshot.add(file.shown, digest)
            keys.append(self._key(file.shown, digest))
        findings, others = self._find(list(zip(files, keys, strict=True)))
        if 0 < len(others) <= FEW and not self._cache.is_empty:
            more, others = self._look_into(others)
            findings += more
        return findings, [file for file, _ in others]

    def keep(self, shown: str, result: FileResult) -> None:
        """Remember a result for later runs, unless something went wrong: that may go right the next time."""
        if self._cache and not result.diagnostics:
            from bnlint.frozen import freeze

            dependencies = json.dumps(result.dependencies.to_json()) if result.dependencies else ""
            for name in (result.digest, result.essence) if result.essence else (result.digest,):
                self._cache.keep(self._key(shown, name), freeze(result.findings), dependencies)

    def _find(self, wanted: Sequence[_Wanted]) -> tuple[list[Finding], list[_Wanted]]:
        """The findings kept under the keys of files, and the files for which there are none that hold."""
        rows = self._cache.results(name for _, name in wanted)
        findings: list[Finding] = []
        others = []
        for file, name in wanted:
            found = self._thaw(*rows[name]) if name in rows else None
            if found is None:
                others.append((file, name))
            else:
                findings += found
        return findings, others

    def _look_into(self, wanted: Sequence[_Wanted]) -> tuple[list[Finding], list[_Wanted]]:
        """The same for files that have changed, if not in anything that counts; they get the result under their key."""
        findings: list[Finding] = []
        others = []
        for file, name in wanted:
            essence = self._essence_of(file)
            row: tuple[str, str] | None = ("[]", "")
            if essence:
                row = self._cache.results([self._key(file.shown, essence)]).get(self._key(file.shown, essence))
            found = self._thaw(*row) if row is not None and essence is not None else None
            if row is None or found is None:
                others.append((file, name))
            else:
                self._cache.keep(name, *row)
                findings += found
        return findings, others

    def _essence_of(self, file: SourceFile) -> str | None:
        """What counts of a file; nothing where no rule is concerned, and None where only the engine can tell."""
        from bnlint.source.decode import decode, split_lines
        from bnlint.source.syntax import check_syntax, code_of, essence, gist

        try:
            text = decode(read(file.path)[0])
            taught = self._teaching.names_batchnorm(text)
            concerned = [rule.code for rule in self._rules if taught or rule.concerns(text) is not False]
            tree = check_syntax(file.shown, text)
        except FileError:
            return None
        return essence(gist(code_of(split_lines(text), tree)), text, concerned) if concerned else ""

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
