"""The abstract state at one point of a program: what names and attributes hold, and the mode of each module.

What is known of the path that led there (``if training:`` was true) stands in the state too, as *guards*: a mode that
is set on one path and a forward pass that runs on the other have nothing to do with each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from bnlint.finding import Location, TraceStep
from bnlint.semantics.layered import Layered
from bnlint.semantics.values import NOTHING, Atom, Instance, Value, join

#: The name under which a list, dict or container holds its elements.
ELEMENTS = "[]"


@dataclass(frozen=True, slots=True)
class Guard:
    """A test that came out ``truth``: of ``name`` in the scope ``owner``, alone (``wanted`` is None) or against the
    constants ``wanted``."""

    owner: object
    name: str
    wanted: tuple[object, ...] | None
    truth: bool

    def excludes(self, other: Guard) -> bool:
        """Whether both cannot hold of the same value."""
        if self.owner is not other.owner or self.name != other.name:
            return False
        if self.wanted == other.wanted:
            return self.truth is not other.truth
        if self.wanted is None or other.wanted is None:
            return False
        if self.truth and other.truth:
            return not set(self.wanted) & set(other.wanted)
        if self.truth or other.truth:
            positive, negative = (self, other) if self.truth else (other, self)
            return set(positive.wanted or ()) <= set(negative.wanted or ())
        return False


Guards = frozenset[Guard]
NO_GUARDS: Guards = frozenset()


def compatible(left: Guards, right: Guards) -> bool:
    """Whether there can be a path on which all of these hold."""
    return not any(a.excludes(b) for a in left for b in right)


@dataclass(frozen=True, slots=True)
class Way:
    """How a module came into a mode: the step, whose ``train()`` or ``eval()`` it was (``by``, None for the mode that
    it was built in), the loops around that call, and the guards under which it happened.

    ``calls`` are the calls that led there. ``asked`` tells that a test of something named after training came out true
    just before. ``thawed`` is the ``eval()`` of a part alone that this ``train()`` of the
    whole undid.
    """

    step: TraceStep
    by: object = None
    loops: tuple[Location, ...] = ()
    guards: Guards = NO_GUARDS
    calls: tuple[TraceStep, ...] = ()
    thawed: Way | None = None
    asked: bool = False

    @property
    def location(self) -> Location:
        return self.step.location

    def under(self, guards: Guards) -> Way:
        return replace(self, guards=self.guards | guards) if guards else self

    def forgetting(self, owner: object, name: str) -> Way:
        """The way after ``name`` got another value: what was known of it no longer tells anything."""
        kept = frozenset(g for g in self.guards if g.owner is not owner or not _speaks_of(g.name, name))
        return self if len(kept) == len(self.guards) else replace(self, guards=kept)


@dataclass(frozen=True, slots=True)
class Mode:
    """The modes that a module may be in, each with the way into it; unknown when both are None."""

    train: Way | None = None
    eval: Way | None = None

    @property
    def known(self) -> bool:
        return self.train is not None or self.eval is not None

    @property
    def surely_train(self) -> bool:
        return self.train is not None and self.eval is None

    @property
    def surely_eval(self) -> bool:
        return self.eval is not None and self.train is None

    def join(self, other: Mode) -> Mode:
        if self == other:
            return self
        if not self.known or not other.known:
            return UNKNOWN_MODE
        return Mode(_join_ways(self.train, other.train), _join_ways(self.eval, other.eval))

    def under(self, guards: Guards) -> Mode:
        """The mode as it came about on a path with these guards."""
        if not guards or not self.known:
            return self
        return Mode(self.train and self.train.under(guards), self.eval and self.eval.under(guards))

    def given(self, guards: Guards) -> Mode:
        """What is left of the mode where these guards hold."""
        if not guards:
            return self
        train = self.train if self.train and compatible(self.train.guards, guards) else None
        evaluating = self.eval if self.eval and compatible(self.eval.guards, guards) else None
        return Mode(train, evaluating)

    @property
    def guarded(self) -> bool:
        return bool((self.train and self.train.guards) or (self.eval and self.eval.guards))

    def forgetting(self, owner: object, name: str) -> Mode:
        train = self.train and self.train.forgetting(owner, name)
        evaluating = self.eval and self.eval.forgetting(owner, name)
        return self if train is self.train and evaluating is self.eval else Mode(train, evaluating)


UNKNOWN_MODE = Mode()


def _join_ways(left: Way | None, right: Way | None) -> Way | None:
    if left is None or right is None:
        return left or right
    if right.thawed is not None and left.thawed is None:  # what a way tells of a freeze is kept
        left, right = right, left
    if left.guards == right.guards:
        return left
    return replace(left, guards=left.guards & right.guards)


def _speaks_of(name: str, changed: str) -> bool:
    """Whether a guard on ``name`` (``self.flag``) says something of ``changed`` (``self``)."""
    return name == changed or name.startswith(changed + ".")


@dataclass(slots=True)
class State:
    """``slots`` maps (frame or object, name) to a value. ``doubtful`` holds, for attributes and collections, what only
    some of the joined paths put there. ``guarded`` are the modules whose mode may depend on a test, ``freezes`` the
    events of parameters whose gradients were switched off on the way."""

    slots: Layered[tuple[object, str], Value] = field(default_factory=Layered)
    modes: Layered[Atom, Mode] = field(default_factory=Layered)
    doubtful: Layered[tuple[object, str], Value] = field(default_factory=Layered)
    guards: Guards = NO_GUARDS
    guarded: set[Atom] = field(default_factory=set)  # shared by all copies: those of one path count on all
    freezes: frozenset[Any] = frozenset()

    def copy(self) -> State:
        copies = self.slots.copy(), self.modes.copy(), self.doubtful.copy()
        return State(*copies, self.guards, self.guarded, self.freezes)

    def join(self, other: State) -> State:
        """The state after either of two paths; ``other`` is used up."""
        slots, modes, doubtful = other.slots, other.modes, other.doubtful
        for key, mine, theirs in list(self.doubtful.differing(doubtful)):
            doubtful[key] = (mine or NOTHING) | (theirs or NOTHING)
        for key, mine, theirs in list(self.slots.differing(slots)):
            if mine == theirs:
                continue
            owner = key[0]
            if isinstance(owner, Instance) and owner in self.modes and owner in modes:
                doubtful[key] = (doubtful.get(key) or NOTHING) | ((mine or NOTHING) ^ (theirs or NOTHING))
            slots[key] = join(mine, theirs) if mine is not None and theirs is not None else mine or theirs or NOTHING
        common = self.guards & other.guards
        mine_only, theirs_only = self.guards - common, other.guards - common
        for module, mode, known in list(self.modes.differing(modes)):
            if known is None and mode is not None:
                modes[module] = mode
                self._note(module, mode)
            elif mode is not None and known is not None and known != mode:
                both = modes[module] = mode.under(mine_only).join(known.under(theirs_only))
                self._note(module, both)
        return State(slots, modes, doubtful, common, self.guarded, self.freezes | other.freezes)

    def set_mode(self, module: Atom, mode: Mode) -> None:
        self.modes[module] = mode
        self._note(module, mode)

    def _note(self, module: Atom, mode: Mode) -> None:
        if mode.guarded:
            self.guarded.add(module)

    def assign(self, owner: object, name: str, value: Value) -> None:
        self.slots[owner, name] = value
        self.doubtful.pop((owner, name))

    def add(self, owner: Instance, name: str, value: Value) -> None:
        """Add elements to a container."""
        key = (owner, name)
        self.slots[key] = join(self.slots.get(key) or NOTHING, value)
        doubted = self.doubtful.get(key)
        if doubted is not None:
            self.doubtful[key] = doubted - value

    def doubt(self, owner: object, name: str, value: Value) -> None:
        """Only some paths put these there."""
        if value:
            self.doubtful[owner, name] = (self.doubtful.get((owner, name)) or NOTHING) | value

    def mode_of(self, module: Atom) -> Mode:
        """The mode of a module at this point, as far as the path there allows."""
        return (self.modes.get(module) or UNKNOWN_MODE).given(self.guards)

    def forget_tests_of(self, owner: object, name: str) -> None:
        """``name`` gets another value: earlier tests of it say nothing any more."""
        if self.guards:
            self.guards = frozenset(g for g in self.guards if g.owner is not owner or not _speaks_of(g.name, name))
        for module in self.guarded:
            mode = self.modes.get(module)
            if mode is not None and (without := mode.forgetting(owner, name)) is not mode:
                self.modes[module] = without


def join_all(states: list[State]) -> State | None:
    if not states:
        return None
    result = states[0]
    for state in states[1:]:
        result = result.join(state)
    return result
