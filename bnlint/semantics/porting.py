"""Code that carries BatchNorm layers from one framework to another: what it reads of a layer, and where that goes."""

from __future__ import annotations

import re

from bnlint.frameworks.layers import LAYERS, WEIGHTS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.calls import Calls
from bnlint.semantics.project import Project
from bnlint.semantics.values import NOTHING, Atom, Instance, Part, Trait, Value
from bnlint.source.parse import Source

_KERAS_IMPORTS = frozenset({"keras", "tensorflow", "tf_keras", "tf_slim"})
_READ_BY_CALL = {"get_weights": "weights", "get_config": "config"}
_WORD = re.compile(r"[a-z]+|[A-Z][a-z]*")


class Porting(Calls):
    """Adds the events of ``weights_ordered`` and ``variances_carried``, and ``Trait`` values where both frameworks are
    imported."""

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self._ports = "torch" in source.imports and not _KERAS_IMPORTS.isdisjoint(source.imports)

    # What is read of a layer

    def _attribute(self, node: ir.Attr) -> Value:
        if self._ports:
            kind = self.narrowed.get(ir.dotted(node.value) or "", "")
            if kind in LAYERS and (name := _trait_of(kind, node.name)):
                return frozenset({Trait(kind, name)})
        return super()._attribute(node)

    def attribute_of(self, atom: Atom, name: str, node: ir.Expr) -> Value:
        if self._ports:
            kinds = atom.kinds if isinstance(atom, Part) else {atom.kind} if isinstance(atom, Instance) else frozenset()
            kind = min(kinds, default="")
            if kind in LAYERS and (trait := _trait_of(kind, name)):
                return frozenset({Trait(kind, trait, atom if isinstance(atom, Instance) else None)})
            if isinstance(atom, Trait):  # ``.data``, ``.numpy()``, ``.items()``
                return frozenset({atom})
        return super().attribute_of(atom, name, node)

    def _subscript(self, node: ir.Subscript) -> Value:
        if self._ports and _may_be_trait(node.value):
            traits = [atom for atom in self.evaluate(node.value) if isinstance(atom, Trait)]
            if len(traits) == 1:
                return frozenset({_entry(traits[0], node.index)})
        return super()._subscript(node)

    def _call_atom(self, atom: Atom, arguments: Arguments, node: ir.Call) -> Value:
        if isinstance(atom, Trait):
            if isinstance(node.func, ir.Attr) and node.func.name in ("copy_", "assign", "set_", "fill_"):
                self._carried(frozenset({atom}), arguments.at(0) or NOTHING, node)
            return frozenset({atom})
        return super()._call_atom(atom, arguments, node)

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        found = super().call_library(name, arguments, node)
        if self._ports and name not in LAYERS:
            traits = frozenset(atom for atom in arguments.at(0) or NOTHING if isinstance(atom, Trait))
            if traits and not any(isinstance(atom, Instance) for atom in found):
                return traits  # ``torch.from_numpy(weight)``, ``float(momentum)``
        return found

    # Where it goes

    def assign_target(self, target: ir.Expr, value: Value) -> None:
        match target:
            case ir.Attr(name="eps" | "epsilon"):
                self.facts.sets_eps = True
            case ir.Attr() if self._ports and any(isinstance(atom, Trait) for atom in value):
                self._carried(self.evaluate(target), value, target)
            case ir.Display(items=items) if len(items) == 4 and isinstance(self.statement, ir.Assign):
                read = self.statement.value
                if isinstance(read, ir.Call) and isinstance(read.func, ir.Attr) and read.func.name == "get_weights":
                    self._ordered(read, items, False, self.evaluate(read.func.value))
        super().assign_target(target, value)

    def _unpacked(self, value: Value, position: int, count: int) -> Value:
        traits = [atom for atom in value if isinstance(atom, Trait)]
        if len(traits) == len(value) == 1:
            return frozenset({_entry(traits[0], ir.Const(position))})
        return super()._unpacked(value, position, count)

    def call(self, node: ir.Call) -> Value:
        if isinstance(node.func, ir.Attr) and node.func.name == "set_weights" and len(node.args) == 1:
            given = node.args[0].value
            if isinstance(given, ir.Display) and len(given.items) == 4 and not any(given.starred):
                target = self.evaluate(node.func.value)
                self._ordered(node, given.items, True, target)
                if self._ports:
                    self._carried_to(target, self.evaluate(given.items[3]), node)
        return super().call(node)

    def _ordered(self, node: ir.Call, items: tuple[ir.Expr, ...], sets: bool, target: Value) -> None:
        key, event = self.event(node, events.WeightsOrdered)
        if event is None:
            owners = [atom for atom in target if isinstance(atom, Instance)]
            words = tuple(_words_of(item) for item in items)
            owner = owners[0] if len(owners) == len(target) == 1 else None
            event = events.WeightsOrdered(self.location(node.span), sets, words, owner, self.surroundings())
            self.remember(key, event)
            self.facts.weights_ordered.append(event)

    def _carried(self, written: Value, value: Value, node: ir.Call | ir.Attr) -> None:
        for atom in written:
            if isinstance(atom, Trait) and atom.owner is not None and _is_variance(atom):
                self._carried_to(frozenset({atom.owner}), value, node)

    def _carried_to(self, target: Value, value: Value, node: ir.Call | ir.Attr) -> None:
        sources = [atom for atom in value if isinstance(atom, Trait) and _is_variance(atom)]
        for layer in target:
            if isinstance(layer, Instance) and len(sources) == 1 and len(target) == 1:
                key, event = self.event(node, events.VarianceCarried)
                if event is None:
                    at, where = self.location(node.span), self.surroundings()
                    event = events.VarianceCarried(at, sources[0], layer, where)
                    self.remember(key, event)
                    self.facts.variances_carried.append(event)


def _may_be_trait(node: ir.Expr) -> bool:
    """Whether this can be all weights of a layer, and be evaluated once more without effects."""
    if isinstance(node, ir.Call):
        return isinstance(node.func, ir.Attr) and node.func.name in _READ_BY_CALL
    return isinstance(node, (ir.Name, ir.Attr))


def _trait_of(kind: str, name: str) -> str:
    """What an attribute of this name says of a BatchNorm layer; '' if nothing."""
    facts = LAYERS[kind]
    if facts.kind != "batchnorm":
        return ""
    if name in (facts.momentum, facts.eps, *WEIGHTS[facts.framework]):
        return "momentum" if name == facts.momentum else "eps" if name == facts.eps else name
    return _READ_BY_CALL.get(name, "") if facts.framework == "keras" else ""


def _entry(trait: Trait, index: ir.Expr) -> Trait:
    """``layer.get_weights()[3]``, ``layer.get_config()["momentum"]``."""
    key = index.value if isinstance(index, ir.Const) else None
    facts = LAYERS[trait.kind]
    if trait.name == "config":
        name = "momentum" if key == facts.momentum else "eps" if key == facts.eps else "entry"
        return Trait(trait.kind, name, trait.owner)
    if trait.name == "weights":
        names = WEIGHTS[facts.framework]
        return Trait(trait.kind, names[key] if isinstance(key, int) and -4 <= key < 4 else "entry", trait.owner)
    return trait


def _is_variance(trait: Trait) -> bool:
    return trait.name == WEIGHTS[LAYERS[trait.kind].framework][3]


def _words_of(node: ir.Expr) -> frozenset[str]:
    """The words that say which weight an expression is: those of ``running_mean`` in
    ``state[prefix + ".running_mean"].numpy()`` and in ``np.array(bn.running_mean)``."""
    match node:
        case ir.Const(value=str() as text):
            return _split(text)
        case ir.Name(id=name):
            return _split(name)
        case ir.Attr(value=value, name=name):
            return _split(name) | _words_of(value) if isinstance(value, ir.Attr | ir.Call) else _split(name)
        case ir.Subscript(value=value, index=index):
            return _words_of(index) or _words_of(value)
        case ir.Call(func=func, args=args):
            inner = frozenset(word for arg in args for word in _words_of(arg.value))
            return inner | (_words_of(func.value) if isinstance(func, ir.Attr) else frozenset())
        case ir.Binary(op="+", left=left, right=right):
            return _words_of(right) | _words_of(left)
        case ir.Text(pieces=pieces):
            return frozenset(word for piece in pieces if piece is not None for word in _split(piece))
    return frozenset()


def _split(name: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(name))
