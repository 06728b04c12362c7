"""The abstract state at one point of a program: what names and attributes hold, and the mode of each module.

What is known of the path that led there (``if training:`` was true) stands in the state too, as *guards*: a mode that
is set on one path and a forward pass that runs on the other have nothing to do with each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bnlint.finding import Location, TraceStep
from bnlint.semantics.values import Atom, Instance, Value, join

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

    ``calls`` are the calls that led there. ``thawed`` is the ``eval()`` of a part alone that this ``train()`` of the
    whole undid.
    """

    step: TraceStep
    by: object = None
    loops: tuple[Location, ...] = ()
    guards: Guards = NO_GUARDS
    calls: tuple[TraceStep, ...] = ()
    thawed: Way | None = None

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
    some of the joined paths put there."""

    slots: dict[tuple[object, str], Value] = field(default_factory=dict)
    modes: dict[Atom, Mode] = field(default_factory=dict)
    doubtful: dict[tuple[object, str], Value] = field(default_factory=dict)
    guards: Guards = NO_GUARDS

    def copy(self) -> State:
        return State(self.slots.copy(), self.modes.copy(), self.doubtful.copy(), self.guards)

    def join(self, other: State) -> State:
        """The state after either of two paths; ``other`` is used up."""
        doubtful = other.doubtful
        for key, atoms in self.doubtful.items():
            doubtful[key] = doubtful.get(key, frozenset()) | atoms
        slots, modes = other.slots, other.modes
        # Most of two branches is the same; the item views find what differs without a loop in Python.
        for key in {key for key, _ in self.slots.items() ^ slots.items()}:
            mine, theirs = self.slots.get(key), slots.get(key)
            owner = key[0]
            if isinstance(owner, Instance) and owner in self.modes and owner in modes:
                atoms = (mine or frozenset()) ^ (theirs or frozenset())
                doubtful[key] = doubtful.get(key, frozenset()) | atoms
            slots[key] = mine or theirs or frozenset() if mine is None or theirs is None else join(mine, theirs)
        common = self.guards & other.guards
        mine_only, theirs_only = self.guards - common, other.guards - common
        for instance, mode in self.modes.items():
            known = modes.get(instance)
            if known is None:
                modes[instance] = mode
            elif known is not mode and known != mode:
                modes[instance] = mode.under(mine_only).join(known.under(theirs_only))
        return State(slots, modes, doubtful, common)

    def assign(self, owner: object, name: str, value: Value) -> None:
        self.slots[owner, name] = value
        self.doubtful.pop((owner, name), None)

    def add(self, owner: Instance, name: str, value: Value) -> None:
        """Add elements to a container."""
        key = (owner, name)
        self.slots[key] = join(self.slots.get(key, frozenset()), value)
        if key in self.doubtful:
            self.doubtful[key] -= value

    def doubt(self, owner: object, name: str, value: Value) -> None:
        """Only some paths put these there."""
        if value:
            self.doubtful[owner, name] = self.doubtful.get((owner, name), frozenset()) | value

    def mode_of(self, module: Atom) -> Mode:
        """The mode of a module at this point, as far as the path there allows."""
        return self.modes.get(module, UNKNOWN_MODE).given(self.guards)

    def forget_tests_of(self, owner: object, name: str) -> None:
        """``name`` gets another value: earlier tests of it say nothing any more."""
        if self.guards:
            self.guards = frozenset(
                g for g in self.guards if g.owner is not owner or not _speaks_of(g.name, name)
            )
        for module, mode in self.modes.items():
            if (mode.train and mode.train.guards) or (mode.eval and mode.eval.guards):
                self.modes[module] = mode.forgetting(owner, name)


def join_all(states: list[State]) -> State | None:
    if not states:
        return None
    result = states[0]
    for state in states[1:]:
        result = result.join(state)
    return result
