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
        """The state after either of two paths. Both may be given up by the caller."""
        doubtful = set(self.doubtful | other.doubtful)
        for mine, theirs in ((self, other), (other, self)):
            for key, value in mine.slots.items():
                owner, name = key
                there = theirs.slots.get(key)
                if isinstance(owner, Instance) and there != value and owner in theirs.modes:
                    doubtful.update((owner, name, atom) for atom in value - (there or frozenset()))
        slots = other.slots.copy()
        for key, value in self.slots.items():
            there = slots.get(key)
            slots[key] = value if there is None else join(value, there)
        modes = other.modes.copy()
        for instance, mode in self.modes.items():
            known = modes.get(instance)
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
