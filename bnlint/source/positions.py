"""Places for libcst nodes, taken from the ``ast`` tree of the same text.

libcst computes positions by generating the code again, which costs more than parsing. Both trees hold the
same calls, attributes, numbers and statements in the same order, so the n-th call of one is the n-th call of
the other. Where the counts differ (a construct on which the two libraries disagree) libcst's own positions
are used instead: slower, never wrong.

f-strings are left out on both sides: before Python 3.12 ``ast`` does not know where their parts stand.

libcst is imported only when there is something to place: it takes a while.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import libcst as cst


class Span(NamedTuple):
    """1-based lines and columns, in characters; the end column is the one after the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


@cache
def _kinds() -> tuple[tuple[str, tuple[type[cst.CSTNode], ...]], ...]:
    import libcst as cst

    return (
        ("call", (cst.Call,)),
        ("attribute", (cst.Attribute,)),
        ("number", (cst.Integer, cst.Float, cst.Imaginary)),
        ("statement", (cst.BaseSmallStatement, cst.BaseCompoundStatement)),
    )


@cache
def _in_order() -> dict[type[cst.CSTNode], tuple[str, ...]]:
    """Children in the order of the source, for the nodes whose fields stand in another order."""
    import libcst as cst

    return {
        cst.IfExp: ("body", "test", "orelse"),
        cst.FunctionDef: ("decorators", "name", "type_parameters", "params", "returns", "body"),
        cst.ClassDef: ("decorators", "name", "type_parameters", "bases", "keywords", "body"),
        cst.Parameters: ("posonly_params", "params", "star_arg", "kwonly_params", "star_kwarg"),
        cst.Arg: ("keyword", "value"),
        cst.ExceptHandler: ("type", "name", "body"),
        cst.ExceptStarHandler: ("type", "name", "body"),
        cst.MatchCase: ("pattern", "guard", "body"),
        cst.TypeAlias: ("name", "type_parameters", "value"),
    }


_NO_CHILDREN = ("lpar", "rpar", "comma", "semicolon", "equal", "operator", "leading_lines", "header", "footer")


@cache
def child_fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    """Names of the fields that hold sub-expressions and statements, in the order of the source."""
    if kind in _in_order():
        return _in_order()[kind]
    names = (field.name for field in fields(kind))
    return tuple(
        name
        for name in names
        if name not in _NO_CHILDREN and "whitespace" not in name and not name.startswith("lines_after")
    )


@cache
def _kind_of(node_type: type[cst.CSTNode]) -> str | None:
    return next((kind for kind, types in _kinds() if issubclass(node_type, types)), None)


def spans_of(module: cst.Module, tree: ast.Module, text: str, lines_before: int = 0) -> dict[int, Span]:
    """The place of every call, attribute, number and statement, by ``id`` of its libcst node.

    ``lines_before`` are the lines of the file that stand before ``text``.
    """
    nodes: dict[str, list[cst.CSTNode]] = {kind: [] for kind, _ in _kinds()}
    for node in _in_source_order(module):
        kind = _kind_of(type(node))
        if kind is not None:
            nodes[kind].append(node)
    places = _ast_places(tree, text, lines_before)
    if any(len(nodes[kind]) != len(places[kind]) for kind in nodes):
        return _spans_by_libcst(module, lines_before)
    return {id(node): span for kind in nodes for node, span in zip(nodes[kind], places[kind], strict=True)}


def _in_source_order(module: cst.Module) -> Iterator[cst.CSTNode]:
    import libcst as cst

    # Dotted names in imports are attributes in libcst and plain strings in ast.
    not_entered = (cst.Import, cst.ImportFrom, cst.FormattedString, cst.TemplatedString)
    stack: list[cst.CSTNode] = [module]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, not_entered):
            continue
        children: list[cst.CSTNode] = []
        for name in child_fields(type(node)):
            value = getattr(node, name)
            if isinstance(value, cst.CSTNode):
                children.append(value)
            elif isinstance(value, (list, tuple)):
                children.extend(child for child in value if isinstance(child, cst.CSTNode))
        stack.extend(reversed(children))


def _ast_places(tree: ast.Module, text: str, before: int) -> dict[str, list[Span]]:
    raw: dict[str, list[tuple[int, int, int, int]]] = {kind: [] for kind, _ in _kinds()}
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if type(node).__name__ in ("JoinedStr", "TemplateStr"):
            continue
        kind = _ast_kind(node)
        if kind is not None:
            raw[kind].append((node.lineno, node.col_offset, node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]
        stack.extend(ast.iter_child_nodes(node))
    columns = _Columns(text)
    places: dict[str, list[Span]] = {}
    for kind, found in raw.items():
        found.sort(key=lambda at: (at[0], at[1], -at[2], -at[3]))
        places[kind] = [
            Span(line + before, columns.of(line, column), end_line + before, columns.of(end_line, end_column))
            for line, column, end_line, end_column in found
        ]
    return places


def _ast_kind(node: ast.AST) -> str | None:
    if isinstance(node, ast.Call):
        return "call"
    if isinstance(node, ast.Attribute):
        return "attribute"
    if isinstance(node, ast.Constant):
        is_number = isinstance(node.value, (int, float, complex)) and not isinstance(node.value, bool)
        return "number" if is_number else None
    return "statement" if isinstance(node, ast.stmt) else None


class _Columns:
    """``ast`` counts columns in UTF-8 bytes from 0; everything here counts characters from 1."""

    def __init__(self, text: str) -> None:
        ascii_only = text.isascii()
        self._lines = [] if ascii_only else [line.encode() for line in _lines_as_ast_sees_them(text)]

    def of(self, line: int, byte_offset: int) -> int:
        if not self._lines or self._lines[line - 1].isascii():
            return byte_offset + 1
        return len(self._lines[line - 1][:byte_offset].decode(errors="replace")) + 1


def _lines_as_ast_sees_them(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _spans_by_libcst(module: cst.Module, before: int = 0) -> dict[int, Span]:
    from libcst.metadata import MetadataWrapper, PositionProvider

    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    return {
        id(node): Span(at.start.line + before, at.start.column + 1, at.end.line + before, at.end.column + 1)
        for node, at in wrapper.resolve(PositionProvider).items()
        if _kind_of(type(node)) is not None
    }
