"""What only Keras and TensorFlow 1 have: `call`, graphs, `fit`, training steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from bnlint.finding import Location, TraceStep
from bnlint.semantics.events.modes import Forward
from bnlint.semantics.events.places import Layer, Surroundings
from bnlint.semantics.values import Class, Instance, Mystery, Phase, Value


@dataclass(eq=False)
class CallMethod:
    """A class of Keras models has a ``call`` of its own, without a parameter ``training``.

    ``passes`` are the calls in it, ``parameters`` is the place before the closing parenthesis of its parameters, where
    one can be added; ``own_step`` tells that the class has a training step of its own.
    """

    location: Location
    cls: Class
    passes: list[Forward]
    parameters: Location | None
    own_step: bool


@dataclass(eq=False)
class GraphCall:
    """A layer or model is called on a symbolic tensor, while a functional model is built. ``training`` is the
    argument, None where there is none; ``layers`` are those in it that depend on the mode."""

    location: Location
    receiver: str | None
    target: Instance
    training: Value | None
    layers: list[Layer]
    where: Surroundings


@dataclass(eq=False)
class Fitted:
    """``model.fit(...)``, another method that trains a Keras model, or ``compile``, as ``name`` says. ``stale`` are the
    layers whose ``trainable`` is surely not what it was when the model was first trained after its last ``compile``,
    each with what it is now; ``layers`` are all that depend on the mode."""

    location: Location
    receiver: str | None
    target: Instance
    name: str
    where: Surroundings
    stale: list[tuple[Layer, bool]] = field(default_factory=list)
    layers: frozenset[Instance] = frozenset()


@dataclass(eq=False)
class TrainableSet:
    """``target.trainable = value`` of a Keras object, or of its parts."""

    location: Location
    receiver: str | None
    target: Instance
    parts: frozenset[Instance | Mystery]
    value: Value


@dataclass(eq=False)
class PhaseUse:
    """A method of a Keras model that trains or infers, as ``name`` says, is called. ``layers`` are those in it that
    depend on the mode and were built under one constant learning phase, each with that."""

    location: Location
    receiver: str | None
    target: Instance
    name: str
    layers: list[tuple[Layer, Phase]]
    where: Surroundings


@dataclass(eq=False)
class TrainStepBuilt:
    """TensorFlow 1: an optimiser's ``minimize`` or ``apply_gradients`` makes the operation that changes the weights,
    which a session runs at ``run_at``."""

    location: Location
    where: Surroundings
    run_at: TraceStep | None = None
