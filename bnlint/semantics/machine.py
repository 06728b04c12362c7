"""The abstract machine: its state, the frames of running functions, modes of modules, and events.

What is approximated, always towards silence: one object stands for all that its place builds in one chain of
callers; a call that cannot be followed makes the modes of the modules it is given unknown; loops are taken to
run at least once.

One file is analysed, and of the files that it imports just those parts whose names are asked for: what stands in them
is run when it is called, as if it stood in the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bnlint.errors import FileError
from bnlint.finding import Location, TraceStep
from bnlint.frameworks.functions import KERAS_BASES, LAYER_BASES, TORCH_BASES
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.project import Project
from bnlint.semantics.relevance import Relevance
from bnlint.semantics.state import ELEMENTS, UNKNOWN_MODE, Guards, Mode, State, Way
from bnlint.semantics.values import (
    NOTHING,
    Atom,
    BoundFunction,
    Constant,
    Function,
    Instance,
    Method,
    Mystery,
    Part,
    Partial,
    Tape,
    Tuple,
    Unknown,
    Value,
    only_constant,
)
from bnlint.source.parse import Role, Segment, Source
from bnlint.source.positions import Span

#: Work per file before the analysis gives up: a statement is one step, and so is a path of its own, or five parts of
#: a module gone through. 40 000 steps took one to two seconds on the largest files tried.
MAX_STEPS = 40_000
#: Calls in calls that are followed, and those in a second attempt at what is too large for the first: calls beyond are
#: unknown, which is less to go by, but more than nothing.
DEPTHS = (12, 2)

_Key = tuple[object, ...]


class OutOfSteps(Exception):
    """The file is too large or too tangled to be followed to its end."""


@dataclass(eq=False, repr=False)
class Scope:
    """A file as the machine sees it: its outline, and what of it was defined already.

    The names of an imported file, and functions, classes and imports of the analysed one, get their values when they
    are asked for; ``defined`` holds them. ``pending`` are the names whose definition is running.
    """

    source: Source
    imported: bool
    defined: dict[str, Value] = field(default_factory=dict)
    done: set[Segment] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    frame: Frame = field(init=False)

    def __post_init__(self) -> None:
        self.frame = Frame(None, None, None, scope=self, from_script=not self.imported)


@dataclass(eq=False, repr=False)
class Frame:
    """One running function (or the module, or a class body), for one chain of callers.

    ``outer`` is where free names are looked up, ``caller`` who called. Frames, objects and events are kept by
    place, so that running the same place again meets the same ones and a loop can settle.
    """

    function: Function | None
    outer: Frame | None
    caller: Frame | None
    scope: Scope
    call: TraceStep | None = None
    receiver: Instance | None = None
    from_script: bool = False
    children: dict[_Key, Frame] = field(default_factory=dict)
    objects: dict[_Key, Instance] = field(default_factory=dict)
    definitions: dict[int, Function] = field(default_factory=dict)
    mysteries: dict[_Key, Mystery] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    nonlocals: set[str] = field(default_factory=set)
    returned: list[tuple[State, Value]] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)  # in the order of their binding

    def chain(self) -> Iterator[Frame]:
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.caller

    @property
    def depth(self) -> int:
        return sum(1 for _ in self.chain())


@dataclass(frozen=True)
class Context:
    """A ``with`` block or decorator in force: ``no_grad``, ``grad`` or ``tape``."""

    kind: str
    step: TraceStep


class Machine(ABC):
    """State and primitives; ``Interpreter`` adds expressions, calls and statements."""

    def __init__(self, source: Source, project: Project | None) -> None:
        self.project = project
        self.relevance = Relevance(project)
        self.facts = events.FileFacts(source.path, source.imports, source.definitions)
        self.root = Scope(source, imported=False)
        self.scopes: dict[str, Scope] = {source.path: self.root}
        self.frame = self.root.frame
        self.state: State | None = State()
        self.contexts: tuple[Context, ...] = ()
        self.loops: tuple[events.Loop, ...] = ()
        self.comprehended: frozenset[str] = frozenset()  # names in what comprehensions go through
        self.steps = 0.0
        self.limit = MAX_STEPS
        self.max_depth = DEPTHS[0]
        self.before_raise = self.state.copy()
        self.narrowed: dict[str, str] = {}  # names that an enclosing ``if isinstance(...)`` shows to be a layer
        self.name_tests: tuple[tuple[str, bool], ...] = ()  # the words in the tests around, and how those came out
        self.tested: set[tuple[object, str]] = set()  # names that a guard may speak of
        self.statement: ir.Stmt | None = None
        self.block: Span | None = None
        self.fields: dict[Atom, dict[str, None]] = {}  # an ordered set per object
        self._events: dict[_Key, object] = {}

    @abstractmethod
    def run_block(self, body: tuple[ir.Stmt, ...]) -> None: ...

    def spend(self, steps: float) -> None:
        self.steps += steps
        if self.steps > self.limit:
            raise OutOfSteps

    # Places

    def location(self, span: Span | None) -> Location:
        if span is None and self.statement is not None:
            span = self.statement.span
        return Location(self.frame.scope.source.path, *(span or Span(1, 1, 1, 1)))

    def surroundings(self) -> events.Surroundings:
        frames = [frame for frame in reversed(list(self.frame.chain())) if frame.function is not None]
        functions = [frame.function for frame in frames if frame.function is not None]
        no_grad = next((c for c in reversed(self.contexts) if c.kind in ("no_grad", "grad")), None)
        tape = next((c for c in reversed(self.contexts) if c.kind == "tape"), None)
        return events.Surroundings(
            functions=tuple(function.name for function in functions),
            classes=tuple(function.owner for function in functions if function.owner is not None),
            calls=tuple(frame.call for frame in frames if frame.call is not None),
            loops=self.loops,
            no_grad=no_grad.step if no_grad is not None and no_grad.kind == "no_grad" else None,
            tape=tape.step if tape is not None else None,
            from_script=self.frame.from_script,
        )

    # Names

    def lookup(self, name: str) -> Value | None:
        assert self.state is not None
        frame: Frame | None = self.frame
        if name in self.frame.globals:
            frame = self.frame.scope.frame
        while frame is not None:
            value = self.state.slots.get((frame, name))
            if value is not None:
                return value
            if frame.outer is None:
                return self.demand(frame.scope, name)
            frame = frame.outer
        return None

    def bind(self, name: str, value: Value) -> None:
        assert self.state is not None
        frame = self.frame
        if name in frame.globals:
            frame = frame.scope.frame
        elif name in frame.nonlocals:
            outer = frame.outer
            while outer is not None and (outer, name) not in self.state.slots:
                outer = outer.outer
            frame = outer or frame
        frame.names[name] = None
        self.state.slots[frame, name] = value
        if (frame, name) in self.tested:
            self.state.forget_tests_of(frame, name)

    def demand(self, scope: Scope, name: str) -> Value | None:
        """The value of a global name, running the statements that define it if they have not run yet."""
        if name in scope.defined:
            return scope.defined[name]
        if name in scope.pending:
            return None
        segments = [segment for segment in scope.source.binding.get(name, ()) if self.is_on_demand(scope, segment)]
        scope.pending.add(name)
        for segment in segments:
            if segment.role is Role.IMPORT:
                self._define_import(scope, segment, name)
            elif segment not in scope.done:
                scope.done.add(segment)
                self._define(scope, segment)
        scope.pending.discard(name)
        if name not in scope.defined and not scope.source.binding.get(name):
            found = self.from_star_import(scope, name)
            if found is not None:
                scope.defined[name] = found
        return scope.defined.get(name)

    @abstractmethod
    def from_star_import(self, scope: Scope, name: str) -> Value | None: ...

    def is_on_demand(self, scope: Scope, segment: Segment) -> bool:
        """The analysed file's code runs in its order, but for what does nothing but define a name."""
        if scope.imported or segment.role in (Role.DEFINITION, Role.IMPORT):
            return True
        return segment.role is Role.ASSIGNMENT and all(len(scope.source.binding[n]) == 1 for n in segment.binds)

    @abstractmethod
    def imported(self, qualified: str, member: bool) -> Value: ...

    def _define_import(self, scope: Scope, segment: Segment, name: str) -> None:
        """Follow an import for one of the names that it binds."""
        frame, self.frame = self.frame, scope.frame
        for statement in self.statements_of(scope, segment):
            if isinstance(statement, ir.Import):
                for local, qualified in statement.bindings:
                    if local == name:
                        scope.defined[name] = self.imported(qualified, statement.member)
        self.frame = frame

    def _define(self, scope: Scope, segment: Segment) -> None:
        """Run a statement of a file for the names that it binds."""
        assert self.state is not None
        saved = (self.frame, self.contexts, self.loops, self.statement, self.block)
        self.frame, self.contexts, self.loops = scope.frame, (), ()
        before = self.state
        self.run_block(self.statements_of(scope, segment))
        if self.state is None:  # it raises, or leaves the program
            self.state = before
        for name in segment.binds:
            value = self.state.slots.pop((scope.frame, name))
            if value is not None:
                scope.defined[name] = value
                code = scope.imported and segment.role not in (Role.DEFINITION, Role.IMPORT)
                if code and name in scope.source.moded:
                    self.forget_modes(value)  # other code of that file sets them, and is not run
        self.frame, self.contexts, self.loops, self.statement, self.block = saved

    def statements_of(self, scope: Scope, segment: Segment) -> tuple[ir.Stmt, ...]:
        known: tuple[ir.Stmt, ...] | None = scope.source.lowered.get(segment)
        if known is None:
            from bnlint.semantics.lowering import lower_segment  # imports libcst, which takes a while

            try:
                known = lower_segment(scope.source.path, segment)
            except FileError:
                if not scope.imported:
                    raise
                return ()  # not kept: where the file itself is linted, this is reported
            scope.source.lowered[segment] = known
        return known

    # Objects

    def new_object(self, node: object, kind: str, span: Span | None, **facts: object) -> tuple[Instance, bool]:
        """The object that ``node`` builds in this frame, and whether it is met for the first time."""
        key = (id(node), kind, id(facts.get("cls")))
        known = self.frame.objects.get(key)
        first = known is None
        if known is None:
            known = Instance(kind, self.location(span), **facts)  # type: ignore[arg-type]
            self.frame.objects[key] = known
        assert self.state is not None
        for name in self.fields.get(known, ()):
            self.state.slots.pop((known, name))  # built anew
        if known.framework == "torch":
            built = TraceStep(known.location, "built here; a new module is in train mode")
            self.state.set_mode(known, Mode(train=Way(built)))
        else:
            self.state.set_mode(known, UNKNOWN_MODE)
        return known, first

    def mystery(self, key: _Key, name: str, span: Span | None) -> Mystery:
        """The unknown thing that a place of this frame stands for."""
        known = self.frame.mysteries.get(key)
        if known is None:
            known = Mystery(self.location(span), name)
            self.frame.mysteries[key] = known
        return known

    def part_of_mystery(self, whole: Atom, name: str, span: Span | None = None) -> Mystery:
        """An attribute of something unknown, or an unknown attribute of an object."""
        if isinstance(whole, Mystery):
            children = whole.children
        else:
            assert isinstance(whole, Instance)
            children = whole.unknown_attributes
        known = children.get(name)
        if known is None:
            known = children[name] = Mystery(self.location(span), name, whole)
        return known

    def set_field(self, owner: Atom, name: str, value: Value) -> None:
        assert self.state is not None
        self.fields.setdefault(owner, {})[name] = None
        self.state.assign(owner, name, value)

    def add_elements(self, owner: Instance, value: Value, doubtful: Value = NOTHING) -> None:
        """Add to a collection; ``doubtful`` are those of the elements that only some paths give it."""
        assert self.state is not None
        held = self.state.slots.get((owner, ELEMENTS)) or NOTHING
        self.fields.setdefault(owner, {})[ELEMENTS] = None
        self.state.add(owner, ELEMENTS, value)
        self.state.doubt(owner, ELEMENTS, (doubtful & value) - held)

    def doubtful_in(self, value: Value) -> Value:
        """What a collection or its elements may turn out not to be: alternatives, and doubtful elements."""
        assert self.state is not None
        doubt = value if len(value) > 1 else NOTHING
        for owner in value:
            if isinstance(owner, Instance):
                for name in self.fields.get(owner, ()):
                    doubt |= self.state.doubtful.get((owner, name)) or NOTHING
        return doubt

    def field_values(self, owner: Atom) -> Iterator[tuple[str, Value]]:
        assert self.state is not None
        for name in self.fields.get(owner, ()):
            value = self.state.slots.get((owner, name))
            if value is not None:
                yield name, value

    def elements(self, value: Value) -> Value:
        """What iterating over a value gives; nothing for what is no known collection."""
        assert self.state is not None
        found: frozenset[Atom] = NOTHING
        for atom in value:
            if isinstance(atom, Tuple):
                for item in atom.items:
                    found |= item
            elif isinstance(atom, Instance):
                for _, held in self.field_values(atom):
                    found |= held
        return found

    # Modules

    @staticmethod
    def framework_of_bases(bases: frozenset[str]) -> str | None:
        if bases & TORCH_BASES or bases & LAYER_BASES.keys():
            return "torch"
        if bases & KERAS_BASES:
            return "keras"
        return next((LAYERS[base].framework for base in sorted(bases) if base in LAYERS), None)

    def parts(self, whole: Instance | Mystery) -> tuple[list[tuple[Instance | Mystery, bool]], bool]:
        """All modules in ``whole``, itself first, each with whether it is surely there; and whether there may be
        others that are not known."""
        assert self.state is not None
        found: dict[Instance | Mystery, bool] = {}
        settings: set[Mystery] = set()  # numbers, data and the like, which nothing calls
        unknown = False
        stack: list[tuple[Instance | Mystery, bool]] = [(whole, True)]
        while stack:
            instance, certain = stack.pop()
            if found.get(instance, False) or (instance in found and not certain):
                continue
            found[instance] = certain
            if isinstance(instance, Mystery):
                unknown |= instance not in settings
                stack += [(child, False) for child in instance.children.values()]
                settings.update(instance.children.values() if instance in settings else ())
            else:
                if instance.cls is not None and instance.cls.has_unknown_base:
                    unknown = True
                for name, child in instance.unknown_attributes.items():
                    stack.append((child, certain))
                    if not _may_be_module(instance, name):
                        settings.add(child)
            self.spend(0.2)
            for name, value in self.field_values(instance):
                doubts = self.state.doubtful.get((instance, name)) or NOTHING
                alternatives = name != ELEMENTS and len(value) > 1
                for atom in value:
                    if isinstance(atom, Mystery) and not _may_be_module(instance, name):
                        settings.add(atom)
                    elif isinstance(atom, Unknown) and _may_be_module(instance, name):
                        unknown = True
                    held = [atom] if isinstance(atom, (Instance, Mystery)) else []
                    if isinstance(atom, Tuple) and whole_framework(instance) != "torch":  # Keras tracks collections
                        held = [a for item in atom.items for a in item if isinstance(a, (Instance, Mystery))]
                    for part in held:
                        doubtful = alternatives or atom in doubts
                        if isinstance(part, Mystery):
                            stack.append((part, certain and not doubtful))
                            continue
                        registered = part.framework is not None or (
                            whole_framework(whole) == "keras" and part.kind.startswith("builtins.")
                        )
                        if registered:
                            stack.append((part, certain and not doubtful))
        return list(found.items()), unknown

    def mode_dependent_layers(self, whole: Instance | Mystery) -> tuple[list[events.Layer], bool]:
        assert self.state is not None
        parts, unknown = self.parts(whole)
        kinds = [part for part, _ in parts if isinstance(part, Instance) and part.kind in LAYERS]
        depends: dict[Instance | Mystery, bool | None] = {part: _depends_on_mode(part) for part in kinds}
        unknown |= None in depends.values()
        layers = [
            events.Layer(
                part,
                self.state.mode_of(part) if part.framework == "torch" else None,
                certain,
                frozen=self.may_be_frozen(part, parts),
            )
            for part, certain in parts
            if isinstance(part, Instance) and depends.get(part)
        ]
        layers.sort(key=lambda layer: layer.instance.location)
        return layers, unknown

    def may_be_frozen(self, layer: Instance, parts: list[tuple[Instance | Mystery, bool]]) -> bool:
        if layer.framework != "keras":
            return False
        holders = [layer, *(part for part, _ in parts)]
        values = [self.state.slots.get((holder, "trainable")) for holder in holders]  # type: ignore[union-attr]
        values.append(layer.arguments.get("trainable"))
        return any(value is not None and only_constant(value) != (True, True) for value in values)

    def way(self, what: str, span: Span | None, by: Atom, guards: Guards = frozenset()) -> Way:
        """A way into a mode by a call at ``span`` in the current place."""
        assert self.state is not None
        loops = tuple(loop.location for loop in self.loops)
        calls = tuple(frame.call for frame in reversed(list(self.frame.chain())) if frame.call is not None)
        return Way(TraceStep(self.location(span), what), by, loops, guards | self.state.guards, calls)

    def set_mode(self, whole: Instance | Mystery, mode: Mode, kinds: frozenset[str] = frozenset()) -> None:
        """What ``whole.train(...)`` and ``whole.eval()`` do: the mode of everything registered in it.

        ``kinds`` restricts that to layers of these kinds.
        """
        assert self.state is not None
        self.facts.mode_managed.add(whole)
        parts = self.parts(whole)[0]
        for part, _ in parts:  # one that may be missing is either here, or nowhere
            if kinds and not (isinstance(part, Instance) and part.kind in kinds):
                continue
            known = self.state.mode_of(part)
            new = _thawing(known, mode, whole, parts) if mode.train is not None else _frozen(known, mode, whole)
            self.state.set_mode(part, new)

    def doubt_parts(self, whole: Instance | Mystery) -> None:
        """Anything in ``whole`` may have been replaced by something else."""
        for part, _ in self.parts(whole)[0]:
            if isinstance(part, Instance):
                self.doubt_attributes(part)

    def doubt_attributes(self, owner: Instance) -> None:
        assert self.state is not None
        for name, value in self.field_values(owner):
            self.state.doubt(owner, name, value)

    def forget_modes(self, value: Value) -> None:
        """Something that cannot be followed was given these objects: their modes are unknown from here on."""
        assert self.state is not None
        stack, seen = list(value), set()
        while stack:
            atom = stack.pop()
            if isinstance(atom, Tuple):
                stack += [inner for item in atom.items for inner in item]
            elif isinstance(atom, (BoundFunction, Method)):
                stack.append(atom.receiver if isinstance(atom, BoundFunction) else atom.owner)
            elif isinstance(atom, Partial):
                stack += [inner for given, _ in atom.positional for inner in given]
                stack += [inner for _, keyword, _ in atom.keywords for inner in keyword]
            elif isinstance(atom, Part):
                stack.append(atom.whole)
            if not isinstance(atom, (Instance, Mystery)) or atom in seen:
                continue
            seen.add(atom)
            self.spend(0.2)
            if atom in self.state.modes:
                self.state.set_mode(atom, UNKNOWN_MODE)
            if isinstance(atom, Mystery):
                stack += list(atom.children.values())
            else:
                stack += list(atom.unknown_attributes.values())
                if atom.framework == "keras":
                    self.facts.settled.add(atom)
            for _, held in self.field_values(atom):
                stack += list(held)

    def event(self, node: object, kind: type, *more: object) -> tuple[_Key, object | None]:
        """The key of the event of this place and chain of callers, and the event if it was met before."""
        key = (kind, id(node), id(self.frame), *more)
        return key, self._events.get(key)

    def remember(self, key: _Key, event: object) -> None:
        self._events[key] = event

    def tape_location(self, value: Value) -> Location | None:
        tapes = [atom.location for atom in value if isinstance(atom, Tape)]
        return tapes[0] if len(tapes) == 1 else None


def whole_framework(whole: Instance | Mystery) -> str | None:
    return whole.framework if isinstance(whole, Instance) else None


def _may_be_module(owner: Instance | Mystery, name: str) -> bool:
    """Whether an attribute of unknown make may be a module: in a class of the project, one that its code calls."""
    cls = owner.cls if isinstance(owner, Instance) else None
    return cls is None or name == ELEMENTS or cls.may_call(name)


def _frozen(known: Mode, mode: Mode, whole: Instance | Mystery) -> Mode:
    """An ``eval()`` of the whole changes nothing of a part that is, or may be, in eval mode for reasons of its own."""
    return Mode(eval=known.eval) if known.eval is not None and known.eval.by is not whole else mode


def _thawing(known: Mode, mode: Mode, whole: Instance | Mystery, parts: list[tuple[Instance | Mystery, bool]]) -> Mode:
    """``mode``, remembering the ``eval()`` of a smaller part that this ``train()`` of the whole undoes."""
    frozen = known.eval
    if frozen is None or mode.train is None:
        return mode
    by = frozen.by.whole if isinstance(frozen.by, Part) else frozen.by
    if frozen.by is whole or not any(part is by for part, _ in parts):
        return mode
    return Mode(replace(mode.train, thawed=frozen), mode.eval)


def _depends_on_mode(layer: Instance) -> bool | None:
    """Not so for dropout of probability zero and for torch layers that keep no running statistics; None where the
    argument that decides it is not known."""
    facts = LAYERS[layer.kind]
    name = facts.parameters[0] if facts.kind == "dropout" else "track_running_stats"
    if facts.kind != "dropout" and facts.framework != "torch":
        return True
    value = layer.arguments.get(name, frozenset({Constant(facts.defaults.get(name))}))
    atoms = [atom for atom in value if isinstance(atom, Constant)]
    return bool(atoms[0].value) if len(atoms) == len(value) == 1 else None
