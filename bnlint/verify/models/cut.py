"""Cut a class, and what it needs, out of the sources of a project.

A file's top-level statements are taken one by one: those that bind the class's name, then those that bind the names
which these use, in this file and in the files of the project that it imports. Whatever else stands there, the training
script around the class above all, is left out; line numbers stay. Imports between files of the project become *links*,
since the pieces are no package any more; imports of libraries stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bnlint.semantics.project import Project
from bnlint.source.parse import Role, Segment, Source

#: Files that a model may take: more are no model any more, but a framework.
MOST_FILES = 200


#: The pieces of a project by file, as JSON: ``source`` and ``links`` of each.
Pieces = dict[str, dict[str, Any]]


#: What a functional model of Keras is made by.
_MODELS = frozenset({"Model", "Sequential"})


class CannotCut(Exception):
    """Why the class cannot be taken out, in words for the user."""


@dataclass
class Piece:
    """What is taken of one file: ``lines`` of its text by number (from 1), and ``links``: the names that it imports
    from other files, each with that file and the name there (empty for the file as a whole)."""

    lines: dict[int, str] = field(default_factory=dict)
    links: dict[str, tuple[str, str]] = field(default_factory=dict)

    def source(self) -> str:
        return "\n".join(self.lines.get(number, "") for number in range(1, max(self.lines, default=0) + 1)) + "\n"


def cut(project: Project, wanted: Iterable[tuple[str, str]]) -> Pieces:
    """What is needed for each of these names in files. Raises ``CannotCut``."""
    cutter = _Cutter(project)
    for path, name in wanted:
        cutter.need(path, name)
        if name not in (source := cutter.source(path)).binding:
            raise CannotCut(f"{source.path} defines no {name} at its top")
    return {
        shown: {"source": piece.source(), "links": asdict(piece)["links"]} for shown, piece in cutter.pieces.items()
    }


def builder(project: Project, path: str, line: int) -> str:
    """The function at the top of a file whose model the code on this line is part of: the one around it, or one that
    calls that. It is a function that builds a model and returns something. Raises ``CannotCut``."""
    source = project.source(path)
    if source is None:
        raise CannotCut(f"{path} cannot be read")
    functions = {
        node.name: (segment.line - 1, node)
        for segment in source.segments
        if segment.role is Role.DEFINITION
        for node in ast.parse(segment.text).body
        if isinstance(node, ast.FunctionDef)
    }
    waiting = [name for name, (above, node) in functions.items() if node.lineno <= line - above <= _end(node)]
    if not waiting:
        raise CannotCut("no function at the top of its file builds it, and other code of the file is not run")
    seen: list[str] = []
    while waiting:
        name = waiting.pop(0)
        seen.append(name)
        called = _called(functions[name][1])
        returns = any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(functions[name][1]))
        if returns and called & _MODELS:
            return name
        waiting += [other for other, (_, node) in functions.items() if other not in seen and name in _called(node)]
    raise CannotCut(f"no function around {seen[0]} returns it")


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _called(tree: ast.AST) -> set[str]:
    """The bare names of what is called in there."""
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {node.attr for node in called if isinstance(node, ast.Attribute)} | {
        node.id for node in called if isinstance(node, ast.Name)
    }


class _Cutter:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._seen: set[tuple[str, str]] = set()
        self._taken: set[tuple[str, int]] = set()
        self.pieces: dict[str, Piece] = {}

    def source(self, path: str) -> Source:
        source = self._project.source(path)
        if source is None:
            raise CannotCut(f"{path} cannot be read")
        return source

    def need(self, path: str, name: str) -> None:
        """Take what gives ``name`` its value in the file ``path``."""
        waiting = [(path, name)]
        while waiting:
            place = waiting.pop()
            if place not in self._seen:
                self._seen.add(place)
                waiting += self._take(*place)

    def _take(self, path: str, name: str) -> Iterator[tuple[str, str]]:
        """Take the statements that bind a name; what these need in turn."""
        source = self.source(path)
        if path not in self.pieces and len(self.pieces) >= MOST_FILES:
            raise CannotCut(f"it needs more than {MOST_FILES} files")
        piece = self.pieces.setdefault(path, Piece())
        segments = source.binding.get(name, [])
        for segment in segments:
            yield from self._take_segment(source, piece, segment, name)
        if not segments:
            yield from self._take_star(source, piece, name)

    def _take_segment(self, source: Source, piece: Piece, segment: Segment, name: str) -> Iterator[tuple[str, str]]:
        tree = ast.parse(segment.text)
        if segment.role is Role.IMPORT:
            yield from self._take_import(source, piece, segment, tree, name)
            return
        if (source.path, segment.line) in self._taken:
            return
        self._taken.add((source.path, segment.line))
        if segment.role is Role.CODE and _is_script(tree):
            return  # the name is one of the script's own variables as well
        for offset, line in enumerate(segment.text.splitlines()):
            piece.lines[segment.line + offset] = line
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield source.path, node.id
        # What is asked of a module of the project: ``blocks.Residual``.
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield from self._member(source, node.value.id, node.attr)

    def _take_import(
        self, source: Source, piece: Piece, segment: Segment, tree: ast.Module, name: str
    ) -> Iterator[tuple[str, str]]:
        for statement, alias in _imports_of(tree, name):
            link = self._link(source.path, statement, alias)
            if link is None:
                kept = ast.copy_location(_with_one(statement, alias), statement)
                text = ast.unparse(kept)
                line = segment.line + statement.lineno - 1
                known = piece.lines.get(line, "")
                piece.lines[line] = f"{known}; {text}" if known and text not in known.split("; ") else text
            else:
                piece.links[name] = link
                if link[1]:
                    yield link

    def _link(self, path: str, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, str] | None:
        """The file of the project that an import leads to, and the name there; None for a library."""
        if isinstance(statement, ast.Import):
            found = self._project.find(path, alias.name if alias.asname else alias.name.split(".", 1)[0])
            return None if found is None or found.shown is None else (found.shown, "")
        module = "." * statement.level + (statement.module or "")
        found = self._project.find(path, module)
        if found is None:
            if statement.level:
                raise CannotCut(f"{path} imports {module or '.'}, which is not there")
            return None
        if found.shown is not None and alias.name in self.source(found.shown).binding:
            return found.shown, alias.name
        inner = self._project.submodule(found.folder, alias.name) if found.folder is not None else None
        if inner is not None and inner.shown is not None:
            return inner.shown, ""
        return None if found.shown is None else (found.shown, alias.name)

    def _take_star(self, source: Source, piece: Piece, name: str) -> Iterator[tuple[str, str]]:
        """A name that nothing binds but perhaps a star import, or Python itself."""
        for segment in source.segments:
            for star in segment.stars:
                found = self._project.find(source.path, star)
                if found is None:
                    piece.lines.setdefault(segment.line, f"from {star} import *")
                elif found.shown is not None and self._has(found.shown, name, {source.path}):
                    piece.links[name] = (found.shown, name)
                    yield found.shown, name

    def _has(self, path: str, name: str, seen: set[str]) -> bool:
        """Whether a file gives a name a value, itself or by a star import."""
        if path in seen:
            return False
        source = self.source(path)
        places = (self._project.find(path, star) for star in source.stars)
        inner = [found.shown for found in places if found is not None and found.shown is not None]
        return name in source.binding or any(self._has(shown, name, {*seen, path}) for shown in inner)

    def _member(self, source: Source, module: str, name: str) -> Iterator[tuple[str, str]]:
        """What is asked of a module of the project that a file imports as ``module``."""
        for segment in source.binding.get(module, []):
            if segment.role is Role.IMPORT:
                for statement, alias in _imports_of(ast.parse(segment.text), module):
                    link = self._link(source.path, statement, alias)
                    if link is not None and not link[1]:
                        yield link[0], name


def _imports_of(tree: ast.Module, name: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, ast.alias]]:
    """Where import statements bind a name."""
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                if (alias.asname or alias.name).split(".", 1)[0] == name:
                    yield statement, alias


def _with_one(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(statement.module, [alias], statement.level)


def _is_script(tree: ast.Module) -> bool:
    """Whether a top-level statement does more than import, or choose what a name stands for."""
    harmless = (ast.Import, ast.ImportFrom, ast.Pass, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.If)
    return not all(isinstance(node, (*harmless, ast.Try)) for node in _statements(tree))


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run when the module does, but for those within functions and classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from _statements(node)
