"""Saved states that the running statistics are taken out of before they are loaded."""

from __future__ import annotations

from bnlint.finding import TraceStep
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.lifecycle import Lifecycle
from bnlint.semantics.passes import merge_layers
from bnlint.semantics.project import Project
from bnlint.semantics.truth import all_of, any_of, negated
from bnlint.semantics.values import UNKNOWN, Atom, Constant, Instance, Mystery, Value, only_constant
from bnlint.source.parse import Source

_STATISTICS = ("0.running_mean", "0.running_var")
_KEPT = ("0.weight", "0.bias")


class StateDicts(Lifecycle):
    """Adds the events of ``statistics_dropped``."""

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self._without_statistics: dict[Atom, TraceStep] = {}

    def _comprehension(self, node: ir.Comprehension) -> Value:
        value = super()._comprehension(node)
        if node.kind == "dict" and _drops_statistics(node):
            step = TraceStep(self.location(None), "the running statistics are left out here")
            self._without_statistics |= dict.fromkeys(value, step)
        return value

    def _delete(self, target: ir.Expr) -> None:
        if isinstance(target, ir.Subscript) and self._is_about_statistics():
            self._take_out(self.evaluate(target.value))

    def call_mystery(self, mystery: Mystery, arguments: Arguments, node: ir.Call) -> Value:
        if mystery.name == "pop" and mystery.parent is not None and self._is_about_statistics():
            self._take_out(frozenset({mystery.parent}))
        return super().call_mystery(mystery, arguments, node)

    def _is_about_statistics(self) -> bool:
        """Whether this is run for the keys of running statistics, as the tests around tell."""
        text = "".join(words for words, came_true in self.name_tests if came_true)
        return all(name.rpartition(".")[2] in text for name in _STATISTICS)

    def _take_out(self, mapping: Value) -> None:
        """``del state[key]`` or ``state.pop(key)``."""
        step = TraceStep(self.location(None), "the running statistics are taken out here")
        self._without_statistics |= dict.fromkeys(mapping, step)

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name == "load_state_dict" and self._without_statistics:
            self._note_dropped(owner, arguments, node)
        return super().inherited_method(owner, name, arguments, node)

    def _note_dropped(self, target: Instance | Mystery, arguments: Arguments, node: ir.Call) -> None:
        state = arguments.at(0) or arguments.get("state_dict") or UNKNOWN
        strict = only_constant(arguments.at(1) or arguments.get("strict") or frozenset({Constant(True)}))
        steps = {self._without_statistics.get(atom) for atom in state}
        step = steps.pop() if len(steps) == 1 else None
        if step is None or strict != (True, False) or not self._is_discarded(node):
            return
        layers = self.mode_dependent_layers(target)[0]
        key, event = self.event(node, events.StatisticsDropped, id(target))
        if isinstance(event, events.StatisticsDropped):
            event.layers = merge_layers(event.layers, layers)
            return
        receiver = ir.dotted(node.func.value) if isinstance(node.func, ir.Attr) else None
        event = events.StatisticsDropped(self.location(node.span), receiver, target, step, layers, self.surroundings())
        self.remember(key, event)
        self.facts.statistics_dropped.append(event)


def _drops_statistics(node: ir.Comprehension) -> bool:
    """Whether a dict comprehension leaves out the keys of running statistics and not those of weights."""
    names = [name for target, _, _ in node.clauses for name in ir.nodes(target) if isinstance(name, ir.Name)]
    conditions = [condition for _, _, tests in node.clauses for condition in tests]

    def holds(key: str) -> bool | None:
        return all_of(_holds(condition, names, key) for condition in conditions)

    return all(holds(key) is False for key in _STATISTICS) and all(holds(key) is not False for key in _KEPT)


def _holds(test: ir.Expr, names: list[ir.Name], key: str) -> bool | None:
    """Whether a test holds of a key that one of the names stands for; None where that is not known."""
    match test:
        case ir.Compare(op="in" | "not in" as op, left=ir.Const(value=str(text)), right=ir.Name() as name):
            return (text in key) is (op == "in") if name in names else None
        case ir.Call(func=ir.Attr(value=ir.Name() as name, name="endswith"), args=(ir.Arg(value=given),)):
            texts = [item.value for item in ir.nodes(given) if isinstance(item, ir.Const)]
            return any(key.endswith(str(text)) for text in texts) if texts and name in names else None
        case ir.Unary(op="not", operand=operand):
            return negated(_holds(operand, names, key))
        case ir.Boolean(op=op, left=left, right=right):
            return (any_of if op == "or" else all_of)((_holds(left, names, key), _holds(right, names, key)))
        case ir.Call(func=ir.Name(id="any" | "all" as quantifier), args=(ir.Arg(value=ir.Comprehension() as each),)):
            return _holds_for_each(each, quantifier == "any", names, key)
    return None


def _holds_for_each(each: ir.Comprehension, some: bool, names: list[ir.Name], key: str) -> bool | None:
    """``any(part in key for part in ("running_mean", "running_var"))``, or ``all``."""
    match each.clauses, each.element:
        case ((ir.Name() as part, ir.Display(items=items), ()),), ir.Compare(op=op, left=left, right=right) if (
            left == part
        ):
            found = [_holds(ir.Compare(item, op, right), names, key) for item in items]
            return any_of(found) if some else all_of(found)
    return None
