"""Patterns as in ``.gitignore`` files: which paths they leave out.

Nearly all that people write are names, folders and endings. Those are looked up; ``pathspec``, which takes a while to
import and to ask, is for the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

#: A name or an ending at any depth, or a path from the patterns' directory; for folders alone where a slash ends it.
_PLAIN = re.compile(
    r"(?P<ending>\*)?(?P<name>[\w.+@-]+)(?P<folder>/)?|/?(?P<path>[\w.+@-]+(?:/[\w.+@-]+)*)(?P<below>/)?"
)


class Patterns:
    """gitignore patterns and the directory they are relative to. Invalid ones count as little as they do for git."""

    def __init__(self, root: str, lines: Iterable[str]) -> None:
        self.root = root
        self._lines = [line for line in lines if line.strip() and not line.startswith("#")]
        self._spec: GitIgnoreSpec | None = None
        #: Names, endings and paths, of folders alone and of anything.
        self._names: tuple[set[str], set[str]] = (set(), set())
        self._endings: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._paths: tuple[set[str], set[str]] = (set(), set())
        for line in self._lines:
            plain = _PLAIN.fullmatch(line.rstrip(" "))
            if plain is None:
                self._spec = _spec(filter(is_pattern, self._lines))
                break
            self._add(plain)

    def at(self, root: str) -> Patterns:
        """The same patterns, relative to another directory."""
        return Patterns(root, self._lines)

    def decides(self, path: str, is_directory: bool) -> bool | None:
        """Whether ``path``, which lies below ``root``, is left out; ``None`` where no pattern says so."""
        below = path[len(self.root) :].lstrip(os.sep).replace(os.sep, "/")
        if self._spec is not None:
            return self._spec.check_file(below + "/" if is_directory else below).include
        folders = [below[: slash.start()] for slash in re.finditer("/", below)]
        left_out = any(self._covers(folder, True) for folder in folders) or self._covers(below, is_directory)
        return True if left_out else None

    def decides_in_turn(self, path: str, is_directory: bool) -> bool | None:
        """The same, where the folders above have been decided before."""
        if self._spec is not None:
            return self.decides(path, is_directory)
        return True if self._lines and self._covers(path[len(self.root) :].lstrip(os.sep), is_directory) else None

    def _add(self, plain: re.Match[str]) -> None:
        kind = 0 if plain["folder"] or plain["below"] else 1
        if plain["path"]:
            self._paths[kind].add(plain["path"])
        elif plain["ending"]:
            both = list(self._endings)
            both[kind] = (*both[kind], plain["name"])
            self._endings = (both[0], both[1])
        else:
            self._names[kind].add(plain["name"])

    def _covers(self, below: str, is_directory: bool) -> bool:
        below = below.replace(os.sep, "/")
        name = below.rpartition("/")[2]
        for kind in (0, 1) if is_directory else (1,):
            if name in self._names[kind] or name.endswith(self._endings[kind]) or below in self._paths[kind]:
                return True
        return False


def is_pattern(line: str) -> bool:
    """Whether ``line`` is valid in a ``.gitignore`` file."""
    if _PLAIN.fullmatch(line):
        return True
    try:
        _spec([line])
    except ValueError:
        return False
    return True


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(lines)
