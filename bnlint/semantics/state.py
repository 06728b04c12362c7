"""The abstract state at one point of a program: what names and attributes hold, and the mode of each module."""

from __future__ import annotations

from dataclasses import dataclass, field

from bnlint.finding import TraceStep
from bnlint.semantics.values import Atom, Instance, Value, join

#: The name under which a list, dict or container holds its elements.
ELEMENTS = "[]"


@dataclass(frozen=True, slots=True)
class Mode:
    """The modes that a module may be in, each with the step that put it there; unknown when both are None."""

    train: TraceStep | None = None
    eval: TraceStep | None = None

    @property
    def surely_train(self) -> bool:
        return self.train is not None and self.eval is None

    def join(self, other: Mode) -> Mode:
        if self == other:
            return self
        if UNKNOWN_MODE in (self, other):
            return UNKNOWN_MODE
        return Mode(self.train or other.train, self.eval or other.eval)


UNKNOWN_MODE = Mode()


@dataclass(slots=True)
class State:
    """``slots`` maps (frame or object, name) to a value. ``doubtful`` lists attributes and elements that only
    some of the joined paths set."""

    slots: dict[tuple[object, str], Value] = field(default_factory=dict)
    modes: dict[Instance, Mode] = field(default_factory=dict)
    doubtful: frozenset[tuple[Instance, str, Atom]] = frozenset()

    def copy(self) -> State:
        return State(self.slots.copy(), self.modes.copy(), self.doubtful)

    def join(self, other: State) -> State:
        """The state after either of two paths; ``other`` is used up."""
        doubtful = set(self.doubtful | other.doubtful)
        slots, modes = other.slots, other.modes
        # Most of two branches is the same; the item views find what differs without a loop in Python.
        for key in {key for key, _ in self.slots.items() ^ slots.items()}:
            mine, theirs = self.slots.get(key), slots.get(key)
            owner, name = key
            if isinstance(owner, Instance) and owner in self.modes and owner in modes:
                atoms = (mine or frozenset()) ^ (theirs or frozenset())
                doubtful.update((owner, name, atom) for atom in atoms)
            slots[key] = mine or theirs or frozenset() if mine is None or theirs is None else join(mine, theirs)
        for instance, mode in self.modes.items():
            known = modes.get(instance)
            if known is not mode:
                modes[instance] = mode if known is None else mode.join(known)
        return State(slots, modes, frozenset(doubtful))

    def assign(self, owner: object, name: str, value: Value) -> None:
        self.slots[owner, name] = value
        if isinstance(owner, Instance) and self.doubtful:
            self.doubtful = frozenset(d for d in self.doubtful if d[0] is not owner or d[1] != name)

    def add(self, owner: Instance, name: str, value: Value) -> None:
        """Add elements to a container."""
        self.slots[owner, name] = join(self.slots.get((owner, name), frozenset()), value)
        if self.doubtful:
            self.doubtful = frozenset(
                d for d in self.doubtful if d[0] is not owner or d[1] != name or d[2] not in value
            )


def join_all(states: list[State]) -> State | None:
    if not states:
        return None
    result = states[0]
    for state in states[1:]:
        result = result.join(state)
    return result
