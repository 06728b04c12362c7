"""Expressions: from IR to abstract values, with the effects that evaluating them has."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from bnlint.finding import Location
from bnlint.frameworks.catalogue import ANY
from bnlint.frameworks.functions import (
    MODEL_FAMILIES,
    TORCH_PARTS,
)
from bnlint.frameworks.names import canonical
from bnlint.semantics import ir
from bnlint.semantics.arguments import names_in
from bnlint.semantics.names import Names, held_by
from bnlint.semantics.state import ELEMENTS, join_all
from bnlint.semantics.truth import compared
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Constant,
    Function,
    Instance,
    Method,
    Mystery,
    Part,
    Ref,
    SavedMode,
    Tensor,
    Tuple,
    Unknown,
    Value,
    Variables,
    as_default,
    constant,
    instances,
    join,
    only_constant,
)


class Expressions(Names):
    """Adds ``evaluate``."""

    @abstractmethod
    def call(self, node: ir.Call) -> Value: ...

    @abstractmethod
    def define_function(self, node: ir.FunctionDef) -> Function: ...

    @abstractmethod
    def assign_target(self, target: ir.Expr, value: Value) -> None: ...

    def evaluate(self, node: ir.Expr) -> Value:
        match node:
            case ir.Const():
                return constant(node.value)
            case ir.Name(id=name):
                return self._name(name)
            case ir.Attr():
                return self._attribute(node)
            case ir.Call():
                return self.call(node)
            case ir.Binary():
                return self.binary(node.op, self.evaluate(node.left), self.evaluate(node.right))
            case ir.Unary():
                value = self.evaluate(node.operand)
                if node.op == "not" and (truth := self.truth(value)) is not None:
                    return constant(not truth)
                if node.op == "-":
                    return self.binary("-", constant(0), value)
                return self.tensors_of(value) or UNKNOWN
            case ir.Boolean():
                return self._boolean(node)
            case ir.Compare():
                return self._compare(node)
            case ir.IfElse():
                truth = self.truth(self.evaluate(node.test))
                if truth is not None:
                    return self.evaluate(node.body if truth else node.orelse)
                return self._either(node.body, node.orelse)
            case ir.Display(kind=kind):
                return self._display(node, kind)
            case ir.DictDisplay():
                return self._dict(node)
            case ir.Subscript():
                return self._subscript(node)
            case ir.Comprehension():
                return self._comprehension(node)
            case ir.Lambda():
                return frozenset({self.define_function(node.function)})
            case ir.Walrus():
                value = self.evaluate(node.value)
                if isinstance(node.target, ir.Name):
                    self.bind(node.target.id, value)
                return value
            case ir.Opaque():
                found: Value = NOTHING
                for part in node.parts:
                    found |= self.tensors_of(self.evaluate(part))
                return found | UNKNOWN
        return UNKNOWN

    # Operators

    def binary(self, op: str, left: Value, right: Value) -> Value:
        (a, a_others), (b, b_others) = _number_in(left), _number_in(right)
        if a is not None and b is not None:
            try:
                result = _ARITHMETIC[op](a.value, b.value)
            except (KeyError, ArithmeticError, ValueError):
                return UNKNOWN
            computed = constant(round(result, 12) if isinstance(result, float) else result)
            return (as_default(computed) if a.from_default or b.from_default else computed) | a_others | b_others
        if op == "+":
            variables = frozenset(atom for atom in left | right if isinstance(atom, Variables))
            if variables:
                return variables | (UNKNOWN if len(variables) < len(left | right) else NOTHING)
            collections = frozenset(a for a in left | right if isinstance(a, (Tuple, Instance)))
            if collections and len(collections) == len(left | right):
                return frozenset({Tuple((self.elements(left), self.elements(right)))})
        return self.tensors_of(left | right) or UNKNOWN

    def tensors_of(self, value: Value) -> Value:
        """A tensor computed from the tensors in a value; nothing if there are none."""
        tensors = [atom for atom in value if isinstance(atom, Tensor)]
        if not tensors:
            return NOTHING
        kinds = {tensor.kind for tensor in tensors}
        kind = next((k for k in ("symbolic", "random", "unknown", "eager") if k in kinds), "unknown")
        origins = frozenset(origin for tensor in tensors for origin in tensor.origins)
        through = frozenset(layer for tensor in tensors for layer in tensor.through)
        return frozenset({Tensor(kind, origins, through)})

    def truth(self, value: Value) -> bool | None:
        truths = {_truth(atom) for atom in value}
        return truths.pop() if len(truths) == 1 else None

    def _boolean(self, node: ir.Boolean) -> Value:
        left = self.evaluate(node.left)
        truth = self.truth(left)
        if truth is not None and truth == (node.op == "or"):
            return left
        if truth is not None:
            return self.evaluate(node.right)
        return join(left, self._either(node.right, None))

    def _either(self, *alternatives: ir.Expr | None) -> Value:
        """The value of one of these, on a path of its own each; None is the path that evaluates nothing."""
        found: Value = NOTHING
        if not any(isinstance(node, ir.Call) for node in alternatives):  # a call alone is worth another path
            for node in alternatives:
                found = join(found, self.evaluate(node)) if node is not None else found
            return found
        assert self.state is not None
        before, after = self.state, []
        for node in alternatives:
            self.spend(1)
            self.state = before.copy()
            found = join(found, self.evaluate(node)) if node is not None else found
            after.append(self.state)
        self.state = join_all(after)
        return found

    def _compare(self, node: ir.Compare) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        if isinstance(node.left, ir.Name) and node.left.id == "__name__":
            return constant(node.op == "==")  # a script is linted as what it does when run
        tensors = [atom for atom in left | right if isinstance(atom, Tensor)]
        if tensors and node.op not in ("is", "is not", "in", "not in"):
            self.read(left | right, self.location(None), compared=node.op in ("==", "!="))
            return UNKNOWN
        (known_a, a), (known_b, b) = only_constant(left), only_constant(right)
        no_default = not any(isinstance(x, Constant) and x.from_default for x in left | right)
        if known_a and known_b and no_default and (outcome := compared(a, node.op, b)) is not None:
            return constant(outcome)
        library_names = len(left) == len(right) == 1 and all(isinstance(atom, Ref) for atom in left | right)
        if library_names and node.op in ("is", "is not", "==", "!="):  # which class or function it is
            return constant((left == right) == (node.op in ("is", "==")))
        if node.op in ("is", "is not") and known_b and b is None and _surely_something(left):
            return constant(node.op == "is not")
        return UNKNOWN

    def read(self, value: Value, at: Location, compared: bool) -> None:
        """The values of these tensors are compared, or else only shown or handed on, here.

        What a model makes of random numbers means nothing until it is compared: printing it is a smoke test,
        unless it combines the outputs of two calls.
        """
        for atom in value:
            if isinstance(atom, Tensor):
                for origin in atom.origins:
                    if compared or len(atom.origins) > 1 or origin.input_kind != "random":
                        origin.read_at = origin.read_at or at
            elif isinstance(atom, Tuple):
                for item in atom.items:
                    self.read(item, at, compared)

    # Collections

    def _display(self, node: ir.Display, kind: str) -> Value:
        items = tuple(self.evaluate(item) for item in node.items)
        if kind == "tuple" and not any(node.starred):
            return frozenset({Tuple(items)})
        collection, _ = self.new_object(node, f"builtins.{kind}", None)
        held: Value = NOTHING
        doubtful: Value = NOTHING
        for item, starred in zip(items, node.starred, strict=True):
            held |= (self.elements(item) or UNKNOWN) if starred else item
            doubtful |= self.doubtful_in(item)
        self.add_elements(collection, held, doubtful)
        if kind == "list" and not any(node.starred):
            self.note_items(collection, items)
        return frozenset({collection})

    def note_items(self, collection: Instance, items: tuple[Value, ...]) -> None:
        """A list is written out, with these items in this order."""

    def _dict(self, node: ir.DictDisplay) -> Value:
        mapping, _ = self.new_object(node, "builtins.dict", None)
        for key, item in node.items:
            value = self.evaluate(item)
            known, name = only_constant(self.evaluate(key)) if key is not None else (False, None)
            if known:
                self.set_field(mapping, repr(name), value)
                # Without its place: it is read where the dict is unpacked, perhaps in another file.
                self.entries[mapping, repr(name)] = ir.Const(item.value) if isinstance(item, ir.Const) else item
            elif key is None and len(instances(value)) == len(value) == 1:
                for field_name, held in list(self.field_values(instances(value)[0])):
                    self.set_field(mapping, field_name, held)
            else:
                self.add_elements(mapping, value)
        return frozenset({mapping})

    def _subscript(self, node: ir.Subscript) -> Value:
        assert self.state is not None
        value, index = self.evaluate(node.value), self.evaluate(node.index)
        known, key = only_constant(index)
        found: set[Atom] = set()  # grown in place: a value can have thousands
        for atom in value:
            if isinstance(atom, Tuple) and known and isinstance(key, int) and -len(atom.items) <= key < len(atom.items):
                found |= atom.items[key]
            elif isinstance(atom, Instance) and known and (atom, repr(key)) in self.state.slots:
                found |= self.state.slots[atom, repr(key)]
            elif isinstance(atom, Tuple) and isinstance(node.index, ir.Slice) and self.parts_taken(frozenset({atom})):
                found |= frozenset({atom})  # some of a module's children
            elif isinstance(atom, Instance) and not known and self._is_table(atom):
                found |= self.elements(frozenset({atom}))
            elif isinstance(atom, (Tuple, Instance)):
                found |= self.elements(frozenset({atom})) | UNKNOWN
            elif isinstance(atom, (Tensor, Part, Variables)):
                found |= frozenset({atom})
            elif isinstance(atom, Ref) and isinstance(key, str) and atom.name.endswith(".__dict__"):
                found |= frozenset({Ref(canonical(f"{atom.name.removesuffix('__dict__')}{key}"))})
            elif isinstance(atom, Ref) and atom.name.removesuffix(".__dict__") in MODEL_FAMILIES:
                found |= frozenset({Ref(f"{atom.name.removesuffix('__dict__')}{ANY}")})
            elif isinstance(atom, Mystery):
                held = self.state.slots.get((atom, repr(key))) if known else None
                found |= held or frozenset({self.part_of_mystery(atom, repr(key) if known else ELEMENTS)})
            else:
                found |= UNKNOWN
        return held_by(value, frozenset(found)) or UNKNOWN

    def _is_table(self, mapping: Instance) -> bool:
        """Whether all entries of a dict are written out, so that any key leads to one of them."""
        names = self.fields.get(mapping, {})
        return mapping.kind == "builtins.dict" and len(names) > 1 and ELEMENTS not in names

    def _comprehension(self, node: ir.Comprehension) -> Value:
        around = self.comprehended
        for target, iterable, conditions in node.clauses:
            self.assign_target(target, self.iterate(self.evaluate(iterable)))
            self.comprehended |= frozenset(names_in(iterable))
            for condition in conditions:
                self.evaluate(condition)
        if node.key is not None:
            self.evaluate(node.key)
        element = self.evaluate(node.element)
        self.comprehended = around
        collection, _ = self.new_object(node, "builtins.dict" if node.kind == "dict" else "builtins.list", None)
        self.add_elements(collection, element)
        return frozenset({collection})

    def parts_taken(self, value: Value) -> Value:
        """What stands directly in the modules some of whose parts are, or are elements of, a value."""
        found: Value = NOTHING
        for atom in value | self.elements(value):
            if isinstance(atom, Part):
                held = [inner for _, held in self.field_values(atom.whole) for inner in held]
                found |= {a for a in held if isinstance(a, Mystery) or (isinstance(a, Instance) and a.framework)}
        return found

    def iterate(self, value: Value) -> Value:
        """What a loop over a value binds in each turn."""
        found: Value = NOTHING
        for atom in value:
            if isinstance(atom, Method) and atom.name in TORCH_PARTS:
                part: Value = frozenset({Part(atom.owner)})
                found |= frozenset({Tuple((UNKNOWN, part))}) if atom.name.startswith("named") else part
            elif isinstance(atom, Variables) and atom.names.startswith("named"):
                found |= frozenset({Tuple((UNKNOWN, frozenset({atom})))})
            elif isinstance(atom, (Part, Tensor, Variables)):
                found |= frozenset({atom})
            elif isinstance(atom, Mystery):
                found |= frozenset({self.part_of_mystery(atom, ELEMENTS)})
            else:
                found |= self.elements(frozenset({atom})) or UNKNOWN
        return found or UNKNOWN


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number_in(value: Value) -> tuple[Constant | None, Value]:
    """The number that a value is, or is by default, and what it may be instead."""
    found = [atom for atom in value if isinstance(atom, Constant)]
    others = frozenset(atom for atom in value if not isinstance(atom, Constant))
    if len(found) != 1 or not _is_number(found[0].value):
        return None, others
    by_default = found[0].from_default and all(isinstance(atom, Unknown) for atom in others)
    return (found[0], UNKNOWN if others else NOTHING) if by_default or not others else (None, others)


def _truth(atom: Atom) -> bool | None:
    match atom:
        case Constant(value=value, from_default=False):
            return bool(value)
        case SavedMode(mode=mode):
            return True if mode.surely_train else False if mode.surely_eval else None
    return None


def _surely_something(value: Value) -> bool:
    return not any(isinstance(atom, Unknown) or (isinstance(atom, Constant) and atom.value is None) for atom in value)


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
