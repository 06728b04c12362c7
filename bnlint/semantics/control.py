"""Branches, loops, ``with`` and ``try``: where the state is copied and joined again."""

from __future__ import annotations

from collections.abc import Sequence

from bnlint.finding import TraceStep
from bnlint.frameworks import functions as known
from bnlint.frameworks.tf1 import CONTROL_DEPENDENCIES
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import names_in
from bnlint.semantics.frames import Context
from bnlint.semantics.project import Project
from bnlint.semantics.state import Guards, State, join_all
from bnlint.semantics.tests import Tests, words_tested
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Defaults,
    Function,
    Ref,
    Tape,
    Tuple,
    Value,
    instances,
    join,
    only_constant,
)
from bnlint.source.parse import Source

_MOST_UNROLLED = 4
_MAX_TURNS = 4  # of a loop; the modes of an object can change only twice before they are joined


class Control(Tests):
    """Adds the statements that hold others."""

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self.breaks: list[list[State]] = []  # of the loops around, the states that leave them
        self.continues: list[list[State]] = []

    def _branches(
        self,
        bodies: list[tuple[ir.Stmt, ...]],
        narrowed_names: Sequence[dict[str, Value]] = (),
        guards: Sequence[Guards] = (),
        words: str = "",
    ) -> None:
        before, after, name_tests = self.state, [], self.name_tests
        for position, body in enumerate(bodies):
            assert before is not None
            self.spend(1)
            self.state = before.copy() if position < len(bodies) - 1 else before
            if guards:
                self.state.guards |= guards[position]
            self.name_tests = (*name_tests, (words, position == 0)) if words else name_tests
            for name, value in narrowed_names[position].items() if narrowed_names else ():
                self.bind(name, value)
            self.run_block(body)
            if self.state is not None:
                after.append(self.state)
        self.name_tests = name_tests
        self.state = join_all(after)

    def _if(self, node: ir.If) -> None:
        assert self.state is not None
        value = self.evaluate(node.test)
        truth = self.truth_on_this_path(node.test, value)
        if truth is not None:
            asked = self.asked
            self.asked = truth and any("train" in name.lower() for name in names_in(node.test))
            self.run_block(node.body if truth else node.orelse)
            self.asked = asked
            return
        narrowed = self.narrowed
        self.narrowed = {**narrowed, **self.narrowing(node.test)}
        parts = self.narrowed_parts(node.test)
        same, other = self.alternatives_of(node.test)
        if parts and isinstance(node.test, (ir.Call, ir.Compare)):
            self._run_for_parts(node, parts)
        else:
            guards, words = self.guards_of(node.test), words_tested(node.test)
            self._branches([node.body, node.orelse], [{**same, **parts}, other], guards, words)
        self.narrowed = narrowed
        self.after_restoring(value)

    def _run_for_parts(self, node: ir.If, parts: dict[str, Value]) -> None:
        """``for m in net.modules(): if isinstance(m, nn.Dropout): …``: the loop comes to both sides of the test."""
        assert self.state is not None
        before = self.state.copy()
        whole = {name: self.lookup(name) or UNKNOWN for name in parts}
        for names, body in ((parts, node.body), (whole, node.orelse)):
            for name, value in names.items():
                self.bind(name, value)
            self.run_block(body)
            if self.state is None:
                self.state = before.copy()

    def _while(self, node: ir.While) -> None:
        forever = self.truth(self.evaluate(node.test))
        if forever is False:
            self.run_block(node.orelse)
            return
        self._loop(node, node.body, frozenset(names_in(node.test)), None, None, leaves_only_by_break=forever is True)
        self.run_block(node.orelse)

    def _sequence(self, node: ir.Expr) -> list[Value] | None:
        """The items of a loop over a few constants that are written out: the turns are run one after another."""
        if isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id in ("list", "tuple"):
            node = node.args[0].value if len(node.args) == 1 else node
        if isinstance(node, ir.Display) and not any(node.starred):
            items = [self.evaluate(item) for item in node.items]
        else:
            value = self.evaluate(node) if isinstance(node, (ir.Name, ir.Attr)) else NOTHING
            tuples = [atom for atom in value if isinstance(atom, Tuple)]
            if len(tuples) != 1 or len(value) != 1:
                return None
            items = list(tuples[0].items)
        if 0 < len(items) <= _MOST_UNROLLED and all(only_constant(item)[0] for item in items):
            return items
        return None

    def _unrolled(self, node: ir.For, items: list[Value], reads: frozenset[str]) -> None:
        left: list[State] = []
        loops = self.loops
        self.loops = (*loops, events.Loop(self.location(node.span), reads))
        for item in items:
            if self.state is None:
                break
            self.breaks.append([])
            self.continues.append([])
            self.assign_target(node.target, item)
            self.run_block(node.body)
            turns_end = self.continues.pop() + ([self.state] if self.state is not None else [])
            left += self.breaks.pop()
            self.state = join_all(turns_end)
        self.loops = loops
        self.state = join_all(left + ([self.state] if self.state is not None else []))

    def _loop(
        self,
        node: ir.Stmt,
        body: tuple[ir.Stmt, ...],
        reads: frozenset[str],
        element: object,
        target: ir.Expr | None,
        leaves_only_by_break: bool = False,
    ) -> None:
        assert self.state is not None
        loops, entry, left = self.loops, self.state, []
        self.loops = (*loops, events.Loop(self.location(node.span), reads))
        end: State | None = None
        for _ in range(_MAX_TURNS):
            self.spend(1)
            self.breaks.append([])
            self.continues.append([])
            self.state = entry.copy()
            if target is not None and callable(element):
                self.assign_target(target, element())
            self.run_block(body)
            turns_end = self.continues.pop() + ([self.state] if self.state is not None else [])
            left += self.breaks.pop()
            end = join_all(turns_end)
            if end is None:
                break
            again = entry.copy().join(end.copy())
            if again.slots.equals(entry.slots) and again.modes.equals(entry.modes):
                break
            entry = again
        self.loops = loops
        generator = self.frame.function is not None and self.frame.function.node.generator
        if end is not None and (not leaves_only_by_break or (generator and not left)):
            left.append(end)  # whoever reads an endless generator stops reading it at some point
        elif end is not None and not left:
            self.before_raise = end
        self.state = join_all(left)

    def _with(self, node: ir.With) -> None:
        contexts, block = self.contexts, self.block
        self.block = self.block if self.block is not None else node.span
        managers: list[tuple[ir.Expr, Value]] = []
        for item, target in node.items:
            value = self.evaluate(item)
            self._enter_context(item, value)
            managers.append((item, value))
            entered = self._call_special("__enter__", item, value)
            if target is not None:
                self.assign_target(target, value if any(isinstance(a, (Tape, Defaults)) for a in value) else entered)
        self.run_block(node.body)
        for item, value in reversed(managers):
            self._call_special("__exit__", item, value)
        self.contexts, self.block = contexts, block

    def _call_special(self, name: str, node: ir.Expr, managers: Value) -> Value:
        """Enter or leave context managers of this file's classes; others are known by what built them."""
        found: Value = NOTHING
        for manager in instances(managers):
            if self.state is None or manager.cls is None:
                continue
            for method in manager.cls.lookup(name) or ():
                if isinstance(method, Function):
                    found = join(found, self.call_method(method, manager, node))
            if manager.cls.has_unknown_base:
                self.forget_modes(frozenset({manager}))
        return found or UNKNOWN

    def _enter_context(self, item: ir.Expr, value: Value) -> None:
        callee = self.evaluate(item.func) if isinstance(item, ir.Call) else NOTHING
        names = {atom.name for atom in callee if isinstance(atom, Ref)}
        at = self.location(item.span if isinstance(item, ir.Call) else None)
        text = next(iter(names), "")
        if names and names <= known.NO_GRAD:
            self.contexts = (*self.contexts, Context("no_grad", TraceStep(at, f"run under {text} here")))
        elif names & known.ENABLE_GRAD:
            self.contexts = (*self.contexts, Context("grad", TraceStep(at, "gradients on again here")))
        elif names == {known.SET_GRAD} and isinstance(item, ir.Call) and item.args:
            truth = self.truth(self.evaluate(item.args[0].value))
            kind = "no_grad" if truth is False else "grad"
            self.contexts = (*self.contexts, Context(kind, TraceStep(at, "gradients switched off here")))
        elif any(isinstance(atom, Tape) for atom in value):
            self.contexts = (*self.contexts, Context("tape", TraceStep(at, "recorded by this tape")))
        else:
            if names & CONTROL_DEPENDENCIES:
                value = self.evaluate(item.args[0].value) if isinstance(item, ir.Call) and item.args else NOTHING
            self.enter_graph_context(names, value, TraceStep(at, "here"))

    def _try(self, node: ir.Try) -> None:
        assert self.state is not None
        before = self.state.copy()
        left = len(self.frame.returned)
        self.run_block(node.body)
        finished = self.state
        # An exception may come at any point of the body: before it, after it, and after what it raised itself.
        thrown = before if finished is None else before.join(finished.copy())
        after = []
        if finished is not None:
            self.state = finished
            self.run_block(node.orelse)
            if self.state is not None:
                after.append(self.state)
        for handler in node.handlers:
            self.state = thrown.copy()
            self.run_block(handler)
            if self.state is not None:
                after.append(self.state)
        if node.finalbody:  # it runs on the way out, too
            for position in range(left, len(self.frame.returned)):
                self.state, value = self.frame.returned[position]
                self.run_block(node.finalbody)
                if self.state is not None:
                    self.frame.returned[position] = (self.state, value)
        self.state = join_all(after)
        if self.state is not None:
            self.run_block(node.finalbody)
