"""The abstract machine: its state, names, objects and events.

What is approximated, always towards silence: one object stands for all that its place builds in one chain of
callers; a call that cannot be followed makes the modes of the modules it is given unknown; loops are taken to
run at least once.

One file is analysed, and of the files that it imports just those parts whose names are asked for: what stands in them
is run when it is called, as if it stood in the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from bnlint.assumptions import NOTHING_ASSUMED
from bnlint.errors import FileError
from bnlint.finding import Location, TraceStep
from bnlint.semantics import events, ir
from bnlint.semantics.assumed import refined
from bnlint.semantics.frames import Context, Frame, Key, Scope
from bnlint.semantics.project import Project
from bnlint.semantics.relevance import Relevance
from bnlint.semantics.state import ELEMENTS, UNKNOWN_MODE, Mode, State, Way
from bnlint.semantics.teaching import Lessons
from bnlint.semantics.values import (
    NOTHING,
    Atom,
    Instance,
    Mystery,
    Tape,
    Tuple,
    Value,
    join,
)
from bnlint.source.parse import Role, Segment, Source
from bnlint.source.positions import Span

#: Work per file before the analysis gives up: a statement is one step, and so is a path of its own, or five parts of
#: a module gone through. 40 000 steps took one to two seconds on the largest files tried.
MAX_STEPS = 40_000
#: Calls in calls that are followed, and those in a second attempt at what is too large for the first: calls beyond are
#: unknown, which is less to go by, but more than nothing.
DEPTHS = (12, 2)
#: Calls in calls that are followed where only what modules are made of counts, and no modes: constructors in
#: constructors, mostly.
STRUCTURE_DEPTH = 6


class OutOfSteps(Exception):
    """The file is too large or too tangled to be followed to its end."""


class Machine(ABC):
    """State and primitives; ``Interpreter`` adds expressions, calls and statements."""

    def __init__(self, source: Source, project: Project | None) -> None:
        self.project = project
        self.relevance = Relevance(project)
        assumptions = refined(project.assumptions if project is not None else NOTHING_ASSUMED, source)
        self.facts = events.FileFacts(source.path, assumptions, source.imports, source.definitions)
        self.lessons = Lessons(assumptions.teaching)
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
        self.asked = False  # whether this is the true branch of a test that names training
        self.tested: set[tuple[object, str]] = set()  # names that a guard may speak of
        self.statement: ir.Stmt | None = None
        self.block: Span | None = None
        self.fields: dict[Atom, dict[str, None]] = {}  # an ordered set per object
        self.entries: dict[tuple[Instance, str], ir.Expr] = {}  # of dicts that are written out
        self._events: dict[Key, object] = {}

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
        return events.Surroundings(
            functions=tuple(function.name for function in functions),
            classes=tuple(function.owner for function in functions if function.owner is not None),
            calls=tuple(frame.call for frame in frames if frame.call is not None),
            loops=self.loops,
            no_grad=no_grad.step if no_grad is not None and no_grad.kind == "no_grad" else None,
            tapes=tuple(context.step for context in reversed(self.contexts) if context.kind == "tape"),
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
            if segment.role is Role.IMPORT or (scope.imported and name in segment.imported):
                self._define_import(scope, segment, name)
            elif segment not in scope.done:
                scope.done.add(segment)
                self._define(scope, segment)
        if name not in scope.defined and not scope.source.binding.get(name):
            found = self.from_star_import(scope, name)  # still pending: files may import each other
            if found is not None:
                scope.defined[name] = found
        scope.pending.discard(name)
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
        """Follow an import for one of the names that it binds; the imports, where they are alternatives."""
        frame, self.frame = self.frame, scope.frame
        found: Value = NOTHING
        for statement in ir.nodes(self.statements_of(scope, segment), nested=False):
            if isinstance(statement, ir.Import):
                for local, qualified in statement.bindings:
                    if local == name:
                        value = self.imported(qualified, statement.member)
                        found = value if segment.role is Role.IMPORT else join(found, value)
        if found:
            scope.defined[name] = found
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

    def mystery(self, key: Key, name: str, span: Span | None) -> Mystery:
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

    @abstractmethod
    def forget_modes(self, value: Value) -> None:
        """Something that cannot be followed was given these objects."""

    def event(self, node: object, kind: type, *more: object) -> tuple[Key, object | None]:
        """The key of the event of this place and chain of callers, and the event if it was met before."""
        key = (kind, id(node), id(self.frame), *more)
        return key, self._events.get(key)

    def remember(self, key: Key, event: object) -> None:
        self._events[key] = event

    def tape_location(self, value: Value) -> Location | None:
        tapes = [atom.location for atom in value if isinstance(atom, Tape)]
        return tapes[0] if len(tapes) == 1 else None
