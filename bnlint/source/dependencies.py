"""What an answer about a file rests on beside that file: the files it imports, and where modules were found or not."""

from __future__ import annotations

import hashlib
from typing import Any

from bnlint.source.modules import Modules

#: Files that have changed and are looked into to see whether it matters: beyond that it takes longer than it saves.
FEW = 40


def digest(data: bytes) -> str:
    """The name of a file's content."""
    return hashlib.sha256(data).hexdigest()[:32]


class Dependencies:
    """``files`` are those that were read, by the names that reports give them, with the digest of their content and
    their gist (``source.syntax``; both empty for one that could not be read, the gist for one that is not Python).
    ``modules`` tells, for a folder and a name that a file in it imports, what the name led to: None if to none of the
    project's files."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, str]] = {}
        self.modules: dict[tuple[str, str], str | None] = {}

    def __bool__(self) -> bool:
        return bool(self.files or self.modules)

    def update(self, other: Dependencies) -> None:
        self.files.update(other.files)
        self.modules.update(other.modules)

    def to_json(self) -> dict[str, Any]:
        folders: dict[str, dict[str, str | None]] = {}
        for (folder, name), place in self.modules.items():
            folders.setdefault(folder, {})[name] = place
        return {"files": self.files, "modules": folders}


class Snapshot:
    """The project's files as they are in this run; each is hashed at most once."""

    def __init__(self, directory: str | None = None) -> None:
        self._modules = Modules(directory)
        self._digests: dict[str, str] = {}
        self._gists: dict[str, str] = {}

    def add(self, shown: str, digest: str) -> None:
        """Take note of the digest of a file that has been read anyway."""
        self._digests[shown] = digest

    def holds(self, dependencies: dict[str, Any]) -> bool:
        """Whether all that counts is as it was when these ``dependencies``, as JSON, were recorded."""
        return all(
            self._digest(shown) == digest or self._gist(shown) == (gist or None)
            for shown, (digest, gist) in dependencies["files"].items()
        ) and all(
            place_of(self._modules, folder, name) == place
            for folder, names in dependencies["modules"].items()
            for name, place in names.items()
        )

    def _digest(self, shown: str) -> str:
        if shown not in self._digests:
            self._digests[shown] = read(self._modules.path(shown))[1]
        return self._digests[shown]

    def _gist(self, shown: str) -> str | None:
        if shown not in self._gists:
            if len(self._gists) >= FEW:
                return None
            from bnlint.source.syntax import gist_of

            self._gists[shown] = gist_of(read(self._modules.path(shown))[0])
        return self._gists[shown]


def place_of(modules: Modules, folder: str, name: str) -> str | None:
    """Where a name leads, as text: the file, or the folder without ``__init__.py`` and a slash."""
    found = modules.find(folder, name)
    return None if found is None else found.shown or f"{found.folder}/"


def read(path: str) -> tuple[bytes, str]:
    """The content of a file and its digest; both empty if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as stream:
            data = stream.read()
    except OSError:
        return b"", ""
    return data, digest(data)
