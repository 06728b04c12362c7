"""The places that ast lends to libcst's nodes are those that libcst would compute."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path

import libcst as cst
import pytest

from bnlint.source import positions
from bnlint.source.positions import Span, places_of, spans_of

NASTY = """
    # -*- coding: utf-8 -*-
    import os.path, a.b as c
    from .x import (y,
        z)
    größe = f(1)(2).g(3.5)[h(4)] if p() else -q(0x10, 1_000, 2j)
    s = f"{call(x)!r:{width()}}" + "ä" + g("ü", k.l)
    @deco(1)
    @other.deco
    def fun(a: T(1) = d(2), *args: U.v, b=w(3), **kw) -> R(4):
    \tif m(): return n(), o()
    \telif r(): pass
    class C(B.a, metaclass=M(5), **k()):
        x: int = 1; y = 2
    async def co():
        async with open(1) as self.f, g():
            return [await i(j) async for j in k(l) if m(j)]
    lam = lambda x=q(1): r(x) < s(2) < t(3)
    match u(1):
        case V.w | 3 | K(a=4) if x(2): y(3)
        case _: z(4)
    (((deep)).attr)(
        *args,
        key=value.attr,
    )
    del a.b, c[d(1)]
"""


def spans(module: cst.Module, text: str) -> dict[int, Span]:
    places = places_of(ast.parse(text), text, 0, 1_000)
    assert places is not None
    return spans_of(module, places)


def agree(text: str) -> int:
    """How many nodes both give a place; fails where two differ."""
    module = cst.parse_module(text)
    ours = spans(module, text)
    theirs = positions._spans_by_libcst(module)
    for kind, nodes in positions._in_source_order(module).items():
        for node in nodes:
            kept = 2 if kind == "statement" else 4  # libcst ends a statement elsewhere
            assert ours[id(node)][:kept] == theirs[id(node)][:kept], module.code_for_node(node)
    return len(ours)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_nasty_cases(newline: str) -> None:
    assert agree(textwrap.dedent(NASTY).replace("\n", newline)) > 60


@pytest.mark.parametrize("module", [inspect, json.decoder, textwrap, ast])
def test_files_of_the_standard_library(module: object) -> None:
    assert agree(Path(inspect.getfile(module)).read_text("utf-8")) > 100  # type: ignore[arg-type]


def test_the_projects_own_files() -> None:
    files = sorted((Path(__file__).parents[1] / "bnlint" / "semantics").glob("*.py"))
    assert sum(agree(path.read_text("utf-8")) for path in files) > 1000


def test_libcst_steps_in_where_the_two_trees_differ() -> None:
    text = "a = f(g(1))\n"
    module = cst.parse_module(text)
    places: dict[str, list[Span]] = {kind: [] for kind in ("call", "attribute", "number", "statement")}
    call = cst.ensure_type(
        cst.ensure_type(cst.ensure_type(module.body[0], cst.SimpleStatementLine).body[0], cst.Assign).value, cst.Call
    )
    assert spans_of(module, places)[id(call)] == Span(1, 5, 1, 12)


def test_columns_count_characters() -> None:
    text = "größe = 'ü' + f(1)\n"
    assert Span(1, 15, 1, 19) in spans(cst.parse_module(text), text).values()


@pytest.mark.parametrize(
    ("text", "depth"), [("x = 1", 4), ("x = f(g(1))", 6), ("x = f'{a + (b + c)}'", 7), ("def f(*, a, b=1): {**a}", 5)]
)
def test_how_deep_a_tree_is(text: str, depth: int) -> None:
    tree = ast.parse(text)
    limits = [limit for limit in range(20) if places_of(tree, text, 0, limit) is not None]
    assert limits[0] in (depth - 1, depth, depth + 1)
    assert limits == list(range(limits[0], 20))
