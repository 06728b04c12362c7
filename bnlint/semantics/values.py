"""Abstract values: what the analysis knows an expression to be.

A ``Value`` is the set of things that an expression may be; ``Unknown`` among them means "or anything else".
Objects stand for their place of construction in one calling context.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bnlint.finding import Location, TraceStep
from bnlint.semantics import ir


class Atom:
    """One thing that a value may be."""

    __slots__ = ()


Value = frozenset[Atom]


class Unknown(Atom):
    """Anything at all."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is Unknown and type(self) is Unknown

    def __hash__(self) -> int:
        return hash(Unknown)


#: Numbers for things in the order in which they are met.
_SERIALS = itertools.count()


class Mystery(Unknown):
    """Anything, but one and the same thing: a parameter whose callers are not known, what a function from elsewhere
    returned, an attribute of either. So what a program does to it can be followed, whatever it is."""

    __slots__ = ("children", "location", "name", "parent", "serial")

    def __init__(self, location: Location, name: str, parent: Atom | None = None) -> None:
        self.serial = next(_SERIALS)
        self.location = location
        self.name = name
        self.parent = parent
        self.children: dict[str, Mystery] = {}

    __eq__ = object.__eq__
    __hash__ = object.__hash__


UNKNOWN: Value = frozenset({Unknown()})
NOTHING: Value = frozenset()
_MOST_ATOMS = 12


@dataclass(frozen=True, slots=True)
class Constant(Atom):
    """``from_default`` marks the default of a parameter whose callers are not known."""

    value: bool | int | float | str | None
    from_default: bool = False

    def __eq__(self, other: object) -> bool:  # 1, 1.0 and True are three constants
        return (
            isinstance(other, Constant)
            and type(self.value) is type(other.value)
            and (self.value, self.from_default) == (other.value, other.from_default)
        )

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True, slots=True)
class Ref(Atom):
    """Something imported, by its canonical qualified name."""

    name: str


@dataclass(frozen=True, slots=True)
class File(Atom):
    """A module or package of the project: the scope of its file (None for a folder without one) and its folder."""

    folder: str
    scope: Any


@dataclass(frozen=True, slots=True)
class SavedMode(Atom):
    """What ``module.training`` was at some point."""

    module: Atom
    mode: Any


@dataclass(frozen=True, slots=True)
class Tuple(Atom):
    items: tuple[Value, ...]


@dataclass(eq=False, repr=False)
class Function(Atom):
    """A function of this file. ``frame`` is where it was defined; ``called`` once its body was run for a call."""

    node: ir.FunctionDef
    frame: Any
    location: Location
    owner: Class | None = None
    defaults: dict[str, Value] = field(default_factory=dict)
    decorators: frozenset[str] = frozenset()
    strange_decorator: bool = False
    called: bool = False

    @property
    def name(self) -> str:
        return self.node.name


@dataclass(eq=False, repr=False)
class Class(Atom):
    """A class of the project. ``bases`` are its classes or names; None for what could not be resolved. ``called``
    are the attributes that its code calls on ``self``: only those can be modules of a make that is not known."""

    node: ir.ClassDef
    location: Location
    bases: tuple[Class | Ref | None, ...]
    called: frozenset[str] = frozenset()
    attributes: dict[str, Value] = field(default_factory=dict)
    _construction: ir.Expr = field(init=False)

    def __post_init__(self) -> None:
        self._construction = ir.Opaque()

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def construction(self) -> ir.Expr:
        """Stands for the call that builds an object of this class when no call in the file does."""
        return self._construction

    def ancestors(self) -> list[Class]:
        """This class and its bases in this file, in method resolution order (depth first is enough here)."""
        found = [self]
        for base in self.bases:
            if isinstance(base, Class):
                found += [ancestor for ancestor in base.ancestors() if ancestor not in found]
        return found

    def library_bases(self) -> frozenset[str]:
        return frozenset(base.name for cls in self.ancestors() for base in cls.bases if isinstance(base, Ref))

    def may_call(self, name: str) -> bool:
        return any(name in cls.called for cls in self.ancestors())

    @property
    def has_unknown_base(self) -> bool:
        return any(base is None for cls in self.ancestors() for base in cls.bases)

    def lookup(self, name: str) -> Value | None:
        return next((cls.attributes[name] for cls in self.ancestors() if name in cls.attributes), None)


@dataclass(eq=False, repr=False)
class Instance(Atom):
    """An object: of a class of this file, of a library class (``kind``), or a list or dict (``builtins.…``).

    ``arguments`` are a library layer's arguments by parameter name; ``framework`` is ``torch`` or ``keras`` for
    modules, layers and models.
    """

    kind: str
    location: Location
    cls: Class | None = None
    framework: str | None = None
    arguments: dict[str, Value] = field(default_factory=dict)
    positional: frozenset[str] = frozenset()
    argument_nodes: dict[str, ir.Expr] = field(default_factory=dict)
    unknown_attributes: dict[str, Mystery] = field(default_factory=dict)
    serial: int = field(default_factory=_SERIALS.__next__, init=False)


@dataclass(frozen=True, slots=True)
class Method(Atom):
    """A method that an object inherits from its framework, or that a mystery has if it is a module."""

    owner: Instance | Mystery
    name: str


@dataclass(frozen=True, slots=True)
class BoundFunction(Atom):
    function: Function
    receiver: Instance


@dataclass(frozen=True, slots=True)
class Super(Atom):
    """``super()`` in a method that ``cls`` defines."""

    receiver: Instance
    cls: Class


@dataclass(frozen=True, slots=True)
class Partial(Atom):
    """``functools.partial``: what it calls, and with which arguments before those of the call."""

    callee: Value
    positional: tuple[tuple[Value, ir.Expr], ...]
    keywords: tuple[tuple[str, Value, ir.Expr], ...]


@dataclass(frozen=True, slots=True)
class Part(Atom):
    """Some module inside ``whole``, as ``for m in whole.modules()`` gives it. ``kinds`` are the layers that it can
    be, where an ``isinstance`` tells; empty where it may be any part."""

    whole: Instance | Mystery
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Variables(Atom):
    """The parameters or trainable variables of a module; ``names`` tells what was asked for (``buffers``)."""

    owner: Instance | Mystery
    names: str = "parameters"


@dataclass(frozen=True, slots=True)
class PartMethod(Atom):
    """``train`` or ``eval`` of some module inside another."""

    part: Part
    name: str


@dataclass(frozen=True, slots=True)
class VariableMethod(Atom):
    """``requires_grad_`` of one of a module's parameters."""

    variables: Variables
    name: str


@dataclass(frozen=True, slots=True)
class Loader(Atom):
    """A class method from elsewhere that builds an object of the class, such as Lightning's
    ``load_from_checkpoint``."""

    cls: Class


@dataclass(frozen=True, slots=True)
class Trait(Atom):
    """What a BatchNorm layer of this ``kind`` says of itself: its ``momentum``, ``eps``, ``config``, one of its weights
    (``running_var``) or all (``weights``). ``owner`` is the layer, where it is built in sight."""

    kind: str
    name: str
    owner: Instance | None = None


@dataclass(frozen=True, slots=True)
class Defaults(Atom):
    """An ``arg_scope`` of TensorFlow 1: by functions, the arguments that their calls get where these give none, inner
    scopes last. ``anything`` tells that it may hold more."""

    entries: tuple[tuple[Value, tuple[tuple[str, Value, Any], ...]], ...]
    anything: bool = False


@dataclass(frozen=True, slots=True)
class Phase(Atom):
    """The learning phase that Keras was put in, training or not, at ``step``."""

    training: bool
    step: TraceStep


@dataclass(frozen=True, slots=True)
class Cast(Atom):
    """The dtype that a module's parameters and buffers were given at ``step``."""

    dtype: str
    step: TraceStep


@dataclass(frozen=True, slots=True)
class TrainStep(Atom):
    """The operation of TensorFlow 1 that changes the weights, with the event of its making."""

    event: Any


@dataclass(frozen=True, slots=True)
class Tape(Atom):
    location: Location


@dataclass(frozen=True, slots=True)
class Tensor(Atom):
    """A tensor. ``origins`` are the forward calls that it was computed from (events), ``through`` the Keras
    layers that a symbolic one went through. ``shape`` and ``fill`` are known for a constant tensor. ``made_by`` is the
    application of a layer whose output it is (an event, where chains of layers are followed)."""

    kind: str  # "eager", "random" (eager too, of meaningless values), "symbolic" or "unknown"
    origins: frozenset[Any] = frozenset()
    through: frozenset[Instance] = frozenset()
    shape: tuple[int, ...] | None = None
    fill: float | None = None
    made_by: Any = None


def join(left: Value, right: Value) -> Value:
    if left is right:
        return left
    both = left | right
    return both if len(both) <= _MOST_ATOMS else both | UNKNOWN


def as_default(value: Value) -> Value:
    """The same value, its constants as those that hold where nothing else is given."""
    return frozenset(replace(atom, from_default=True) if isinstance(atom, Constant) else atom for atom in value)


def constant(value: bool | int | float | str | None) -> Value:
    return frozenset({Constant(value)})


def instances(value: Value) -> list[Instance]:
    """The objects among the things a value may be, in the order of their construction in the file."""
    found = [atom for atom in value if isinstance(atom, Instance)]
    return sorted(found, key=lambda instance: (instance.location, instance.serial))


def in_order(value: Value) -> Sequence[Atom]:
    """The things that a value may be, objects in the order in which they were met: sets have one that varies."""
    return sorted(value, key=lambda atom: atom.serial if isinstance(atom, (Instance, Mystery)) else -1)


def modules(value: Value) -> list[Instance | Mystery]:
    """The objects among the things a value may be that are, or may be, modules."""
    found = [atom for atom in value if isinstance(atom, (Instance, Mystery))]
    return sorted(found, key=lambda atom: (atom.location, atom.serial))


def only_constant(value: Value) -> tuple[bool, Any]:
    """(True, the constant) when the value can be nothing else."""
    if len(value) == 1:
        (atom,) = value
        if isinstance(atom, Constant):
            return True, atom.value
    return False, None
