"""Where names live: files as the machine sees them, and the frames of running functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bnlint.finding import TraceStep
from bnlint.semantics.state import State
from bnlint.semantics.values import (
    NOTHING,
    Function,
    Instance,
    Mystery,
    Value,
)
from bnlint.source.parse import Segment, Source

Key = tuple[object, ...]


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
    children: dict[Key, Frame] = field(default_factory=dict)
    objects: dict[Key, Instance] = field(default_factory=dict)
    definitions: dict[int, Function] = field(default_factory=dict)
    mysteries: dict[Key, Mystery] = field(default_factory=dict)
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
    """A ``with`` block or decorator in force: ``no_grad``, ``grad``, ``tape``, or of TensorFlow 1 ``defaults`` and
    ``after``, with the defaults or operations ``held``."""

    kind: str
    step: TraceStep
    held: Value = NOTHING
