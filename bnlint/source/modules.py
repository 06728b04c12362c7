"""Where the modules lie that a file imports: found as Python would find them, without importing anything.

A name is looked for in the folder of the importing file, as for a script, then in the folders above it up to the
project's own (which holds ``pyproject.toml``, ``setup.py``, ``setup.cfg`` or ``.git``), and in ``src`` below those.
Frameworks are never looked for: what they do is in ``bnlint.frameworks``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
#: What these packages do is known by name (``bnlint.frameworks``), also where they are linted themselves.
_FRAMEWORKS = frozenset(
    {"torch", "tensorflow", "keras", "tf_keras", "tf_slim", "numpy", "scipy", "paddle", "mindspore", "mxnet", "flax",
     "jax", "haiku", "oneflow", "torchvision"}
)  # fmt: skip


class Found(NamedTuple):
    """Where a module lies: its file (``shown`` as in reports; None for a folder without ``__init__.py``) and, for a
    package, its folder (shown likewise)."""

    shown: str | None
    folder: str | None


class Modules:
    """Finds modules for the files at and around a directory. What it has once seen of the file system it sees the same
    way for ever: an instance serves one run."""

    def __init__(self, directory: str | None = None, also: tuple[str, ...] = ()) -> None:
        """``also`` are packages of frameworks that are looked for all the same (``torchvision.models``)."""
        self.directory = os.path.abspath(directory or os.getcwd())
        self._also = also
        self._answers: dict[tuple[str, str], Found | None] = {}
        self._listings: dict[str, frozenset[str]] = {}
        self._roots: dict[str, tuple[str, ...]] = {}

    def find(self, folder: str, name: str) -> Found | None:
        """Where a module lies that a file in ``folder`` (as shown) imports by ``name``, with the dots of a relative
        import; None if it is none of the project's."""
        key = (folder, name)
        try:
            return self._answers[key]
        except KeyError:
            found = self._answers[key] = self._find(self.path(folder), name)
            return found

    def path(self, shown: str) -> str:
        """The absolute path of a file or folder by the name that reports give it."""
        return os.path.normpath(os.path.join(self.directory, shown))

    def _shown(self, path: str) -> str:
        inside = self.directory.rstrip(os.sep) + os.sep
        if path.startswith(inside):
            path = path[len(inside) :]
        else:
            with suppress(ValueError):  # another drive on Windows
                path = os.path.relpath(path, self.directory)
        return path.replace(os.sep, "/")

    def _find(self, folder: str, name: str) -> Found | None:
        bare = name.lstrip(".")
        parts = bare.split(".") if bare else []
        level = len(name) - len(bare)
        if level:
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            return self._module_in(folder, parts)
        if parts[0] in _FRAMEWORKS and not any(f"{bare}.".startswith(f"{package}.") for package in self._also):
            return None
        for root in self._roots_of(folder):
            found = self._module_in(root, parts)
            if found is not None:
                return found
        return None

    def _module_in(self, folder: str, parts: list[str]) -> Found | None:
        for position, part in enumerate(parts):
            names = self._listing(folder)
            last = position == len(parts) - 1
            inner = os.path.join(folder, part)
            if part in names and ("__init__.py" in self._listing(inner) or not (last and f"{part}.py" in names)):
                if not self._listing(inner):
                    return None
                folder = inner
            elif last and f"{part}.py" in names:
                return Found(self._shown(inner + ".py"), None)
            else:
                return None
        init = os.path.join(folder, "__init__.py")
        shown = self._shown(init) if "__init__.py" in self._listing(folder) else None
        return Found(shown, self._shown(folder))

    def _listing(self, folder: str) -> frozenset[str]:
        known = self._listings.get(folder)
        if known is None:
            try:
                known = frozenset(os.listdir(folder))
            except OSError:
                known = frozenset()
            self._listings[folder] = known
        return known

    def _roots_of(self, folder: str) -> tuple[str, ...]:
        """The folders in which absolute imports of a file in ``folder`` are looked for, the nearest first."""
        known = self._roots.get(folder)
        if known is None:
            top = self._top_of(folder)
            chain = [folder]
            while chain[-1] != top and len(chain[-1]) > len(top):
                chain.append(os.path.dirname(chain[-1]))
            known = tuple(root for here in chain for root in (here, os.path.join(here, "src")) if self._listing(root))
            self._roots[folder] = known
        return known

    def _top_of(self, folder: str) -> str:
        """The project's folder: the nearest with a marker, else the working directory if the file lies below it, else
        the one above the package."""
        here = folder
        while True:
            if any(marker in self._listing(here) for marker in _MARKERS):
                return here
            parent = os.path.dirname(here)
            if parent == here:
                break
            here = parent
        if folder == self.directory or folder.startswith(self.directory + os.sep):
            return self.directory
        while "__init__.py" in self._listing(folder):
            folder = os.path.dirname(folder)
        return folder
