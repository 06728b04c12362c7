"""Results by content, so that a file that has not changed is not analysed again.

One sqlite3 file in ``.bnlint_cache/`` maps a hash of everything a result depends on to the findings as JSON;
loading it runs nothing. A cache that is broken, foreign, locked or not writable is passed over or made anew:
it must never make a run fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import entry_points, version
from pathlib import Path
from types import TracebackType
from typing import Any

import bnlint
from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Edit, Finding, Fix, Location, Safety, Severity, TraceStep
from bnlint.rule import ENTRY_POINT_GROUP, Rule

DIRECTORY = ".bnlint_cache"
#: Raised when the table or the JSON changes its shape.
_FORMAT = 1
#: Results kept; the oldest go first. A file without findings takes about 100 bytes.
_CAPACITY = 200_000


class ResultCache:
    """Findings of earlier runs. A cache without a database knows nothing and forgets everything."""

    def __init__(self, database: sqlite3.Connection | None = None, fingerprint: bytes = b"") -> None:
        self._database = database
        self._fingerprint = fingerprint
        self._new: dict[str, str] = {}

    @classmethod
    def open(cls, root: str, rules: Sequence[Rule]) -> ResultCache:
        """The cache below ``root`` for results of exactly these ``rules`` as they are installed now."""
        directory = Path(root, DIRECTORY)
        try:
            directory.mkdir(exist_ok=True)
            ignore = directory / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        except OSError:
            return cls()
        database = _connect(directory / "results.sqlite3")
        return cls(database, _fingerprint(rules)) if database is not None else cls()

    def __enter__(self) -> ResultCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is None:
            return
        with suppress(sqlite3.Error):
            if self._new:
                with self._database as transaction:
                    transaction.executemany("REPLACE INTO results VALUES (?, ?)", self._new.items())
                    transaction.execute(
                        "DELETE FROM results WHERE rowid <= (SELECT max(rowid) FROM results) - ?",
                        (_CAPACITY,),
                    )
        self._database.close()
        self._database = None

    def get(self, data: bytes, path: str) -> tuple[Finding, ...] | None:
        """The findings in a file with this content, shown under this ``path``; ``None`` if not known."""
        if self._database is None:
            return None
        try:
            row = self._database.execute(
                "SELECT findings FROM results WHERE key = ?", (self._key(data, path),)
            )
            found = row.fetchone()
            return None if found is None else tuple(_thaw(item) for item in json.loads(found[0]))
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError):
            return None  # it is analysed and written anew

    def put(self, data: bytes, path: str, findings: Sequence[Finding]) -> None:
        if self._database is not None:
            self._new[self._key(data, path)] = json.dumps([asdict(finding) for finding in findings])

    def _key(self, data: bytes, path: str) -> str:
        name = path.encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(self._fingerprint)
        for part in (name, data):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


def _connect(path: Path) -> sqlite3.Connection | None:
    """The database at ``path``; one that is not ours is thrown away. ``None`` where there can be none."""
    for attempt in range(2):
        database = None
        try:
            database = sqlite3.connect(path, timeout=1.0)
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found not in (0, _FORMAT):
                raise sqlite3.DatabaseError("another format")
            with database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, findings TEXT NOT NULL)"
                )
                database.execute(f"PRAGMA user_version = {_FORMAT}")
            database.execute("SELECT key, findings FROM results LIMIT 1").fetchone()
            return database
        except sqlite3.OperationalError as error:
            if database is not None:
                database.close()
            if "no such column" not in str(error):
                return None  # locked or not writable: it may be another run's, leave it alone
        except sqlite3.DatabaseError:
            if database is not None:
                database.close()
        if attempt == 0:
            try:
                path.unlink()
            except OSError:
                return None
    return None


def _fingerprint(rules: Sequence[Rule]) -> bytes:
    """What a result depends on beside the file: the rules that ran, and the code and Python that ran them.

    Code counts by its content, not its version, so that editing a rule in a checkout takes effect at once.
    """
    digest = hashlib.sha256()
    packs = [
        (entry.value, entry.dist and entry.dist.version) for entry in entry_points(group=ENTRY_POINT_GROUP)
    ]
    codes = [rule.code for rule in rules]
    facts = (_FORMAT, bnlint.__version__, sys.version_info[:3], version("libcst"), packs, codes)
    digest.update(repr(facts).encode())
    for path in sorted(set(_code_of(rules))):
        with suppress(OSError):
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.digest()


def _code_of(rules: Sequence[Rule]) -> Iterator[str]:
    """The source files of bnlint itself and of the packages that hold the rules."""
    names = {"bnlint", *(type(rule).__module__.rpartition(".")[0] or type(rule).__module__ for rule in rules)}
    for name in names:
        module: Any = sys.modules.get(name)
        for directory in getattr(module, "__path__", ()):
            yield from map(str, Path(directory).rglob("*.py"))
        if getattr(module, "__file__", None) is not None:
            yield os.path.abspath(module.__file__)


def _thaw(data: dict[str, Any]) -> Finding:
    """Undo ``asdict``. Unlike the public JSON this keeps the experiment and the ends of trace steps."""
    fix, experiment = data["fix"], data["experiment"]
    return Finding(
        location=Location(**data["location"]),
        code=data["code"],
        name=data["name"],
        message=data["message"],
        severity=Severity(data["severity"]),
        confidence=Confidence(data["confidence"]),
        trace=tuple(TraceStep(Location(**step["location"]), step["message"]) for step in data["trace"]),
        fix=None
        if fix is None
        else Fix(
            Safety(fix["safety"]),
            fix["message"],
            tuple(Edit(Location(**edit["location"]), edit["replacement"]) for edit in fix["edits"]),
        ),
        experiment=None if experiment is None else Experiment.from_json(experiment),
    )
