"""The arguments of a call, evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from bnlint.semantics import ir
from bnlint.semantics.values import NOTHING, UNKNOWN, Value


@dataclass(frozen=True)
class Arguments:
    """Evaluated arguments. ``spread`` tells that ``*`` or ``**`` may have passed more than is listed,
    ``doubtful`` what only some paths pass."""

    positional: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()
    positional_nodes: tuple[ir.Expr, ...] = ()
    keyword_nodes: tuple[tuple[str, ir.Expr], ...] = ()
    spread: Value = NOTHING
    doubtful: Value = NOTHING

    def get(self, name: str) -> Value | None:
        return next((value for keyword, value in self.keywords if keyword == name), None)

    def at(self, position: int) -> Value | None:
        return self.positional[position] if position < len(self.positional) else None

    def bound(self, parameters: tuple[str, ...]) -> dict[str, Value]:
        """The arguments by name; a parameter that is not listed is unknown where a spread may have passed it."""
        bound = {**dict(zip(parameters, self.positional, strict=False)), **dict(self.keywords)}
        if self.spread:
            bound.update({name: UNKNOWN for name in parameters if name not in bound})
        return bound

    def bound_nodes(self, parameters: tuple[str, ...]) -> dict[str, ir.Expr]:
        """What is written for the arguments, by name."""
        return {**dict(zip(parameters, self.positional_nodes, strict=False)), **dict(self.keyword_nodes)}

    def everything(self) -> Value:
        found: Value = self.spread
        for value in (*self.positional, *(value for _, value in self.keywords)):
            found |= value
        return found


NONE_GIVEN = Arguments()


def names_in(node: ir.Expr) -> list[str]:
    """The names and attribute names that an expression reads."""
    match node:
        case ir.Name(id=name):
            return [name]
        case ir.Attr(value=value, name=name):
            return [*names_in(value), name]
        case ir.Call(func=func, args=args):
            return [*names_in(func), *(name for arg in args for name in names_in(arg.value))]
        case ir.Subscript(value=value, index=index):
            key = [index.value] if isinstance(index, ir.Const) and isinstance(index.value, str) else []
            return [*names_in(value), *key]
        case ir.Binary(left=left, right=right):
            return [*names_in(left), *names_in(right)]
        case ir.Display(items=items):
            return [name for item in items for name in names_in(item)]
    return []
