"""Functions that drop or normalise without a mode of their own, called by the methods of modules."""

from __future__ import annotations

from bnlint.frameworks.functional import FUNCTIONS, FunctionFacts
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.ir import nodes
from bnlint.semantics.names import span_of
from bnlint.semantics.structure import Structure
from bnlint.semantics.values import Function, Value, join
from bnlint.source.positions import Span


class Functional(Structure):
    """Adds the events of ``functional_calls``."""

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in FUNCTIONS:
            self._note_functional(FUNCTIONS[name], arguments, node)
        return super().call_library(name, arguments, node)

    def _note_functional(self, facts: FunctionFacts, arguments: Arguments, node: ir.Call) -> None:
        function, receiver = self.frame.function, self.frame.receiver
        owner = function.owner if function is not None else None
        if function is None or receiver is None or owner is None or receiver.framework != "torch":
            return
        if owner.location.path != self.root.source.path or node.span is None:
            return
        given, sources = arguments.bound(facts.parameters), arguments.bound_nodes(facts.parameters)
        key, event = self.event(node, events.FunctionalCall)
        if isinstance(event, events.FunctionalCall):
            for name, value in given.items():
                event.arguments[name] = join(event.arguments.get(name, value), value)
            return
        where = self.surroundings()
        at = self.location(node.span)
        rate = sources.get(facts.rate)
        rate_span = span_of(rate) if rate is not None else None
        event = events.FunctionalCall(
            location=at,
            function=facts.name,
            arguments=given,
            written={name: ir.dotted(source) for name, source in sources.items()},
            cls=receiver.cls or owner,
            itself=function.node.params[0].name if function.node.params else "",
            conditions=self._conditions(at, where),
            rate_names=_origins(rate, function) if rate is not None else frozenset(),
            where=where,
            edge=self._edge(node),
            needs_comma=bool(node.args) and not node.trailing_comma,
            rate_end=self.location(_end(rate_span)) if rate_span is not None else None,
        )
        self.remember(key, event)
        self.facts.functional_calls.append(event)


def _origins(node: ir.Expr, function: Function) -> frozenset[str]:
    """The names that decide what an expression is, through the local names in it: those in what is assigned to these,
    and in the tests around that."""
    found: set[str] = set()
    followed: set[str] = set()
    pending: list[ir.Expr] = [node]
    while pending:
        inside = list(nodes(pending.pop()))
        found.update(one.name for one in inside if isinstance(one, ir.Attr))
        local = {one.id for one in inside if isinstance(one, ir.Name)} - followed
        found |= local
        followed |= local
        for name in local:
            pending += _assigned_from(name, function.node.body)
    return frozenset(found)


def _assigned_from(name: str, body: tuple[ir.Stmt, ...]) -> list[ir.Expr]:
    """What is assigned to a name, and the tests that decide whether it is."""
    found: list[ir.Expr] = []
    for statement in nodes(body):
        if isinstance(statement, ir.Assign) and ir.Name(name) in statement.targets:
            found.append(statement.value)
        elif isinstance(statement, ir.If):
            inside = nodes((statement.body, statement.orelse))
            if any(isinstance(one, ir.Assign) and ir.Name(name) in one.targets for one in inside):
                found.append(statement.test)
    return found


def _end(span: Span) -> Span:
    return Span(span.end_line, span.end_column, span.end_line, span.end_column)
