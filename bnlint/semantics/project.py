"""The files that a file imports: found as Python would find them, read once, and only when they are asked for.

Nothing is imported in Python's sense. Where a name leads is looked for in the folder of the importing file, as for a
script, then in the folders above it up to the project's own (which holds ``pyproject.toml``, ``setup.py``,
``setup.cfg`` or ``.git``), and in ``src`` below those. Frameworks are never looked for: what they do is in
``bnlint.frameworks``.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from bnlint.errors import FileError
from bnlint.finding import Location
from bnlint.source.decode import decode
from bnlint.source.parse import Source, parse

#: Files of a project that are kept at a time; beyond that they are read again.
_CAPACITY = 400
#: Larger files are data or generated, and cost more than they tell.
_LARGEST = 1_000_000
_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
#: What these packages do is known by name (``bnlint.frameworks``), also where they are linted themselves.
_FRAMEWORKS = frozenset(
    {"torch", "tensorflow", "keras", "tf_keras", "tf_slim", "numpy", "scipy", "paddle", "mindspore", "mxnet", "flax",
     "jax", "haiku", "oneflow", "torchvision"}
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Where a module lies: its file (``shown`` as in reports; None for a folder without ``__init__.py``) and, for a
    package, its folder."""

    shown: str | None
    folder: str | None


@dataclass
class Dependencies:
    """What an answer depended on beside the file itself: the files read, by hash, and the places looked at in vain."""

    files: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)


class Project:
    """Reads and finds the files below the working directory, and above it up to the project's own folder."""

    def __init__(self, directory: str | None = None, also: tuple[str, ...] = ()) -> None:
        """``also`` are packages of frameworks that are looked for all the same (``torchvision.models``)."""
        self._also = also
        self._directory = os.path.abspath(directory or os.getcwd())
        self._sources: OrderedDict[str, tuple[Source | None, str]] = OrderedDict()
        self._listings: dict[str, frozenset[str]] = {}
        self._roots: dict[str, tuple[str, ...]] = {}
        self._found: dict[tuple[str, str], tuple[Found | None, frozenset[str]]] = {}
        self.dependencies = Dependencies()
        #: Where a rule has findings in a file by itself, by path and code; what the engine keeps here.
        self.own_findings: dict[tuple[str, str], frozenset[Location]] = {}

    def source(self, shown: str) -> Source | None:
        """A file of the project; None where it cannot be read or is not Python."""
        if shown not in self._sources:
            self._sources[shown] = self._read(shown)
            if len(self._sources) > _CAPACITY:
                self._sources.popitem(last=False)
        source, digest = self._sources[shown]
        self.dependencies.files[shown] = digest
        return source

    def find(self, importer: str, name: str) -> Found | None:
        """Where a module lies that the file ``importer`` (as shown) imports by ``name``, dots of relative imports
        included; None if it is none of the project's."""
        folder = os.path.dirname(os.path.join(self._directory, importer))
        key = (folder, name)
        if key not in self._found:
            absent: set[str] = set()
            self._found[key] = (self._find(folder, name, absent), frozenset(absent))
        found, absent_places = self._found[key]
        self.dependencies.absent |= absent_places
        return found

    def submodule(self, folder: str, name: str) -> Found | None:
        absent: set[str] = set()
        found = self._module_in(folder, [name], absent)
        self.dependencies.absent |= absent
        return found

    def digest(self, shown: str) -> str:
        """The hash of a file's content as it is now; empty for one that cannot be read."""
        try:
            with open(os.path.join(self._directory, shown), "rb") as stream:
                return hashlib.sha256(stream.read()).hexdigest()
        except OSError:
            return ""

    def exists(self, place: str) -> bool:
        return os.path.basename(place) in self._listing(os.path.dirname(place))

    def _read(self, shown: str) -> tuple[Source | None, str]:
        try:
            with open(os.path.join(self._directory, shown), "rb") as stream:
                data = stream.read()
        except OSError:
            return None, ""
        digest = hashlib.sha256(data).hexdigest()
        if len(data) > _LARGEST:
            return None, digest
        try:
            return parse(shown, decode(data)), digest
        except FileError:
            return None, digest

    def _find(self, folder: str, name: str, absent: set[str]) -> Found | None:
        bare = name.lstrip(".")
        parts = bare.split(".") if bare else []
        level = len(name) - len(bare)
        if level:
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            return self._module_in(folder, parts, absent)
        if parts[0] in _FRAMEWORKS and not any(f"{bare}.".startswith(f"{package}.") for package in self._also):
            return None
        for root in self._roots_of(folder):
            found = self._module_in(root, parts, absent)
            if found is not None:
                return found
        return None

    def _module_in(self, folder: str, parts: list[str], absent: set[str]) -> Found | None:
        for position, part in enumerate(parts):
            names = self._listing(folder)
            last = position == len(parts) - 1
            inner = os.path.join(folder, part)
            if part in names and ("__init__.py" in self._listing(inner) or not (last and f"{part}.py" in names)):
                if not self._listing(inner):
                    absent.add(inner)
                    return None
                folder = inner
            elif last and f"{part}.py" in names:
                return Found(self._shown(inner + ".py"), None)
            else:
                absent.update((inner, inner + ".py"))
                return None
        init = os.path.join(folder, "__init__.py")
        return Found(self._shown(init) if "__init__.py" in self._listing(folder) else None, folder)

    def _shown(self, path: str) -> str:
        relative = os.path.relpath(path, self._directory)
        return (path if relative.startswith("..") else relative).replace(os.sep, "/")

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
        if folder == self._directory or folder.startswith(self._directory + os.sep):
            return self._directory
        while "__init__.py" in self._listing(folder):
            folder = os.path.dirname(folder)
        return folder
