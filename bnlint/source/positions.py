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
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from bnlint.source.decode import split_lines

if TYPE_CHECKING:
    import libcst as cst


_KINDS = ("call", "attribute", "number", "statement")


class Span(NamedTuple):
    """1-based lines and columns, in characters; the end column is the one after the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


#: Of ``ast``: fields that never hold a node with a place of interest, and nodes in which there is none.
_NO_NODES = frozenset(
    {"id", "attr", "name", "asname", "names", "ctx", "op", "ops", "kind", "type_comment", "level", "module", "is_async",
     "conversion", "simple", "rest", "kwd_attrs", "tag", "lineno"}
)  # fmt: skip
_LEAVES = (ast.Name, ast.Constant, ast.Import, ast.ImportFrom)
_FORMATTED = ("JoinedStr", "TemplateStr")


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


def places_of(tree: ast.Module, text: str, lines_before: int, limit: int) -> dict[str, list[Span]] | None:
    """The places of calls, attributes, numbers and statements, each in the order of the source; None for a tree deeper
    than ``limit``. ``lines_before`` are the lines of the file that stand before ``text``."""
    raw: dict[str, list[tuple[int, int, int, int]]] = {kind: [] for kind in _KINDS}
    level: list[Any] = [tree]
    for depth in range(limit):
        below: list[Any] = []
        for node in level:
            kind, names = _shape_of_ast(node.__class__)
            if names is None:
                if _deeper_than(node, limit - depth):
                    return None
                continue
            if kind is not None and (kind != "number" or _is_number(node)):
                # ``ast`` ends a tree's nodes where the source does; a negative end puts the outer of two first.
                raw[kind].append((node.lineno, node.col_offset, -node.end_lineno, -node.end_col_offset))
            for name in names:
                value = getattr(node, name)
                if value.__class__ is list:
                    below += value
                elif value is not None:
                    below.append(value)
        level = below
        if not level:
            break
    else:
        return None
    columns = _Columns(text)
    return {
        kind: [
            Span(line + lines_before, columns.of(line, start), lines_before - end_line, columns.of(-end_line, -end))
            for line, start, end_line, end in sorted(found)
        ]
        for kind, found in raw.items()
    }


def spans_of(module: cst.Module, places: dict[str, list[Span]], lines_before: int = 0) -> dict[int, Span]:
    """The place of every call, attribute, number and statement, by ``id`` of its libcst node."""
    nodes = _in_source_order(module)
    if any(len(nodes[kind]) != len(places[kind]) for kind in nodes):
        return _spans_by_libcst(module, lines_before)
    return {id(node): span for kind in nodes for node, span in zip(nodes[kind], places[kind], strict=True)}


@cache
def _shape_of_ast(kind: Any) -> tuple[str | None, tuple[str, ...] | None]:
    """What a node counts as, and its fields that may hold nodes: None for an f-string, which is not entered."""
    if not issubclass(kind, ast.AST):
        return None, ()
    if kind.__name__ in _FORMATTED:
        return None, None
    names = () if issubclass(kind, _LEAVES) else tuple(name for name in kind._fields if name not in _NO_NODES)
    classes = ((ast.Call, "call"), (ast.Attribute, "attribute"), (ast.Constant, "number"), (ast.stmt, "statement"))
    return next((name for base, name in classes if issubclass(kind, base)), None), names


def _is_number(node: ast.Constant) -> bool:
    return isinstance(node.value, (int, float, complex)) and not isinstance(node.value, bool)


def _deeper_than(tree: ast.AST, limit: int) -> bool:
    level = [tree]
    for _ in range(limit):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _in_source_order(module: cst.Module) -> dict[str, list[cst.CSTNode]]:
    found: dict[str, list[cst.CSTNode]] = {kind: [] for kind in _KINDS}
    stack: list[Any] = [module]
    while stack:
        node = stack.pop()
        kind, names = _shape_of_cst(node.__class__)
        if kind is not None:
            found[kind].append(node)
        for name in names:
            value = getattr(node, name)
            if value.__class__ is tuple or value.__class__ is list:
                stack += value[::-1]
            elif value is not None:
                stack.append(value)
    return found


@cache
def _shape_of_cst(kind: Any) -> tuple[str | None, tuple[str, ...]]:
    """What a node counts as, and its fields that may hold nodes, the last in the source first."""
    import libcst as cst

    if not issubclass(kind, cst.CSTNode):
        return None, ()
    # Dotted names in imports are attributes in libcst and plain strings in ast.
    not_entered = (cst.Import, cst.ImportFrom, cst.FormattedString, cst.TemplatedString)
    leaves = (cst.Name, cst.BaseNumber, cst.SimpleString)
    names = () if issubclass(kind, not_entered + leaves) else child_fields(kind)[::-1]
    classes = (
        (cst.Call, "call"),
        (cst.Attribute, "attribute"),
        (cst.BaseNumber, "number"),
        (cst.BaseSmallStatement, "statement"),
        (cst.BaseCompoundStatement, "statement"),
    )
    return next((name for base, name in classes if issubclass(kind, base)), None), names


class _Columns:
    """``ast`` counts columns in UTF-8 bytes from 0; everything here counts characters from 1."""

    def __init__(self, text: str) -> None:
        ascii_only = text.isascii()
        self._lines = [] if ascii_only else [line.encode() for line in split_lines(text)]

    def of(self, line: int, byte_offset: int) -> int:
        if not self._lines or self._lines[line - 1].isascii():
            return byte_offset + 1
        return len(self._lines[line - 1][:byte_offset].decode(errors="replace")) + 1


def _spans_by_libcst(module: cst.Module, before: int = 0) -> dict[int, Span]:
    from libcst.metadata import MetadataWrapper, PositionProvider

    wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
    return {
        id(node): Span(at.start.line + before, at.start.column + 1, at.end.line + before, at.end.column + 1)
        for node, at in wrapper.resolve(PositionProvider).items()
        if _shape_of_cst(type(node))[0] is not None
    }
