"""The analysis of one path: collections, loops and constants as Python has them.

Keeps the order and number of a collection's items, takes loops over them turn by turn, builds a new object each time,
and leaves what Python computes of constants to Python. Where something is not known it falls back to the analysis as it
is, which takes it for anything.
"""

from __future__ import annotations

import builtins
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bnlint.frameworks import functions as known
from bnlint.semantics import ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.frames import Frame, Scope
from bnlint.semantics.interpreter import Interpreter
from bnlint.semantics.machine import OutOfSteps
from bnlint.semantics.modules import Modules
from bnlint.semantics.project import Project
from bnlint.semantics.state import ELEMENTS, UNKNOWN_MODE
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Class,
    Constant,
    Function,
    Instance,
    Method,
    Partial,
    Ref,
    Tensor,
    Tuple,
    Unknown,
    Value,
    constant,
)
from bnlint.source.parse import Role, Segment, Source

MAX_STEPS = 400_000
MAX_DEPTH = 80
MAX_TURNS = 3_000
COLLECTIONS = ("builtins.list", "builtins.set", "builtins.dict")
_WITH_MODELS = ("keras.", "segmentation_models_pytorch.", "timm.", "torchvision.", "transformers.")
_MAPPING_METHODS = frozenset({"update", "keys", "items", "values", "append", "extend", "insert"})
#: Outside of its models transformers builds no layers: it loads, saves, shards and generates.
MACHINERY = re.compile(r"transformers/(?!models/)")
_SETS_WEIGHTS = re.compile(
    r"init_weight|init_param|reset_param|^named_apply$|trunc_normal|init_buffer|persistent_buffer"
)


class Inexact(Exception):
    """Not known exactly."""


class Raised(Exception):
    """The program raises here."""


@dataclass(frozen=True)
class Plain(Atom):
    """Something that is no module: a number, a tensor, a string."""


@dataclass(frozen=True)
class Bound(Atom):
    """A method of a constant or a tuple."""

    owner: Value
    name: str


PLAIN: Value = frozenset({Plain()})


class Held:
    """A value in a Python collection, of which Python may ask nothing but which of two it is."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Held):
            if self._unknown():
                raise Inexact
            return False
        if len(self.value) != 1 or len(other.value) != 1 or self._unknown() or other._unknown():
            raise Inexact
        return self.value == other.value

    def _unknown(self) -> bool:
        return any(isinstance(atom, (Unknown, Plain, Tensor)) for atom in self.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __bool__(self) -> bool:
        raise Inexact

    def __str__(self) -> str:
        raise Inexact

    def __format__(self, spec: str) -> str:
        raise Inexact

    def __repr__(self) -> str:
        return f"<{'-'.join(sorted(str(id(atom)) for atom in self.value))}>"


class Exact(Interpreter):
    """Adds exactness to expressions and statements; ``Builder`` adds calls."""

    def __init__(self, source: Source, project: Project) -> None:
        super().__init__(source, project)
        self.root.imported = True  # nothing of it runs but what is asked for
        self._keys: dict[str, object] = {}
        self._members: dict[tuple[Class, str], Instance] = {}  # of enumerations
        self._temporary: set[Atom] = set()  # what was built, but for what stands in the files themselves
        self._defining = 0
        self._guesses = 0  # how many loops and branches around what runs are not decided

    # The machine

    def spend(self, steps: float) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise OutOfSteps

    def too_deep(self, function: Function) -> bool:
        """A recursion is followed only where every test on its way was decided."""
        recursive = self._guesses and any(frame.function is function for frame in self.frame.chain())
        return recursive or self.frame.depth > MAX_DEPTH

    def _means_nothing(self, function: Function, receiver: Instance | None, given: Value) -> bool:
        """All may compute what decides a test, but what gives layers their first weights."""
        return _SETS_WEIGHTS.search(function.name) is not None

    def run_body(self, frame: Frame, function: Function, receiver: Instance | None, arguments: Arguments) -> Value:
        value = super().run_body(frame, function, receiver, arguments)
        if not frame.returned and self.state is self.before_raise and not self._guesses:
            raise Raised
        return value

    def run_function(self, function: Function, receiver: Instance | None, arguments: Arguments, node: ir.Expr) -> Value:
        if not MACHINERY.match(function.location.path):
            return super().run_function(function, receiver, arguments, node)
        if function.name == "__init__" and receiver is not None and (config := arguments.at(0)) is not None:
            self.set_field(receiver, "config", config)
        return PLAIN

    def _branches(self, *given: Any, **named: Any) -> None:
        self._guesses += 1
        super()._branches(*given, **named)
        self._guesses -= 1

    def _loop(self, *given: Any, **named: Any) -> None:
        self._guesses += 1
        super()._loop(*given, **named)
        self._guesses -= 1

    def new_object(self, node: object, kind: str, span: Any, **facts: object) -> tuple[Instance, bool]:
        self.frame.objects.pop((id(node), kind, id(facts.get("cls"))), None)
        made = super().new_object(node, kind, span, **facts)
        if not self._defining:
            self._temporary.add(made[0])
        return made

    def _define(self, scope: Scope, segment: Segment) -> None:
        self._defining += 1
        super()._define(scope, segment)
        self._defining -= 1

    def _enter(self, function: Function, key: tuple[object, ...], call: Any, script: bool) -> Frame:
        self.frame.children.pop(key, None)
        return super()._enter(function, key, call, script)

    def demand(self, scope: Scope, name: str) -> Value | None:
        """A module's statements that do something to a name (``table.update(…)``) run when it is asked for."""
        fresh = name not in scope.defined and name not in scope.pending
        value = super().demand(scope, name)
        if fresh and value is not None:
            uses = re.compile(rf"\b{name}\s*[.\[]")
            for segment in scope.source.segments:
                if segment.role is Role.CODE and segment not in scope.done and uses.search(segment.text):
                    scope.done.add(segment)
                    self._define(scope, segment)
        return scope.defined.get(name)

    def from_star_import(self, scope: Scope, name: str) -> Value | None:
        if scope.source.path in ("transformers/__init__.py", "transformers/models/__init__.py"):
            return None  # hundreds of files, that its __init__ imports for type checkers alone
        return super().from_star_import(scope, name)

    @staticmethod
    def knows_base(name: str) -> bool:
        """Bases from elsewhere are mixins that own no layers, unless they are models of another library."""
        return name in known.KERAS_BASES or not name.startswith(_WITH_MODELS)

    @staticmethod
    def framework_of_bases(bases: frozenset[str]) -> str | None:
        own = "torch" if any(base.startswith("torch.nn.") for base in bases) else None
        return Modules.framework_of_bases(bases) or own

    # Collections as Python has them

    def exact(self, value: Value) -> Any:
        if len(value) != 1:
            raise Inexact
        (atom,) = value
        if isinstance(atom, (Unknown, Plain, Tensor)):
            raise Inexact
        if isinstance(atom, Instance) and (atom.kind in COLLECTIONS or is_container(atom)):
            return self._contents(atom)
        return self._shown(value)

    def _shown(self, value: Value) -> Any:
        if len(value) == 1:
            (atom,) = value
            if isinstance(atom, Constant):
                return atom.value
            if isinstance(atom, Tuple):
                return tuple(self._shown(item) for item in atom.items)
        return Held(value)

    def _contents(self, owner: Instance) -> Any:
        assert self.state is not None
        held = dict(self.field_values(owner))
        if ELEMENTS in held:
            raise Inexact
        if is_container(owner):
            names = [name for name in held if name.isdigit()]
            return [Held(held[name]) for name in (sorted(names, key=int) if names or owner.cls else held)]
        if owner.kind == "builtins.dict":
            return {self._keys.get(name, name): self._shown(value) for name, value in held.items()}
        if any((owner, name) in self.state.doubtful for name in held):
            raise Inexact
        return [self._shown(held[name]) for name in sorted(held, key=int)]

    def _store(self, owner: Instance, contents: Any) -> None:
        assert self.state is not None
        self.spend(len(contents) / 10)
        for name in self.fields.get(owner, ()):
            self.state.slots.pop((owner, name))
            self.state.doubtful.pop((owner, name))
        for key, item in contents.items() if isinstance(contents, dict) else enumerate(contents):
            self.set_field(owner, self._key(key), self.wrap(item))

    def add_elements(self, owner: Instance, value: Value, doubtful: Value = NOTHING) -> None:
        assert self.state is not None
        if is_container(owner):
            self._add_children(owner, [value])
            return
        super().add_elements(owner, NOTHING)
        self.state.slots[owner, ELEMENTS] |= value  # however many they are

    def _add_children(self, owner: Instance, values: Iterable[Value]) -> None:
        """Add to a container of modules, in order; what stands in collections one by one."""
        assert self.state is not None
        for value in values:
            atom = next(iter(value)) if len(value) == 1 else None
            collection = isinstance(atom, Tuple) or (isinstance(atom, Instance) and atom.kind in COLLECTIONS)
            items = self.items(value) if collection else None
            if isinstance(atom, Instance) and atom.kind == "builtins.dict":
                for name, held in list(self.field_values(atom)):
                    key = self._keys.get(name)
                    self.set_field(owner, key if isinstance(key, str) else name, held)
            elif collection and items is None:
                self._add_children(owner, [frozenset({inner}) for inner in self.elements(value)])
            elif items is not None:
                self._add_children(owner, items)
            elif not all(isinstance(inner, (Constant, Plain)) for inner in value):
                number = sum(1 for name, _ in self.field_values(owner) if name.isdigit())
                self.set_field(owner, str(number), value)

    def _key(self, key: object) -> str:
        name = repr(key)
        self._keys[name] = key
        return name

    def wrap(self, thing: Any) -> Value:
        assert self.state is not None
        if isinstance(thing, Held):
            return thing.value
        if thing is None or isinstance(thing, (bool, int, float, str)):
            return constant(thing)
        if isinstance(thing, tuple):
            return frozenset({Tuple(tuple(self.wrap(item) for item in thing))})
        if isinstance(thing, Iterable) and not isinstance(thing, bytes):
            mapping = isinstance(thing, Mapping)
            collection = Instance("builtins.dict" if mapping else "builtins.list", self.location(None))
            self.state.modes[collection] = UNKNOWN_MODE
            if not self._defining:
                self._temporary.add(collection)
            self._store(collection, thing if mapping else list(itertools.islice(thing, MAX_TURNS)))
            return frozenset({collection})
        return PLAIN

    def items(self, value: Value) -> list[Value] | None:
        try:
            return [self.wrap(item) for item in self.exact(value)]
        except (Inexact, TypeError):
            return None

    def _unordered(self, value: Value) -> Value:
        collection = Instance("builtins.list", self.location(None))
        self.add_elements(collection, value)
        return frozenset({collection})

    def _applied(self, function: Callable[..., Any], arguments: Arguments, apart: bool = True) -> Value:
        """What Python's function makes of these arguments."""
        if arguments.spread:
            raise Inexact
        take = self.exact if apart else self._shown
        try:
            given = {name: (self._shown if function is dict else take)(value) for name, value in arguments.keywords}
            return self.wrap(function(*(take(value) for value in arguments.positional), **given))
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError):
            raise Inexact from None

    def iterate(self, value: Value) -> Value:
        items = self.items(value)
        if items is not None:
            found: Value = NOTHING
            for item in items:
                found |= item
            return found or PLAIN
        return PLAIN if all(isinstance(atom, (Plain, Constant)) for atom in value) else super().iterate(value)

    # Expressions

    def evaluate(self, node: ir.Expr) -> Value:
        if isinstance(node, ir.Text):
            parts = [self.evaluate(part) for part in node.parts]
            try:
                texts = iter([format(self.exact(part)) for part in parts])
                return constant("".join(next(texts) if piece is None else piece for piece in node.pieces))
            except (Inexact, TypeError):
                return PLAIN
        if isinstance(node, ir.Unary):
            value = self.evaluate(node.operand)
            truth = self.truth(value)
            try:
                if node.op == "not":
                    return PLAIN if truth is None else constant(not truth)
                return self.wrap(_UNARY[node.op](self.exact(value)))
            except (Inexact, TypeError):
                return self.tensors_of(value) or PLAIN
        value = super().evaluate(node)
        return value - UNKNOWN | PLAIN if isinstance(node, ir.Opaque) and value & UNKNOWN else value

    def _name(self, name: str) -> Value:
        value = self.lookup(name)
        if value is not None:
            return value
        return frozenset({Ref(f"builtins.{name}")}) if hasattr(builtins, name) else UNKNOWN

    def truth(self, value: Value) -> bool | None:
        truths = {self._truth(atom) for atom in value}
        return truths.pop() if len(truths) == 1 else None

    def _truth(self, atom: Atom) -> bool | None:
        if isinstance(atom, Constant):
            return bool(atom.value)
        if isinstance(atom, (Class, Function, BoundFunction, Partial)):
            return True
        if isinstance(atom, Ref):
            return True if atom.name.startswith(("torch.nn.", "keras.layers.", "builtins.")) else None
        if isinstance(atom, Tuple) or (isinstance(atom, Instance) and atom.kind in COLLECTIONS):
            try:
                return bool(self.exact(frozenset({atom})))
            except Inexact:
                return None
        return True if isinstance(atom, Instance) and atom.kind not in known.TORCH_CONTAINERS else None

    def binary(self, op: str, left: Value, right: Value) -> Value:
        try:
            return self.wrap(_OPERATORS[op](self.exact(left), self.exact(right)))
        except (Inexact, KeyError, TypeError, ValueError, ArithmeticError):
            found = super().binary(op, left, right)
        if any(isinstance(atom, Tuple) for atom in found):
            return self._unordered(self.elements(found))
        return found - UNKNOWN | PLAIN if found & UNKNOWN else found

    def _compare(self, node: ir.Compare) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        try:
            if node.op in ("in", "not in"):
                key = self._shown(left)
                inside = self._held_under(right, key) is not None or key in self.exact(right)
                return constant(inside == (node.op == "in"))
            one, other = self.exact(left), self.exact(right)
            if node.op in ("is", "is not"):
                same = type(one) is type(other) and (one is other or (isinstance(one, Held) and one == other))
                return constant(same == (node.op == "is"))
            return constant(bool(_COMPARISONS[node.op](one, other)))
        except (Inexact, KeyError, TypeError):
            return PLAIN

    def _display(self, node: ir.Display, kind: str) -> Value:
        values: list[Value] = []
        for item, starred in zip(node.items, node.starred, strict=True):
            value = self.evaluate(item)
            items = self.items(value) if starred else [value]
            if items is None:
                return self._unordered(frozenset().union(*values, self.elements(value) or UNKNOWN))
            values += items
        if kind == "tuple":
            return frozenset({Tuple(tuple(values))})
        return self.wrap([Held(value) if len(value) != 1 else self._shown(value) for value in values])

    def _dict(self, node: ir.DictDisplay) -> Value:
        contents: dict[Any, Any] = {}
        try:
            for key, item in node.items:
                value = self.evaluate(item)
                if key is None:
                    contents.update(self.exact(value))
                else:
                    contents[self._shown(self.evaluate(key))] = self._shown(value)
            return self.wrap(contents)
        except (Inexact, TypeError):
            return super()._dict(node)

    def _subscript(self, node: ir.Subscript) -> Value:
        value = self.evaluate(node.value)
        try:
            if isinstance(node.index, ir.Slice):
                bounds = (None if bound is None else self.exact(self.evaluate(bound)) for bound in node.index.bounds)
                return self.wrap(self.exact(value)[slice(*bounds)])
            key = self._shown(self.evaluate(node.index))
            held = self._held_under(value, key)
            return held if held is not None else self.wrap(self.exact(value)[key])
        except (Inexact, TypeError, LookupError):
            if all(isinstance(atom, Plain) or is_machinery(atom) for atom in value):
                return PLAIN  # of transformers' tables: ACT2FN
            return self.elements(value) or super()._subscript(node)

    def _held_under(self, value: Value, key: Any) -> Value | None:
        """What a dictionary surely holds under a key, found without reading all of it."""
        assert self.state is not None
        owner = next(iter(value)) if len(value) == 1 else None
        if isinstance(owner, Instance) and owner.kind == "builtins.dict" and not isinstance(key, Held):
            return self.state.slots.get((owner, repr(key)))
        return None

    def _comprehension(self, node: ir.Comprehension) -> Value:
        made: list[tuple[Any, Any]] = []

        def turn(position: int) -> None:
            if position == len(node.clauses):
                key = self._shown(self.evaluate(node.key)) if node.key is not None else None
                made.append((key, self._shown(self.evaluate(node.element))))
                return
            target, iterable, conditions = node.clauses[position]
            items = self.items(self.evaluate(iterable))
            if items is None:
                raise Inexact
            for item in items:
                self.assign_target(target, item)
                truths = [self.truth(self.evaluate(condition)) for condition in conditions]
                if None in truths:
                    raise Inexact
                if all(truths):
                    turn(position + 1)

        try:
            turn(0)
            return self.wrap(dict(made) if node.kind == "dict" else [item for _, item in made])
        except (Inexact, TypeError):
            return super()._comprehension(node)

    def assign_target(self, target: ir.Expr, value: Value) -> None:
        if isinstance(target, ir.Display):
            items = self.items(value)
            starred = [position for position, is_starred in enumerate(target.starred) if is_starred]
            if items is not None and len(items) == len(target.items) and not starred:
                for inner, item in zip(target.items, items, strict=True):
                    self.assign_target(inner, item)
                return
        if isinstance(target, ir.Subscript):
            owners = self.evaluate(target.value)
            index = self.evaluate(target.index)
            if len(owners) == 1 and isinstance(owner := next(iter(owners)), Instance) and owner.kind in COLLECTIONS:
                key = self._shown(index)
                if owner.kind == "builtins.dict" and not isinstance(key, Held):
                    self.set_field(owner, self._key(key), value)
                    return
                try:
                    contents = self._contents(owner)
                    contents[key] = Held(value)
                    self._store(owner, contents)
                    return
                except (Inexact, TypeError, LookupError):
                    self.add_elements(owner, value)
                    return
        super().assign_target(target, value)

    def attribute_of(self, atom: Atom, name: str, node: ir.Expr) -> Value:
        if isinstance(atom, Tensor) and name in known.SHAPE_ATTRIBUTES:
            return PLAIN
        if isinstance(atom, Plain) or name in ("__module__", "__doc__", "__file__"):
            return PLAIN
        if isinstance(atom, (Constant, Tuple)):
            return frozenset({Bound(frozenset({atom}), name)})
        if isinstance(atom, Partial) and name in ("func", "keywords"):
            if name == "func":
                return atom.callee
            return self.wrap({keyword: self._shown(value) for keyword, value, _ in atom.keywords})
        if isinstance(atom, (Class, Function)) and name == "__name__":
            return constant(atom.name)
        if isinstance(atom, Ref) and name == "__name__":
            return constant(atom.name.rpartition(".")[2])
        inherits = isinstance(atom, Instance) and (atom.cls is None or atom.cls.lookup(name) is None)
        if isinstance(atom, Instance) and inherits and name in _MAPPING_METHODS and is_container(atom):
            return frozenset({Method(atom, name)})
        if isinstance(atom, Instance) and name == "__class__" and atom.cls is not None:
            return frozenset({atom.cls})
        if isinstance(atom, Instance) and atom.cls is not None and atom.framework is None:
            own = self.state is not None and (atom, name) in self.state.slots
            if not own and atom.cls.lookup(name) is None and not atom.kind.startswith("builtins."):
                return UNKNOWN
        found = super().attribute_of(atom, name, node)
        if isinstance(atom, Class):
            if "enum.Enum" in atom.library_bases() and not any(isinstance(a, Function) for a in found):
                member = self._members.setdefault((atom, name), Instance(name, atom.location, cls=atom))
                return frozenset({member})
            first = ((frozenset({atom}), ir.Opaque()),)
            return frozenset(
                Partial(frozenset({a}), first, ()) if isinstance(a, Function) and "classmethod" in a.decorators else a
                for a in found
            )
        return found

    # Statements

    def _sequence(self, node: ir.Expr) -> list[Value] | None:
        return self.items(self.evaluate(node))

    def _while(self, node: ir.While) -> None:
        for _ in range(MAX_TURNS):
            truth = self.truth(self.evaluate(node.test))
            if truth is None or self.state is None:
                break
            if not truth:
                self.run_block(node.orelse)
                return
            self.breaks.append([])
            self.continues.append([])
            self.run_block(node.body)
            self.continues.pop()
            if self.breaks.pop():
                break
        super()._while(node)

    def _try(self, node: ir.Try) -> None:
        assert self.state is not None
        before, returned = self.state.copy(), len(self.frame.returned)
        saved = (self.frame, self.contexts, self.loops, self.statement, self.block)
        breaks, continues, guesses = [*self.breaks], [*self.continues], self._guesses
        try:
            self.run_block((*node.body, *node.orelse))
        except Raised:
            self.frame, self.contexts, self.loops, self.statement, self.block = saved
            self.breaks, self.continues, self._guesses = breaks, continues, guesses
            self.state = None
        jumped = len(self.frame.returned) > returned or any(self.breaks[-1:]) or any(self.continues[-1:])
        if self.state is None and not jumped and node.handlers:
            self.state = before
            self.run_block(node.handlers[0])
        if self.state is not None:
            self.run_block(node.finalbody)

    def _delete(self, target: ir.Expr) -> None:
        if isinstance(target, ir.Subscript):
            for owner in self.evaluate(target.value):
                with suppress(Inexact, TypeError, LookupError):
                    if isinstance(owner, Instance) and owner.kind in COLLECTIONS:
                        contents = self._contents(owner)
                        del contents[self._shown(self.evaluate(target.index))]
                        self._store(owner, contents)
            return
        super()._delete(target)

    def _augmented(self, node: ir.AugAssign) -> None:
        current, added = self.evaluate(node.target), self.evaluate(node.value)
        owner = next(iter(current))
        if node.op == "+" and len(current) == 1 and isinstance(owner, Instance) and owner.kind == "builtins.list":
            self._call_collection_method(owner, "extend", Arguments((added,)))
        else:
            self.assign_target(node.target, self.binary(node.op, current, added))


def is_machinery(atom: Atom) -> bool:
    return isinstance(atom, Instance) and atom.cls is not None and MACHINERY.match(atom.cls.location.path) is not None


def is_module(value: Value) -> bool:
    return any(isinstance(atom, Instance) and atom.framework is not None for atom in value)


def is_container(atom: Instance) -> bool:
    bases = atom.cls.library_bases() if atom.cls is not None else frozenset({atom.kind})
    return bool(bases & known.TORCH_CONTAINERS)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "**": operator.pow, "|": operator.or_, "&": operator.and_,
}  # fmt: skip
_UNARY: dict[str, Callable[[Any], Any]] = {"-": operator.neg, "+": operator.pos, "~": operator.inv}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
