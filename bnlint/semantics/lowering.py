"""libcst → IR, in one pass over the statements and expressions of a file."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import libcst as cst

from bnlint.semantics import ir
from bnlint.source.parse import Segment, Tree, tree_of
from bnlint.source.positions import Span, child_fields

_BINARY: dict[type[cst.CSTNode], str] = {
    cst.Add: "+", cst.Subtract: "-", cst.Multiply: "*", cst.Divide: "/", cst.FloorDivide: "//",
    cst.Modulo: "%", cst.Power: "**", cst.MatrixMultiply: "@", cst.BitOr: "|", cst.BitAnd: "&",
}  # fmt: skip
_AUGMENTED: dict[type[cst.CSTNode], str] = {
    cst.AddAssign: "+", cst.SubtractAssign: "-", cst.MultiplyAssign: "*", cst.DivideAssign: "/",
    cst.BitOrAssign: "|",
}  # fmt: skip
_UNARY: dict[type[cst.CSTNode], str] = {cst.Minus: "-", cst.Plus: "+", cst.Not: "not", cst.BitInvert: "~"}
_COMPARE: dict[type[cst.CSTNode], str] = {
    cst.Equal: "==", cst.NotEqual: "!=", cst.Is: "is", cst.IsNot: "is not", cst.In: "in", cst.NotIn: "not in",
    cst.LessThan: "<", cst.LessThanEqual: "<=", cst.GreaterThan: ">", cst.GreaterThanEqual: ">=",
}  # fmt: skip


def lower_segment(path: str, segment: Segment) -> tuple[ir.Stmt, ...]:
    """Raises ``FileError`` where libcst cannot parse it."""
    return lower(tree_of(path, segment))


def lower(tree: Tree) -> tuple[ir.Stmt, ...]:
    return _Lowering(tree.spans).block(tree.module.body)


class _Lowering:
    def __init__(self, spans: dict[int, Span]) -> None:
        self._spans = spans
        # Nodes in f-strings have no span of their own and take that of their statement.
        self._statement_span: Span | None = None
        self._yields = False  # whether the function that is being lowered has a yield
        self._expressions: dict[type[cst.CSTNode], Callable[[Any], ir.Expr]] = {
            cst.Name: self._name,
            cst.Attribute: self._attribute,
            cst.Call: self._call,
            cst.Integer: self._number,
            cst.Float: self._number,
            cst.SimpleString: self._string,
            cst.ConcatenatedString: self._string,
            cst.FormattedString: self._formatted,
            cst.BinaryOperation: self._binary,
            cst.UnaryOperation: self._unary,
            cst.BooleanOperation: self._boolean,
            cst.Comparison: self._comparison,
            cst.IfExp: self._if_expression,
            cst.List: lambda node: self._display("list", node.elements),
            cst.Tuple: lambda node: self._display("tuple", node.elements),
            cst.Set: lambda node: self._display("set", node.elements),
            cst.Dict: self._dict,
            cst.Subscript: self._subscript,
            cst.ListComp: lambda node: self._comprehension("list", node.elt, None, node.for_in),
            cst.SetComp: lambda node: self._comprehension("set", node.elt, None, node.for_in),
            cst.GeneratorExp: lambda node: self._comprehension("generator", node.elt, None, node.for_in),
            cst.DictComp: lambda node: self._comprehension("dict", node.value, node.key, node.for_in),
            cst.Lambda: self._lambda,
            cst.NamedExpr: lambda node: ir.Walrus(self.expr(node.target), self.expr(node.value)),
            cst.Yield: self._yield,
            cst.Await: lambda node: self.expr(node.expression),
        }
        self._statements: dict[type[cst.CSTNode], Callable[[Any, Span | None], ir.Stmt]] = {
            cst.Expr: lambda node, span: ir.ExprStmt(span, self.expr(node.value)),
            cst.Assign: self._assign,
            cst.AnnAssign: self._annotated_assign,
            cst.AugAssign: self._augmented_assign,
            cst.If: self._if,
            cst.While: lambda node, span: ir.While(
                span, self.expr(node.test), self._suite(node.body), self._orelse(node.orelse)
            ),
            cst.For: self._for,
            cst.With: self._with,
            cst.Try: self._try,
            cst.TryStar: self._try,
            cst.Match: self._match,
            cst.Return: lambda node, span: ir.Return(span, self._optional(node.value)),
            cst.Raise: lambda node, span: ir.Raise(span, (self.expr(node.exc),) if node.exc else ()),
            cst.Break: lambda node, span: ir.Jump(span, "break"),
            cst.Continue: lambda node, span: ir.Jump(span, "continue"),
            cst.Assert: lambda node, span: ir.Assert(span, self.expr(node.test)),
            cst.Del: lambda node, span: ir.Delete(span, self.expr(node.target)),
            cst.Global: lambda node, span: ir.Scope(span, "global", _names(node)),
            cst.Nonlocal: lambda node, span: ir.Scope(span, "nonlocal", _names(node)),
            cst.Import: self._import,
            cst.ImportFrom: self._import_from,
            cst.FunctionDef: self._function,
            cst.ClassDef: self._class,
        }

    # Statements

    def block(self, body: Sequence[cst.CSTNode]) -> tuple[ir.Stmt, ...]:
        statements: list[ir.Stmt] = []
        for node in body:
            small = node.body if isinstance(node, (cst.SimpleStatementLine, cst.SimpleStatementSuite)) else (node,)
            for statement in small:
                lower = self._statements.get(type(statement))
                if lower is not None:  # Pass and type aliases mean nothing here
                    outer = self._statement_span
                    self._statement_span = self._spans.get(id(statement))
                    statements.append(lower(statement, self._statement_span))
                    self._statement_span = outer
        return tuple(statements)

    def _suite(self, suite: cst.BaseSuite) -> tuple[ir.Stmt, ...]:
        return self.block([suite] if isinstance(suite, cst.SimpleStatementSuite) else suite.body)

    def _orelse(self, node: cst.Else | cst.Finally | cst.If | None) -> tuple[ir.Stmt, ...]:
        if node is None:
            return ()
        return self.block([node]) if isinstance(node, cst.If) else self._suite(node.body)

    def _assign(self, node: cst.Assign, span: Span | None) -> ir.Stmt:
        value = self.expr(node.value)
        return ir.Assign(span, tuple(self.expr(target.target) for target in node.targets), value)

    def _annotated_assign(self, node: cst.AnnAssign, span: Span | None) -> ir.Stmt:
        if node.value is None:
            return ir.ExprStmt(span, ir.Opaque())
        return ir.Assign(span, (self.expr(node.target),), self.expr(node.value))

    def _augmented_assign(self, node: cst.AugAssign, span: Span | None) -> ir.Stmt:
        op = _AUGMENTED.get(type(node.operator), "?")
        return ir.AugAssign(span, self.expr(node.target), op, self.expr(node.value))

    def _if(self, node: cst.If, span: Span | None) -> ir.Stmt:
        return ir.If(span, self.expr(node.test), self._suite(node.body), self._orelse(node.orelse))

    def _for(self, node: cst.For, span: Span | None) -> ir.Stmt:
        return ir.For(
            span, self.expr(node.target), self.expr(node.iter), self._suite(node.body), self._orelse(node.orelse)
        )

    def _with(self, node: cst.With, span: Span | None) -> ir.Stmt:
        items = tuple(
            (self.expr(item.item), self.expr(item.asname.name) if item.asname else None) for item in node.items
        )
        return ir.With(span, items, self._suite(node.body))

    def _try(self, node: cst.Try | cst.TryStar, span: Span | None) -> ir.Stmt:
        return ir.Try(
            span,
            self._suite(node.body),
            tuple(self._suite(handler.body) for handler in node.handlers),
            self._orelse(node.orelse),
            self._orelse(node.finalbody),
        )

    def _match(self, node: cst.Match, span: Span | None) -> ir.Stmt:
        branches = [self._suite(case.body) for case in node.cases]
        last = node.cases[-1] if node.cases else None
        catches_all = (
            last is not None
            and last.guard is None
            and isinstance(last.pattern, cst.MatchAs)
            and last.pattern.pattern is None
        )
        if not catches_all:
            branches.append(())
        return ir.Choice(span, self.expr(node.subject), tuple(branches))

    def _import(self, node: cst.Import, span: Span | None) -> ir.Stmt:
        bindings = []
        for alias in node.names:
            qualified = _dotted(alias.name)
            if alias.asname is not None:
                bindings.append((_dotted(alias.asname.name), qualified))
            else:
                top = qualified.split(".", 1)[0]
                bindings.append((top, top))
        return ir.Import(span, tuple(bindings))

    def _import_from(self, node: cst.ImportFrom, span: Span | None) -> ir.Stmt:
        module = "." * len(node.relative) + (_dotted(node.module) if node.module else "")
        if isinstance(node.names, cst.ImportStar):
            return ir.Import(span, (), module)
        separator = "" if module.endswith(".") else "."
        return ir.Import(
            span,
            tuple(
                (_dotted((alias.asname or alias).name), module + separator + _dotted(alias.name))
                for alias in node.names
            ),
            member=True,
        )

    def _function(self, node: cst.FunctionDef, span: Span | None) -> ir.Stmt:
        params = self._params(node.params)
        decorators = tuple(self.expr(decorator.decorator) for decorator in node.decorators)
        outer, self._yields = self._yields, False
        body = self._suite(node.body)
        generator, self._yields = self._yields, outer
        return ir.FunctionDef(span, node.name.value, params, decorators, body, generator)

    def _yield(self, node: cst.Yield) -> ir.Expr:
        self._yields = True
        return self._opaque(node)

    def _class(self, node: cst.ClassDef, span: Span | None) -> ir.Stmt:
        return ir.ClassDef(
            span,
            node.name.value,
            tuple(self.expr(base.value) for base in node.bases),
            tuple(self.expr(decorator.decorator) for decorator in node.decorators),
            self._suite(node.body),
        )

    def _params(self, node: cst.Parameters) -> tuple[ir.Param, ...]:
        def one(param: cst.Param, kind: str) -> ir.Param:
            return ir.Param(param.name.value, kind, self._optional(param.default))

        params = [one(param, "positional") for param in (*node.posonly_params, *node.params)]
        if isinstance(node.star_arg, cst.Param):
            params.append(one(node.star_arg, "*"))
        params += [one(param, "keyword") for param in node.kwonly_params]
        if node.star_kwarg is not None:
            params.append(one(node.star_kwarg, "**"))
        return tuple(params)

    # Expressions

    def expr(self, node: cst.CSTNode) -> ir.Expr:
        lower = self._expressions.get(type(node))
        return lower(node) if lower is not None else self._opaque(node)

    def _optional(self, node: cst.CSTNode | None) -> ir.Expr | None:
        return None if node is None else self.expr(node)

    def _span(self, node: cst.CSTNode) -> Span | None:
        return self._spans.get(id(node), self._statement_span)

    def _opaque(self, node: cst.CSTNode) -> ir.Expr:
        """Yield, f-strings, slices, anything new: only what happens inside matters."""
        parts: list[ir.Expr] = []
        for name in child_fields(type(node)):
            value = getattr(node, name)
            children = value if isinstance(value, (list, tuple)) else (value,)
            for child in children:
                if isinstance(child, cst.BaseExpression):
                    parts.append(self.expr(child))
                elif isinstance(child, cst.CSTNode):
                    nested = self._opaque(child)
                    parts.extend(nested.parts if isinstance(nested, ir.Opaque) else ())
        return ir.Opaque(tuple(parts))

    def _name(self, node: cst.Name) -> ir.Expr:
        constants = {"True": True, "False": False, "None": None}
        if node.value in constants:
            return ir.Const(constants[node.value])
        return ir.Name(node.value)

    def _attribute(self, node: cst.Attribute) -> ir.Expr:
        return ir.Attr(self.expr(node.value), node.attr.value, self._span(node))

    def _call(self, node: cst.Call) -> ir.Expr:
        func = self.expr(node.func)
        args = tuple(
            ir.Arg(self.expr(arg.value), arg.keyword.value if arg.keyword else None, arg.star) for arg in node.args
        )
        trailing_comma = bool(node.args) and isinstance(node.args[-1].comma, cst.Comma)
        return ir.Call(func, args, self._span(node), trailing_comma)

    def _number(self, node: cst.Integer | cst.Float) -> ir.Expr:
        return ir.Const(_literal(node.value), self._span(node))

    def _string(self, node: cst.SimpleString | cst.ConcatenatedString) -> ir.Expr:
        value = _literal(node.value) if isinstance(node, cst.SimpleString) else node.evaluated_value
        return ir.Const(value) if isinstance(value, str) else self._opaque(node)

    def _formatted(self, node: cst.FormattedString) -> ir.Expr:
        pieces: list[str | None] = []
        parts: list[ir.Expr] = []
        for part in node.parts:
            if isinstance(part, cst.FormattedStringText):
                pieces.append(part.value)
            elif isinstance(part, cst.FormattedStringExpression) and part.format_spec is None and not part.conversion:
                pieces.append(None)
                parts.append(self.expr(part.expression))
            else:
                return self._opaque(node)
        return ir.Text(tuple(parts), tuple(pieces))

    def _binary(self, node: cst.BinaryOperation) -> ir.Expr:
        # a + b + c + … nests to the left; a loop keeps long chains off the stack.
        chain: list[cst.BinaryOperation] = []
        left: cst.BaseExpression = node
        while isinstance(left, cst.BinaryOperation):
            chain.append(left)
            left = left.left
        result = self.expr(left)
        for link in reversed(chain):
            result = ir.Binary(_BINARY.get(type(link.operator), "?"), result, self.expr(link.right))
        return result

    def _unary(self, node: cst.UnaryOperation) -> ir.Expr:
        op, operand = _UNARY[type(node.operator)], self.expr(node.expression)
        number = operand.value if isinstance(operand, ir.Const) else None
        if op == "-" and isinstance(operand, ir.Const) and type(number) in (int, float):
            return ir.Const(-number, operand.span)  # type: ignore[operator]
        return ir.Unary(op, operand)

    def _boolean(self, node: cst.BooleanOperation) -> ir.Expr:
        op = "and" if isinstance(node.operator, cst.And) else "or"
        return ir.Boolean(op, self.expr(node.left), self.expr(node.right))

    def _comparison(self, node: cst.Comparison) -> ir.Expr:
        left, rest = self.expr(node.left), node.comparisons
        if len(rest) != 1:
            return ir.Opaque((left, *(self.expr(part.comparator) for part in rest)))
        op = _COMPARE.get(type(rest[0].operator), "?")
        return ir.Compare(left, op, self.expr(rest[0].comparator))

    def _if_expression(self, node: cst.IfExp) -> ir.Expr:
        return ir.IfElse(self.expr(node.test), self.expr(node.body), self.expr(node.orelse))

    def _display(self, kind: str, elements: Sequence[cst.BaseElement]) -> ir.Expr:
        return ir.Display(
            kind,
            tuple(self.expr(element.value) for element in elements),
            tuple(isinstance(element, cst.StarredElement) for element in elements),
        )

    def _dict(self, node: cst.Dict) -> ir.Expr:
        return ir.DictDisplay(
            tuple(
                (self.expr(item.key) if isinstance(item, cst.DictElement) else None, self.expr(item.value))
                for item in node.elements
            )
        )

    def _subscript(self, node: cst.Subscript) -> ir.Expr:
        value = self.expr(node.value)
        if len(node.slice) == 1 and isinstance(node.slice[0].slice, cst.Index):
            return ir.Subscript(value, self.expr(node.slice[0].slice.value))
        if len(node.slice) == 1 and isinstance(inner := node.slice[0].slice, cst.Slice):
            bounds = (self._optional(inner.lower), self._optional(inner.upper), self._optional(inner.step))
            return ir.Subscript(value, ir.Slice(tuple(bound for bound in bounds if bound is not None), bounds))
        return ir.Subscript(value, ir.Opaque(tuple(self._opaque(element) for element in node.slice)))

    def _comprehension(
        self, kind: str, element: cst.BaseExpression, key: cst.BaseExpression | None, for_in: cst.CompFor
    ) -> ir.Expr:
        clauses = []
        clause: cst.CompFor | None = for_in
        while clause is not None:
            conditions = tuple(self.expr(condition.test) for condition in clause.ifs)
            clauses.append((self.expr(clause.target), self.expr(clause.iter), conditions))
            clause = clause.inner_for_in
        return ir.Comprehension(kind, self.expr(element), self._optional(key), tuple(clauses))

    def _lambda(self, node: cst.Lambda) -> ir.Expr:
        span = self._statement_span
        body = (ir.Return(span, self.expr(node.body)),)
        return ir.Lambda(ir.FunctionDef(span, "<lambda>", self._params(node.params), (), body))


def _names(node: cst.Global | cst.Nonlocal) -> tuple[str, ...]:
    return tuple(item.name.value for item in node.names)


def _dotted(node: cst.CSTNode) -> str:
    if isinstance(node, cst.Attribute):
        return f"{_dotted(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else ""


@lru_cache(maxsize=2_000)
def _literal(text: str) -> Any:
    """The value of a number or string; the same few stand everywhere, and each takes a parser."""
    return ast.literal_eval(text)
