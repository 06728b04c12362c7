"""Layers are built, and given numbers and weights."""

from __future__ import annotations

from dataclasses import dataclass

from bnlint.finding import Location
from bnlint.semantics import ir
from bnlint.semantics.events.places import Surroundings
from bnlint.semantics.values import Instance, Trait, Value


@dataclass(eq=False)
class LayerBuilt:
    """A mode-dependent layer is constructed. ``call`` is the expression; values are joined over the passes.

    For a layer of TensorFlow 1, whose call chooses the mode, ``flag`` is a parameter of the functions around that tells
    whether this is training and that no test reads, and ``tested`` whether a test around tells that.
    """

    location: Location
    instance: Instance
    call: ir.Call
    where: Surroundings
    flag: str = ""
    tested: bool = False


@dataclass(eq=False)
class MomentumSet:
    """``layer.momentum = value`` on a BatchNorm layer, or on what ``isinstance`` shows to be one."""

    location: Location
    kind: str
    value: Value
    where: Surroundings


@dataclass(eq=False)
class WeightsOrdered:
    """``layer.set_weights([...])``, or the names that ``layer.get_weights()`` is unpacked into: four expressions in the
    order of a BatchNorm layer's weights. ``items`` are the words that say what each is; ``target`` is the layer, where
    it is known."""

    location: Location
    sets: bool
    items: tuple[frozenset[str], ...]
    target: Instance | None
    where: Surroundings


@dataclass(eq=False)
class VarianceCarried:
    """The running variance of one BatchNorm layer, as it is, becomes that of another."""

    location: Location
    source: Trait
    target: Instance
    where: Surroundings
