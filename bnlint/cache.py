"""Results of earlier runs, so that a file that has not changed is not analysed again.

One sqlite3 file in ``.bnlint_cache/`` maps a hash of everything a result depends on in the file itself to the findings
and to what else they rest on, as JSON; loading it runs nothing. A cache that is broken, foreign, locked or not writable
is passed over or made anew: it must never make a run fail.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

DIRECTORY = ".bnlint_cache"
#: Raised when a table or the JSON changes its shape.
_FORMAT = 3
#: Results kept; the oldest go first. A file without findings takes about 100 bytes, and more where it imports others.
_CAPACITY = 200_000
#: Verdicts kept, of one to ten kilobytes each.
_VERDICTS = 10_000
#: Environments kept: virtual environments, versions of Python, states of a checkout.
_NOTES = 50
_TABLES = (
    "results (key BLOB PRIMARY KEY, findings TEXT NOT NULL, dependencies TEXT NOT NULL)",
    "notes (key BLOB PRIMARY KEY, text TEXT NOT NULL)",
    "verdicts (key BLOB PRIMARY KEY, text TEXT NOT NULL)",
)
#: sqlite3 before 3.32 takes 999 parameters.
_AT_ONCE = 900


def key(*parts: str) -> bytes:
    """A short name for these texts in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()[:20]


class ResultCache:
    """Findings of earlier runs. A cache without a database knows nothing and forgets everything."""

    def __init__(self, database: sqlite3.Connection | None = None) -> None:
        self._database = database
        self._results: dict[bytes, tuple[bytes, str, str]] = {}
        self._notes: dict[bytes, tuple[bytes, str]] = {}
        self._verdicts: dict[bytes, tuple[bytes, str]] = {}

    @classmethod
    def open(cls, root: str) -> ResultCache:
        """The cache below ``root``."""
        directory = os.path.join(root, DIRECTORY)
        ignore = os.path.join(directory, ".gitignore")
        try:
            if not os.path.exists(ignore):
                os.makedirs(directory, exist_ok=True)
                with open(ignore, "w", encoding="utf-8") as stream:
                    stream.write("*\n")
        except OSError:
            return cls()
        return cls(_connect(os.path.join(directory, "results.sqlite3")))

    def __bool__(self) -> bool:
        """Whether it keeps anything."""
        return self._database is not None

    def __enter__(self) -> ResultCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is None:
            return
        with suppress(sqlite3.Error):
            if self._results or self._notes or self._verdicts:
                with self._database as transaction:
                    transaction.executemany("REPLACE INTO results VALUES (?, ?, ?)", self._results.values())
                    transaction.executemany("REPLACE INTO notes VALUES (?, ?)", self._notes.values())
                    transaction.executemany("REPLACE INTO verdicts VALUES (?, ?)", self._verdicts.values())
                    for table, capacity in (("results", _CAPACITY), ("notes", _NOTES), ("verdicts", _VERDICTS)):
                        newest = f"(SELECT max(rowid) FROM {table})"
                        transaction.execute(f"DELETE FROM {table} WHERE rowid <= {newest} - ?", (capacity,))
        self._database.close()
        self._database = None

    def results(self, keys: Iterable[bytes]) -> dict[bytes, tuple[str, str]]:
        """Findings and dependencies, both as JSON, for those of the ``keys`` that are known."""
        return {row[0]: (row[1], row[2]) for row in self._rows("results", keys)}

    def verdicts(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Verdicts, as JSON, for those of the ``keys`` that are known."""
        return {row[0]: row[1] for row in self._rows("verdicts", keys)}

    @property
    def is_empty(self) -> bool:
        """Whether there is no result of any file."""
        return not self._select("SELECT 1 FROM results LIMIT 1", [])

    def keep(self, key: bytes, findings: str, dependencies: str) -> None:
        """Remember a result; it is written when the cache is closed."""
        self._results[key] = (key, findings, dependencies)

    def keep_verdict(self, key: bytes, text: str) -> None:
        """Remember a verdict; it is written when the cache is closed."""
        self._verdicts[key] = (key, text)

    def note(self, key: bytes) -> str | None:
        """What an earlier run wrote down under this key."""
        rows = self._select("SELECT text FROM notes WHERE key = ?", [key])
        return rows[0][0] if rows else None

    def write_down(self, key: bytes, text: str) -> None:
        """Leave a note for later runs."""
        self._notes[key] = (key, text)

    def _rows(self, table: str, keys: Iterable[bytes]) -> Iterator[Any]:
        asked = list(keys) if self._database is not None else []
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            yield from self._select(f"SELECT * FROM {table} WHERE key IN ({','.join('?' * len(some))})", some)

    def _select(self, query: str, parameters: list[bytes]) -> list[Any]:
        if self._database is None:
            return []
        try:
            return self._database.execute(query, parameters).fetchall()
        except sqlite3.Error:
            return []  # it is analysed and written anew


def _connect(path: str) -> sqlite3.Connection | None:
    """The database at ``path``; one that is not ours is thrown away. ``None`` where there can be none."""
    for attempt in range(2):
        database = None
        try:
            database = sqlite3.connect(path, timeout=1.0)
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found == 0:
                with database:
                    for table in _TABLES:
                        database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                    database.execute(f"PRAGMA user_version = {_FORMAT}")
            elif found != _FORMAT:
                raise sqlite3.DatabaseError("another format")
            database.execute("SELECT key, findings, dependencies FROM results LIMIT 1").fetchone()
            database.execute("SELECT key, text FROM notes LIMIT 1").fetchone()
            database.execute("SELECT key, text FROM verdicts LIMIT 1").fetchone()
            return database
        except sqlite3.OperationalError as error:
            if database is not None:
                database.close()
            if not str(error).startswith("no such"):
                return None  # locked or not writable: it may be another run's, leave it alone
        except sqlite3.DatabaseError:
            if database is not None:
                database.close()
        if attempt == 0:
            try:
                os.unlink(path)
            except OSError:
                return None
    return None
