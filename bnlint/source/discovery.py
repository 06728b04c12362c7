"""From the paths on the command line to the files that are linted.

A file that is named is always taken. Directories are walked in sorted order, without following symbolic links
to directories (so a loop cannot trap the walk, and no file is seen twice), and leave out what git ignores (but not
the ``__init__.py`` of a package whose modules it does not), what the settings exclude, and virtual environments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bnlint.source.ignore import Patterns

if TYPE_CHECKING:
    from bnlint.finding import Diagnostic

#: What the setting ``exclude`` replaces. ``build`` and ``dist`` are not here: they can be packages, and where
#: they are build products git ignores them.
DEFAULT_EXCLUDE = (
    "*.egg-info/",
    ".bnlint_cache/",
    ".eggs/",
    ".git/",
    ".hg/",
    ".ipynb_checkpoints/",
    ".mypy_cache/",
    ".nox/",
    ".pytest_cache/",
    ".ruff_cache/",
    ".svn/",
    ".tox/",
    ".venv/",
    "__pycache__/",
    "__pypackages__/",
    "node_modules/",
    "site-packages/",
    "venv/",
)


class SourceFile(NamedTuple):
    """``path`` opens the file; ``shown`` names it in reports, relative to the working directory."""

    path: str
    shown: str


def discover(paths: Iterable[str], exclude: Patterns) -> Iterator[SourceFile | Diagnostic]:
    """The files to lint, each once, and a diagnostic for every path that cannot be read."""
    seen: set[str] = set()
    for named in paths:
        path = os.path.abspath(named)
        if os.path.isdir(path):
            found: Iterable[SourceFile | Diagnostic] = _walk(path, exclude)
        elif not os.path.lexists(path):
            found = [_problem(path, "no such file or directory; check the path")]
        elif path.endswith(".ipynb"):
            found = [_problem(path, "notebooks cannot be linted yet; convert it to a .py file first")]
        else:
            found = [SourceFile(path, shown(path))]
        for item in found:
            if isinstance(item, SourceFile):
                if item.path in seen:
                    continue
                seen.add(item.path)
            yield item


def shown(path: str) -> str:
    """``path`` as reports name it."""
    try:
        path = os.path.relpath(path)
    except ValueError:  # another drive on Windows
        path = os.path.abspath(path)
    return path.replace(os.sep, "/")


def repository_root(directory: str) -> str | None:
    """The nearest directory upward that holds a git repository."""
    for candidate in _upward(os.path.abspath(directory)):
        if os.path.exists(os.path.join(candidate, ".git")):
            return candidate
    return None


def _walk(top: str, exclude: Patterns) -> Iterator[SourceFile | Diagnostic]:
    if not _contains(exclude.root, top):
        exclude = exclude.at(top)
    root = repository_root(top)
    layers = [] if root is None else _ignore_files([*_upward(os.path.dirname(top), root)][::-1])
    # A directory that is named although it is left out is meant: what left it out does not count below it.
    layers = [layer for layer in layers if not layer.decides(top, is_directory=True)]
    if top != exclude.root and exclude.decides(top, is_directory=True):
        exclude = Patterns(top, [])

    name = _names_below(top)
    # A stack, not recursion: directories can nest deeper than Python's.
    stack: list[tuple[str, bool, list[Patterns]]] = [(top, True, layers)]
    while stack:
        path, is_directory, layers = stack.pop()
        if not is_directory:
            yield SourceFile(path, name(path))
            continue
        try:
            with os.scandir(path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            yield _problem(path, f"cannot be listed: {error.strerror}; check its permissions or exclude it")
            continue
        names = {entry.name for entry in entries}
        if path != top and "pyvenv.cfg" in names:
            continue  # a virtual environment under any name
        if ".gitignore" in names:
            layers = layers + _ignore_files([path])
        for entry in entries:
            is_directory = entry.is_dir(follow_symlinks=False)
            # is_file() passes over pipes, which would never end, and over dangling links, which editors make.
            if not (is_directory or (entry.name.endswith(".py") and _is_file(entry))):
                continue
            if exclude.decides_in_turn(entry.path, is_directory):
                continue
            if _ignored(entry.path, is_directory, layers) and not _belongs_to_package(entry, entries, layers):
                continue
            stack.append((entry.path, is_directory, layers))


def _names_below(top: str) -> Callable[[str], str]:
    """What ``shown`` says of a path below ``top``, only faster."""
    if _contains(top, os.getcwd()) and top != os.getcwd():
        return shown
    prefix = "" if top == os.getcwd() else shown(top).rstrip("/") + "/"
    below = len(top.rstrip(os.sep)) + 1
    return lambda path: prefix + path[below:].replace(os.sep, "/")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself: like a dangling one, there is nothing to read
        return False


def _ignored(path: str, is_directory: bool, layers: Sequence[Patterns]) -> bool:
    """Whether git ignores ``path``: the deepest ``.gitignore`` that says something decides."""
    decisions = (layer.decides_in_turn(path, is_directory) for layer in reversed(layers))
    return next((decision for decision in decisions if decision is not None), False)


def _belongs_to_package(
    entry: os.DirEntry[str], entries: Sequence[os.DirEntry[str]], layers: Sequence[Patterns]
) -> bool:
    """Whether this is the ``__init__.py`` of a package whose modules git does not ignore. Nor does it ignore what it
    tracks, and a pattern such as ``_*`` was hardly written for this file."""
    return entry.name == "__init__.py" and any(
        other.name.endswith(".py") and not _ignored(other.path, False, layers) for other in entries
    )


def _ignore_files(directories: Iterable[str]) -> list[Patterns]:
    from bnlint.source.decode import split_lines

    layers = []
    for directory in directories:
        try:
            with open(os.path.join(directory, ".gitignore"), encoding="utf-8", errors="surrogateescape") as file:
                lines = split_lines(file.read())
        except OSError:
            continue  # none there; one that cannot be read excludes nothing, as with git
        layers.append(Patterns(directory, lines))
    return layers


def _upward(directory: str, last: str | None = None) -> Iterator[str]:
    """``directory`` and its parents, up to and including ``last``; nothing if it does not lie below it."""
    if last is not None and not _contains(last, directory):
        return
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if directory == last or parent == directory:
            return
        directory = parent


def _contains(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def _problem(path: str, message: str) -> Diagnostic:
    from bnlint.finding import Diagnostic
    from bnlint.rule import FILE_ERROR_CODE

    return Diagnostic(shown(path), 1, 1, FILE_ERROR_CODE, message)
