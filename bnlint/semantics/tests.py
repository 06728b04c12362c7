"""What a test tells: the guards of the path behind it, and what the names in it can be there."""

from __future__ import annotations

from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import ir
from bnlint.semantics.arguments import names_in
from bnlint.semantics.frames import Frame
from bnlint.semantics.porting import Porting
from bnlint.semantics.state import NO_GUARDS, UNKNOWN_MODE, Guard, Guards, compatible
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Class,
    Instance,
    Mystery,
    Part,
    Ref,
    SavedMode,
    Tuple,
    Value,
    only_constant,
)


class Tests(Porting):
    """Adds what the conditions of branches tell."""

    def truth_on_this_path(self, test: ir.Expr, value: Value) -> bool | None:
        """Whether a test is true, by its value or by an earlier test that this path went through."""
        assert self.state is not None
        truth = self.truth(value)
        if truth is not None or not self.state.guards:
            return truth
        when, otherwise = self.guards_of(test)
        if when and not compatible(when, self.state.guards):
            return False
        if otherwise and not compatible(otherwise, self.state.guards):
            return True
        return None

    def after_restoring(self, tested: Value) -> None:
        """After ``if was_training: model.train()`` the model is in the mode that was saved."""
        for atom in tested:
            if isinstance(atom, SavedMode) and len(tested) == 1 and self.state is not None:
                mode = self.state.modes.get(atom.module) or UNKNOWN_MODE
                if mode.train is not None and mode.eval is not None and isinstance(atom.module, (Instance, Mystery)):
                    self.set_mode(atom.module, atom.mode)

    def guards_of(self, test: ir.Expr) -> tuple[Guards, Guards]:
        match test:
            case ir.Unary(op="not", operand=operand):
                when, otherwise = self.guards_of(operand)
                return otherwise, when
            case ir.Boolean(op="and", left=left, right=right):
                return self.guards_of(left)[0] | self.guards_of(right)[0], NO_GUARDS
            case ir.Boolean(op="or", left=left, right=right):
                return NO_GUARDS, self.guards_of(left)[1] | self.guards_of(right)[1]
            case ir.Compare(left=left, op=op, right=right):
                wanted = self._compared_with(right)
                if wanted is None or op not in ("==", "!=", "is", "is not", "in", "not in"):
                    return NO_GUARDS, NO_GUARDS
                when, otherwise = self._guard(left, wanted)
                return (otherwise, when) if op in ("!=", "is not", "not in") else (when, otherwise)
            case ir.Name() | ir.Attr():
                return self._guard(test, None)
        return NO_GUARDS, NO_GUARDS

    def _compared_with(self, node: ir.Expr) -> tuple[object, ...] | None:
        items = node.items if isinstance(node, ir.Display) else (node,)
        values = [only_constant(self.evaluate(item)) for item in items]
        return tuple(value for _, value in values) if all(is_known for is_known, _ in values) else None

    def _guard(self, node: ir.Expr, wanted: tuple[object, ...] | None) -> tuple[Guards, Guards]:
        name = ir.dotted(node)
        if name is None:
            return NO_GUARDS, NO_GUARDS
        first = name.split(".", 1)[0]
        owner: Frame | None = self.frame
        assert self.state is not None
        while owner is not None and owner.outer is not None and (owner, first) not in self.state.slots:
            owner = owner.outer
        self.tested.add((owner, first))
        return (
            frozenset({Guard(owner, name, wanted, True)}),
            frozenset({Guard(owner, name, wanted, False)}),
        )

    def narrowed_parts(self, test: ir.Expr) -> dict[str, Value]:
        """``if isinstance(m, nn.BatchNorm2d)``, where ``m`` is some part of a module: now it is one of its layers."""
        tests = [test]
        while isinstance(tests[-1], ir.Boolean):
            last = tests.pop()
            assert isinstance(last, ir.Boolean)
            tests += [last.right, last.left]
        for call in tests:
            name, kinds = self._layers_tested_for(call)
            if name is None or not kinds:
                continue
            value = self.lookup(name) or NOTHING
            narrowed = frozenset(_narrowed(atom, kinds) for atom in value)
            if narrowed and narrowed != value:
                return {name: narrowed}
        return {}

    def _layers_tested_for(self, test: ir.Expr) -> tuple[str | None, frozenset[str]]:
        """The name and the kinds of layers in ``isinstance(m, nn.BatchNorm2d)`` or ``type(m) == nn.Dropout``, or in
        ``m.__class__.__name__.find("BatchNorm") != -1``."""
        if isinstance(test, ir.Call) and isinstance(test.func, ir.Name) and test.func.id == "isinstance":
            tested = test.args[0].value if len(test.args) == 2 else None
            owner = tested.value if isinstance(tested, ir.Subscript) else tested
            if isinstance(owner, ir.Name):
                classes = self.evaluate(test.args[1].value)
                names = [atom.name for atom in classes | self.elements(classes) if isinstance(atom, Ref)]
                kinds = frozenset(kind for name in names for kind in _kinds_of(name))
                kinds |= {atom.name for atom in classes | self.elements(classes) if isinstance(atom, Class)}
                return owner.id, kinds
        names_read = names_in(test.left) if isinstance(test, ir.Compare) else names_in(test)
        text = _text_in(test)
        kind = next((kind for word, kind in (("batchnorm", "batchnorm"), ("dropout", "dropout")) if word in text), None)
        if kind is not None and names_read:
            first = names_read[0]
            if any(isinstance(atom, Part) for atom in self.lookup(first) or ()):
                return first, frozenset(name for name, facts in LAYERS.items() if facts.kind == kind)
        return None, frozenset()

    def alternatives_of(self, test: ir.Expr) -> tuple[dict[str, Value], dict[str, Value]]:
        """What ``norm is nn.GroupNorm`` tells of the name where it is true, and where it is false."""
        if not (isinstance(test, ir.Compare) and isinstance(test.left, ir.Name)):
            return {}, {}
        value, known_value = self.evaluate(test.left), self.evaluate(test.right)
        if len(known_value) != 1 or not all(isinstance(atom, Ref) for atom in known_value):
            return {}, {}
        name = test.left.id
        true, false = {name: known_value}, {name: value - known_value or UNKNOWN}
        if test.op in ("is", "=="):
            return true, false
        return (false, true) if test.op in ("is not", "!=") else ({}, {})

    def narrowing(self, test: ir.Expr) -> dict[str, str]:
        """The names that a test shows to be layers, and of which kind."""
        if isinstance(test, ir.Boolean) and test.op == "and":
            return {**self.narrowing(test.left), **self.narrowing(test.right)}
        if isinstance(test, ir.Compare) and test.op == "==" and isinstance(test.right, ir.Const):
            return _narrowed_by_class_name(test.left, test.right.value)
        if not (isinstance(test, ir.Call) and isinstance(test.func, ir.Name) and test.func.id == "isinstance"):
            return {}
        name = ir.dotted(test.args[0].value) if len(test.args) == 2 else None
        if name is None:
            return {}
        classes = self.evaluate(test.args[1].value)
        names = [atom.name for atom in classes | self.elements(classes) if isinstance(atom, Ref)]
        kinds = sorted(name for name in names if name in LAYERS)
        return {name: kinds[0]} if kinds else {}


def _narrowed_by_class_name(read: ir.Expr, wanted: object) -> dict[str, str]:
    """``type(layer).__name__ == "BatchNormalization"``, ``layer.__class__.__name__ == "BatchNorm2d"``."""
    kinds = [name for name in LAYERS if name.rpartition(".")[2] == wanted]
    if not (kinds and isinstance(read, ir.Attr) and read.name == "__name__"):
        return {}
    match read.value:
        case ir.Attr(value=owner, name="__class__"):
            name = ir.dotted(owner)
        case ir.Call(func=ir.Name(id="type"), args=(argument,)):
            name = ir.dotted(argument.value)
        case _:
            name = None
    return {name: kinds[0]} if name is not None else {}


def words_tested(test: ir.Expr) -> str:
    """The strings that a test looks for; empty for a test that is negated."""
    match test:
        case ir.Unary(op="not") | ir.Compare(op="not in" | "!="):
            return ""
        case ir.Boolean(left=left, right=right):
            return words_tested(left) + words_tested(right)
    return _text_in(test)


def _narrowed(atom: Atom, kinds: frozenset[str]) -> Atom:
    if isinstance(atom, Part):
        return Part(atom.whole, kinds)
    if isinstance(atom, Tuple):  # (name, part), as ``named_modules()`` gives it
        return Tuple(tuple(frozenset(_narrowed(inner, kinds) for inner in item) for item in atom.items))
    return atom


def _kinds_of(name: str) -> frozenset[str]:
    """The layers that are instances of a library class."""
    if name in LAYERS:
        return frozenset({name})
    base = known.LAYER_BASES.get(name)
    return frozenset(kind for kind, facts in LAYERS.items() if facts.kind == base and facts.framework == "torch")


def _text_in(node: ir.Expr) -> str:
    """The strings written in an expression, in lower case."""
    match node:
        case ir.Const(value=str() as value):
            return value.lower()
        case ir.Call(func=func, args=args):
            return _text_in(func) + "".join(_text_in(arg.value) for arg in args)
        case ir.Attr(value=value):
            return _text_in(value)
        case ir.Compare(left=left, right=right):
            return _text_in(left) + _text_in(right)
    return ""
