"""The intermediate representation: a file reduced to what the analysis reads.

Small, immutable and free of libcst, so that the expensive tree can be dropped after one pass and the result
can be stored. Anything that means nothing to the analysis becomes ``Opaque``, which keeps its parts, since a
call inside it still happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnlint.source.positions import Span


@dataclass(frozen=True, slots=True)
class Expr:
    pass


@dataclass(frozen=True, slots=True)
class Const(Expr):
    value: bool | int | float | str | None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Name(Expr):
    id: str


@dataclass(frozen=True, slots=True)
class Attr(Expr):
    value: Expr
    name: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class Arg:
    """``star`` is ``""``, ``"*"`` or ``"**"``; ``keyword`` is None for a positional argument."""

    value: Expr
    keyword: str | None = None
    star: str = ""


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """``trailing_comma`` tells whether an argument appended to the call needs a comma of its own."""

    func: Expr
    args: tuple[Arg, ...]
    span: Span | None
    trailing_comma: bool = False


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """Arithmetic, by the operator's sign."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Boolean(Expr):
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Compare(Expr):
    left: Expr
    op: str
    right: Expr


@dataclass(frozen=True, slots=True)
class IfElse(Expr):
    test: Expr
    body: Expr
    orelse: Expr


@dataclass(frozen=True, slots=True)
class Display(Expr):
    """A list, tuple or set written out; ``starred`` tells which items are unpacked."""

    kind: str
    items: tuple[Expr, ...]
    starred: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class DictDisplay(Expr):
    """``None`` as a key stands for ``**value``."""

    items: tuple[tuple[Expr | None, Expr], ...]


@dataclass(frozen=True, slots=True)
class Subscript(Expr):
    value: Expr
    index: Expr


@dataclass(frozen=True, slots=True)
class Comprehension(Expr):
    """``clauses`` are (target, iterable, conditions); ``key`` is set for a dict comprehension."""

    kind: str
    element: Expr
    key: Expr | None
    clauses: tuple[tuple[Expr, Expr, tuple[Expr, ...]], ...]


@dataclass(frozen=True, slots=True)
class Lambda(Expr):
    function: FunctionDef


@dataclass(frozen=True, slots=True)
class Walrus(Expr):
    target: Expr
    value: Expr


@dataclass(frozen=True, slots=True)
class Opaque(Expr):
    parts: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Text(Opaque):
    """An f-string: its constant pieces, with None for each of the ``parts``."""

    pieces: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice(Opaque):
    """``lower:upper:step``."""

    bounds: tuple[Expr | None, Expr | None, Expr | None] = (None, None, None)


@dataclass(frozen=True, slots=True)
class Stmt:
    span: Span | None


@dataclass(frozen=True, slots=True)
class ExprStmt(Stmt):
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign(Stmt):
    targets: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class AugAssign(Stmt):
    target: Expr
    op: str
    value: Expr


@dataclass(frozen=True, slots=True)
class If(Stmt):
    test: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class While(Stmt):
    test: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class For(Stmt):
    target: Expr
    iterable: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class With(Stmt):
    items: tuple[tuple[Expr, Expr | None], ...]
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Try(Stmt):
    body: tuple[Stmt, ...]
    handlers: tuple[tuple[Stmt, ...], ...]
    orelse: tuple[Stmt, ...]
    finalbody: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Choice(Stmt):
    """``match``: one of the branches runs; the last one is empty unless a case always matches."""

    subject: Expr
    branches: tuple[tuple[Stmt, ...], ...]


@dataclass(frozen=True, slots=True)
class Return(Stmt):
    value: Expr | None


@dataclass(frozen=True, slots=True)
class Raise(Stmt):
    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Jump(Stmt):
    """``break`` or ``continue``."""

    kind: str


@dataclass(frozen=True, slots=True)
class Assert(Stmt):
    test: Expr


@dataclass(frozen=True, slots=True)
class Delete(Stmt):
    target: Expr


@dataclass(frozen=True, slots=True)
class Scope(Stmt):
    """``global`` or ``nonlocal``."""

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Import(Stmt):
    """``bindings`` are (local name, qualified name); ``star`` is the module of a star import.

    Relative imports keep their leading dots, so that they never equal a framework's name. ``member`` tells that
    each qualified name ends in what is taken out of a module (``from … import``).
    """

    bindings: tuple[tuple[str, str], ...]
    star: str | None = None
    member: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    """``kind`` is ``positional``, ``keyword`` (only), ``*`` or ``**``."""

    name: str
    kind: str
    default: Expr | None


@dataclass(frozen=True, slots=True)
class FunctionDef(Stmt):
    name: str
    params: tuple[Param, ...]
    decorators: tuple[Expr, ...]
    body: tuple[Stmt, ...]
    generator: bool = False


@dataclass(frozen=True, slots=True)
class ClassDef(Stmt):
    name: str
    bases: tuple[Expr, ...]
    decorators: tuple[Expr, ...]
    body: tuple[Stmt, ...]


def dotted(expr: Expr) -> str | None:
    """``self.net`` for the expression ``self.net``; None for anything but names and attributes."""
    names: list[str] = []
    while isinstance(expr, Attr):
        names.append(expr.name)
        expr = expr.value
    if not isinstance(expr, Name):
        return None
    return ".".join([expr.id, *reversed(names)])


def called_name(call: Call) -> str:
    """The last name of what is called; empty where that has none."""
    func = call.func
    return func.name if isinstance(func, Attr) else func.id if isinstance(func, Name) else ""


def nodes(tree: object, *, nested: bool = True) -> Iterator[Expr | Stmt | Arg | Param]:
    """All nodes of a tree, in its order; those of functions defined in it only if ``nested``."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, (Expr, Stmt, Arg, Param)):
            yield node
            if not nested and isinstance(node, (FunctionDef, Lambda)):
                continue
            stack += reversed([getattr(node, name) for name in node.__match_args__])
        elif isinstance(node, tuple) and not isinstance(node, Span):
            stack += reversed(node)
