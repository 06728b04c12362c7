"""Where an event stands, and the layers and freezes that several kinds of events speak of."""

from __future__ import annotations

from dataclasses import dataclass

from bnlint.finding import Location, TraceStep
from bnlint.semantics.state import Mode
from bnlint.semantics.values import Class, Instance, Mystery


@dataclass
class Layer:
    """A BatchNorm, InstanceNorm or Dropout layer inside the object that is run.

    ``certain`` is false where only some paths of the program give the object this layer. ``mode`` is joined
    over the passes that saw the call; None for Keras, where the call decides.
    """

    instance: Instance
    mode: Mode | None
    certain: bool
    frozen: bool = False  # Keras: ``trainable`` is or may be False


@dataclass(frozen=True)
class Loop:
    """A loop around an event; ``reads`` are the names in its iterable (``train_loader``)."""

    location: Location
    reads: frozenset[str]


@dataclass(frozen=True)
class Batches:
    """What a loader that is built at ``location`` gives: batches of so many samples."""

    location: Location
    samples: int


@dataclass
class Surroundings:
    """Where an event stands.

    ``functions`` are the names of the functions that are running, outermost first (empty at module level),
    ``classes`` the classes whose methods they are. ``calls`` are the call steps of the trace. ``from_script``
    tells that execution came from the module's own top-level code. ``tapes`` are all that record, innermost first.
    """

    functions: tuple[str, ...]
    classes: tuple[Class, ...]
    calls: tuple[TraceStep, ...]
    loops: tuple[Loop, ...]
    no_grad: TraceStep | None
    tapes: tuple[TraceStep, ...]
    from_script: bool


@dataclass(eq=False)
class Freeze:
    """The gradients of a module's parameters are switched off. ``names`` are those in the loop over them, or of the
    module; ``parts`` are the module and all in it at that point; ``undone`` where they are switched on again."""

    location: Location
    names: frozenset[str]
    owner: Instance | Mystery
    parts: frozenset[Instance | Mystery]
    where: Surroundings
    undone: bool = False
