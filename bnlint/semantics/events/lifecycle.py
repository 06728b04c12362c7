"""Modules are exported, averaged, saved and loaded."""

from __future__ import annotations

from dataclasses import dataclass

from bnlint.finding import Location, TraceStep
from bnlint.semantics.events.modes import Forward
from bnlint.semantics.events.places import Layer, Surroundings
from bnlint.semantics.state import Mode
from bnlint.semantics.values import Instance, Mystery, Value


@dataclass(eq=False)
class Exported:
    """A library function makes something lasting of a module as it stands: it traces, exports or fuses it; or it runs
    it as it stands to describe it.

    ``function`` is its name, ``how`` what it does (``bnlint.frameworks.functions.EXPORTERS``, or ``profile``),
    ``receiver`` the module as written, ``alone`` whether the argument can be nothing else. ``arguments`` are those
    given by name.
    """

    location: Location
    function: str
    how: str
    receiver: str | None
    target: Instance | Mystery
    mode: Mode
    layers: list[Layer]
    owns_unknown: bool
    alone: bool
    arguments: dict[str, Value]
    where: Surroundings
    statement: Location
    block: Location | None


@dataclass(eq=False)
class Averaged:
    """Parameters of ``target`` are set in place from those of ``source``, which a loop goes through as ``names`` tells
    (``parameters``, ``state_dict``). ``averages`` tells that their old values count too."""

    location: Location
    target: Instance | Mystery
    source: Instance | Mystery
    names: str
    averages: bool
    layers: list[Layer]
    owns_unknown: bool
    where: Surroundings


@dataclass(eq=False)
class AveragedModel:
    """``AveragedModel(model)``: ``target`` is the wrapper, with a copy of the model in it."""

    location: Location
    target: Instance
    parts: frozenset[Instance | Mystery]
    layers: list[Layer]
    arguments: dict[str, Value]
    where: Surroundings


@dataclass(eq=False)
class StateUse:
    """``module.load_state_dict(...)``, or ``module`` or what its ``state_dict()`` gives is saved (``name``)."""

    location: Location
    target: Instance | Mystery
    name: str
    where: Surroundings


@dataclass(eq=False)
class StatisticsDropped:
    """``module.load_state_dict(state, strict=False)``, whose result nobody reads, with a state that ``step`` left the
    running statistics out of."""

    location: Location
    receiver: str | None
    target: Instance | Mystery
    step: TraceStep
    layers: list[Layer]
    where: Surroundings


@dataclass(eq=False)
class CastPass:
    """A forward pass runs a layer whose dtype has been set. ``casts`` are what its dtype may be then."""

    forward: Forward
    layer: Instance
    casts: Value


@dataclass(eq=False)
class PretrainedLoaded:
    """A library's class method ``name`` (``from_pretrained``) gives a model in eval mode."""

    location: Location
    name: str
    target: Mystery
    where: Surroundings
