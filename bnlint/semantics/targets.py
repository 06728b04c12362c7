"""What assignments do: to names, attributes, elements, and to the flags of modules."""

from __future__ import annotations

from abc import abstractmethod

from bnlint.semantics import ir
from bnlint.semantics.expressions import Expressions
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Class,
    Instance,
    Mystery,
    Part,
    SavedMode,
    Tensor,
    Tuple,
    Value,
    Variables,
    join,
    only_constant,
)


class Targets(Expressions):
    """Adds ``assign_target``."""

    def assign_target(self, target: ir.Expr, value: Value) -> None:
        assert self.state is not None
        match target:
            case ir.Name(id=name):
                self.bind(name, value)
                for atom in value:
                    if isinstance(atom, SavedMode) and isinstance(atom.module, (Instance, Mystery)):
                        self.facts.modes_saved.add((atom.module, self.surroundings().calls))
            case ir.Display(items=items):
                for position, item in enumerate(items):
                    self.assign_target(item, self._unpacked(value, position, len(items)))
            case ir.Attr():
                for atom in (owners := self.evaluate(target.value)):
                    self._assign_attribute(atom, target, value, strong=len(owners) == 1)
            case ir.Subscript():
                known, key = only_constant(self.evaluate(target.index))
                for atom in self.evaluate(target.value):
                    if isinstance(atom, Instance) and atom.framework == "torch" and not isinstance(key, str):
                        self.doubt_parts(atom)  # the order of its elements is not kept: it may replace any
                    if isinstance(atom, (Instance, Mystery)) and known:
                        self.set_field(atom, repr(key), value)
                    elif isinstance(atom, Instance):
                        self.add_elements(atom, value)

    def _assign_attribute(self, atom: Atom, target: ir.Attr, value: Value, strong: bool) -> None:
        assert self.state is not None
        if isinstance(atom, Part) and target.name == "trainable":
            for part, _ in self.parts(atom.whole)[0]:
                self.set_field(part, "trainable", value)
        elif isinstance(atom, Part) and target.name == "training":
            self.set_flag(atom.whole, value, target, atom)
        elif isinstance(atom, Variables) and target.name == "requires_grad":
            self.freeze(atom, value, target)
        if target.name == "momentum":
            self.momentum_set(atom, target, value)
        if isinstance(atom, Mystery):
            if target.name == "training":
                self.set_flag(atom, value, target)
            else:
                self.set_field(atom, target.name, value)
        elif isinstance(atom, Instance):
            if target.name == "training" and atom.framework == "torch":
                self.set_flag(atom, value, target)
                return
            known = self.state.slots.get((atom, target.name)) or NOTHING
            self.set_field(atom, target.name, value if strong else join(known, value))
        elif isinstance(atom, Class):
            atom.attributes[target.name] = join(atom.attributes.get(target.name, NOTHING), value)

    @abstractmethod
    def momentum_set(self, atom: Atom, target: ir.Attr, value: Value) -> None: ...

    @abstractmethod
    def set_flag(self, module: Instance | Mystery, value: Value, target: ir.Attr, part: Part | None = None) -> None:
        """``module.training = value``, or the same for some ``part`` of it."""

    @abstractmethod
    def freeze(self, variables: Variables, value: Value, node: ir.Expr) -> None:
        """``parameter.requires_grad = value``."""

    def _unpacked(self, value: Value, position: int, count: int) -> Value:
        found: Value = NOTHING
        for atom in value:
            if isinstance(atom, Tuple) and len(atom.items) == count:
                found |= atom.items[position]
            elif isinstance(atom, Instance) and atom.kind == "builtins.list":
                found |= self.elements(frozenset({atom})) or UNKNOWN
            elif isinstance(atom, Tensor):
                found |= frozenset({atom})
            elif isinstance(atom, Mystery):
                found |= frozenset({self.part_of_mystery(atom, repr(position))})
            else:
                found |= UNKNOWN
        return found or UNKNOWN
