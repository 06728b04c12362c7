"""Text to trees: the guard, the outline of a file, and the libcst trees of those of its parts that are needed.

``ast.parse`` goes first: it is ten times cheaper than libcst, its error messages are the ones users know, and it
guards libcst's native parser, which crashes the process on very deep expressions. It also tells where the top-level
statements of the file stand. libcst then parses only those of them that the analysis asks for, since it is what costs:
the names of a file are bound by few of its statements, and most files need few of theirs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bnlint.errors import FileError
from bnlint.finding import Location
from bnlint.source.decode import split_lines
from bnlint.source.positions import Span, places_of, spans_of
from bnlint.source.syntax import check_syntax, code_of, docstring, first_line, gist, too_deep

if TYPE_CHECKING:
    import libcst as cst

#: Deepest syntax tree that is analysed. libcst's native parser dies somewhere above 5 000 levels with the
#: default stack of a main thread; threads have less. Hand-written code stays below 100.
MAX_DEPTH = 1_000

#: Statements that import, define or refuse.
_INERT = (ast.Import, ast.ImportFrom, ast.Pass, ast.Raise, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
#: A name behind anything but ``self.``, or in quotes, and one that is set there.
_OF_OTHERS = re.compile(r"(?<!\bself)\.(\w+)|[\"'](\w+)[\"']")
_SET_IN_OTHERS = re.compile(r"(?<!\bself)\.(\w+)\s*[-+*/|&]?=(?!=)|\bsetattr\([^\n]*?[\"'](\w+)[\"']")
_MODED = re.compile(r"\b(\w[\w.]*)\s*\.\s*(?:eval|train)\b")


class Role(Enum):
    """What a top-level statement is for: it defines one function or class, imports, assigns, or does something else."""

    DEFINITION = "definition"
    IMPORT = "import"
    ASSIGNMENT = "assignment"
    CODE = "code"


@dataclass(frozen=True, eq=False)
class Segment:
    """A top-level statement, or several that share a line. ``binds`` are the names that it gives a value, ``code`` is
    its text without docstrings and lines of comments.

    ``imports`` are the modules that it imports and ``stars`` those of its star imports, with their leading dots.
    ``imported`` are the names that nothing but imports in it gives a value. ``acts`` tells that it does something,
    other than to import, define or refuse, on whatever condition.
    """

    line: int
    text: str
    code: str
    role: Role
    binds: frozenset[str]
    imports: frozenset[str] = frozenset()
    stars: tuple[str, ...] = ()
    imported: frozenset[str] = frozenset()
    acts: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """One file, in segments that are parsed on demand. ``text`` is what stands in them, where it stands, and nothing
    else (``source.syntax.code_of``): the analysis can depend on that alone. ``code_lines`` are its lines, empty where
    a docstring or a comment stands; ``lowered`` is where the analysis keeps what it made of them."""

    path: str
    text: str
    segments: tuple[Segment, ...]
    code_lines: list[str] = field(default_factory=list, repr=False)
    lowered: dict[Segment, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def gist(self) -> str:
        """The name of all that the analysis sees of the file."""
        return gist(self.text)

    @cached_property
    def binding(self) -> dict[str, list[Segment]]:
        """The segments that give a name a value, in the order of the file."""
        found: dict[str, list[Segment]] = {}
        for segment in self.segments:
            for name in segment.binds:
                found.setdefault(name, []).append(segment)
        return found

    @cached_property
    def stars(self) -> tuple[str, ...]:
        return tuple(star for segment in self.segments for star in segment.stars)

    @cached_property
    def definitions(self) -> frozenset[str]:
        """The functions and classes of the file."""
        return frozenset(n for segment in self.segments if segment.role is Role.DEFINITION for n in segment.binds)

    @cached_property
    def moded(self) -> frozenset[str]:
        """The names that stand before ``.eval`` or ``.train``, with attributes between or not."""
        return frozenset(name for chain in _MODED.findall(self.text) for name in chain.split("."))

    @cached_property
    def named_of_others(self) -> frozenset[str]:
        """The attributes that code may read of something other than its own object."""
        return frozenset(name for names in _OF_OTHERS.findall(self.text) for name in names)

    @cached_property
    def set_in_others(self) -> frozenset[str]:
        """The attributes that code sets of something other than its own object."""
        return frozenset(name for names in _SET_IN_OTHERS.findall(self.text) for name in names)

    @cached_property
    def imports(self) -> frozenset[str]:
        """The top-level packages that the file imports outside of functions."""
        names = frozenset(name for segment in self.segments for name in segment.imports)
        return frozenset(name.split(".", 1)[0] for name in names)


@dataclass(frozen=True)
class Tree:
    """The libcst tree of one segment.

    ``spans`` gives the place in the file of every call, attribute, number and statement of ``module``, by ``id`` of
    the node; nodes inside f-strings have none.
    """

    path: str
    module: cst.Module
    spans: dict[int, Span]

    def location(self, span: Span) -> Location:
        return Location(self.path, *span)


def parse(path: str, text: str) -> Source:
    """The outline of a file. Raises ``FileError`` where it is not Python."""
    tree = check_syntax(path, text)
    code = code_of(split_lines(text), tree)
    lines = code.split("\n")
    code_lines = ["" if line.lstrip().startswith("#") else line for line in lines]
    groups: list[list[ast.stmt]] = []
    last = 0
    for statement in tree.body:
        if docstring(statement) is not None:
            continue
        _blank_docstrings(statement, code_lines)
        if groups and first_line(statement) <= last:
            groups[-1].append(statement)
        else:
            groups.append([statement])
        last = statement.end_lineno or statement.lineno
    segments = tuple(_segment(group, lines, code_lines) for group in groups)
    return Source(path, code, segments, code_lines)


def tree_of(path: str, segment: Segment) -> Tree:
    """Parse a segment with libcst. Raises ``FileError`` where it cannot be parsed."""
    import libcst as cst  # takes a while, and most files need none of it

    places = places_of(check_syntax(path, segment.text), segment.text, segment.line - 1, MAX_DEPTH)
    if places is None:
        raise too_deep()
    try:
        module = cst.parse_module(segment.text)
    except cst.ParserSyntaxError as error:
        raise FileError(
            f"syntax that this version of libcst does not know: {error.message}; update libcst or exclude the file",
            error.raw_line + segment.line - 1,
            error.raw_column + 1,
        ) from None
    except RecursionError:
        raise too_deep() from None
    return Tree(path, module, spans_of(module, places, segment.line - 1))


def _blank_docstrings(statement: ast.stmt, lines: list[str]) -> None:
    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return
    first = docstring(statement.body[0])
    if first is not None and first.lineno > statement.lineno:
        lines[first.lineno - 1 : first.end_lineno] = [""] * ((first.end_lineno or first.lineno) - first.lineno + 1)
    if isinstance(statement, ast.ClassDef):
        for inner in statement.body:
            _blank_docstrings(inner, lines)


def _segment(group: list[ast.stmt], lines: list[str], code_lines: list[str]) -> Segment:
    first, last = first_line(group[0]), group[-1].end_lineno or group[-1].lineno
    names = _Names()
    names.collect(group)
    role = Role.CODE
    if len(group) == 1 and isinstance(group[0], (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        role = Role.DEFINITION
    elif all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in group):
        role = Role.IMPORT
    elif all(isinstance(statement, (ast.Assign, ast.AnnAssign)) for statement in group):
        role = Role.ASSIGNMENT
    text = "\n".join(lines[first - 1 : last]) + "\n"
    code = "\n".join(code_lines[first - 1 : last]) + "\n"
    code = text if code == text else code  # one string in memory
    imported = frozenset(names.imported - names.binds)
    binds = frozenset(names.binds | imported)
    acts = role is Role.CODE and any(_acts(statement) for statement in group)
    return Segment(first, text, code, role, binds, frozenset(names.imports), tuple(names.stars), imported, acts)


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, _INERT):
        return False
    if isinstance(statement, ast.If):
        return any(_acts(inner) for inner in (*statement.body, *statement.orelse))
    if isinstance(statement, ast.Try):
        handled = (inner for handler in statement.handlers for inner in handler.body)
        return any(_acts(inner) for inner in (*statement.body, *handled, *statement.orelse, *statement.finalbody))
    return any(isinstance(node, ast.Call) for node in ast.walk(statement))


class _Names:
    """The names that statements bind in the scope they stand in, and what they import."""

    def __init__(self) -> None:
        self.binds: set[str] = set()  # other than by an import
        self.imported: set[str] = set()
        self.imports: set[str] = set()
        self.stars: list[str] = []

    def collect(self, statements: Iterable[ast.AST]) -> None:
        stack = list(statements)[::-1]
        while stack:
            node = stack.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.binds.add(node.name)
            elif isinstance(node, ast.Import):
                self.imported.update((alias.asname or alias.name).split(".", 1)[0] for alias in node.names)
                self.imports.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                names = [alias.asname or alias.name for alias in node.names]
                self.imported.update(name for name in names if name != "*")
                self.imports.add(module)
                if "*" in names:
                    self.stars.append(module)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.binds.add(node.id)
            elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
                self._collect_owner(node)
                stack.extend(list(ast.iter_child_nodes(node))[::-1])
            elif not isinstance(node, (ast.Constant, ast.Lambda)):
                stack.extend(list(ast.iter_child_nodes(node))[::-1])

    def _collect_owner(self, node: ast.expr) -> None:
        """``settings["model"] = …`` gives ``settings`` a part of its value."""
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        if isinstance(node, ast.Name):
            self.binds.add(node.id)
