"""What a file does, as far as rules care: the facts that the interpreter leaves behind.

An event stands for one place in one chain of callers; what several passes through a loop saw there is joined.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bnlint.assumptions import NOTHING_ASSUMED, Assumptions
from bnlint.finding import TraceStep
from bnlint.semantics.events.building import LayerBuilt, MomentumSet, VarianceCarried, WeightsOrdered
from bnlint.semantics.events.keras import CallMethod, Fitted, GraphCall, PhaseUse, TrainableSet, TrainStepBuilt
from bnlint.semantics.events.lifecycle import (
    Averaged,
    AveragedModel,
    CastPass,
    Exported,
    PretrainedLoaded,
    StateUse,
    StatisticsDropped,
)
from bnlint.semantics.events.modes import Backward, BareAttribute, FlagSet, Forward, Gradient, ModeCall
from bnlint.semantics.events.places import Batches, Freeze, Layer, Loop, Surroundings
from bnlint.semantics.events.structure import (
    Applied,
    AppliedTwice,
    BuiltInForward,
    Checkpointed,
    FunctionalCall,
    ModeOverride,
    Unregistered,
)
from bnlint.semantics.values import Constant, Instance, Mystery, Value

__all__ = [
    "Applied",
    "AppliedTwice",
    "Averaged",
    "AveragedModel",
    "Backward",
    "BareAttribute",
    "Batches",
    "BuiltInForward",
    "CallMethod",
    "CastPass",
    "Checkpointed",
    "Exported",
    "FileFacts",
    "Fitted",
    "FlagSet",
    "Forward",
    "Freeze",
    "FunctionalCall",
    "Gradient",
    "GraphCall",
    "Layer",
    "LayerBuilt",
    "Loop",
    "ModeCall",
    "ModeOverride",
    "MomentumSet",
    "PhaseUse",
    "PretrainedLoaded",
    "StateUse",
    "StatisticsDropped",
    "Surroundings",
    "TrainStepBuilt",
    "TrainableSet",
    "Unregistered",
    "VarianceCarried",
    "WeightsOrdered",
    "is_exactly",
    "numbers",
]


@dataclass
class FileFacts:
    """Everything the rules read about one file.

    ``imports`` holds the top-level packages it imports, ``defines`` its functions and classes. ``complete`` is false
    when the analysis gave up half way (a file too large or too tangled); events that depend on the flow are then
    left out.
    ``flags_of_parts`` are layers whose ``training`` is set as that of some part of a module, and the running functions;
    ``settled`` are Keras objects whose weights are loaded, fitted or compiled somewhere;
    ``mode_managed`` torch modules that get a ``.train()`` or ``.eval()`` anywhere in the file, ``optimised``
    those whose parameters are taken anywhere. ``buffers_read`` are modules whose ``buffers()`` are taken,
    ``put_in_train`` and ``put_in_eval`` what any ``train()`` or ``eval()`` reaches, the latter with the first such
    step. ``modes_saved`` are modules whose ``training`` is kept in a variable, with the calls that lead there.
    ``sets_eps`` tells that the eps of some layer is set after its construction.
    ``other_layers`` are those of frameworks that are neither PyTorch nor Keras. ``gathers_updates`` tells, where there
    are ``train_steps``, that a file looked at may take the updates of moving statistics out of their collection.
    ``named`` are the functions that are called, and some attributes that are read or set, by their bare names.
    ``applied`` and ``input_shapes`` (without the batch, None for what is not written out) are there for rules that
    follow chains of layers.
    """

    path: str
    assumptions: Assumptions = NOTHING_ASSUMED
    imports: frozenset[str] = frozenset()
    defines: frozenset[str] = frozenset()
    complete: bool = True
    forwards: list[Forward] = field(default_factory=list)
    layers: list[LayerBuilt] = field(default_factory=list)
    other_layers: list[LayerBuilt] = field(default_factory=list)
    train_steps: list[TrainStepBuilt] = field(default_factory=list)
    gathers_updates: bool = False
    momentum_sets: list[MomentumSet] = field(default_factory=list)
    weights_ordered: list[WeightsOrdered] = field(default_factory=list)
    variances_carried: list[VarianceCarried] = field(default_factory=list)
    sets_eps: bool = False
    bare_attributes: list[BareAttribute] = field(default_factory=list)
    backwards: list[Backward] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    mode_calls: list[ModeCall] = field(default_factory=list)
    flags_set: list[FlagSet] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    exports: list[Exported] = field(default_factory=list)
    averages: list[Averaged] = field(default_factory=list)
    averaged_models: list[AveragedModel] = field(default_factory=list)
    state_uses: list[StateUse] = field(default_factory=list)
    cast_passes: list[CastPass] = field(default_factory=list)
    pretrained: list[PretrainedLoaded] = field(default_factory=list)
    statistics_dropped: list[StatisticsDropped] = field(default_factory=list)
    built_in_forward: list[BuiltInForward] = field(default_factory=list)
    applied_twice: list[AppliedTwice] = field(default_factory=list)
    checkpointed: list[Checkpointed] = field(default_factory=list)
    functional_calls: list[FunctionalCall] = field(default_factory=list)
    flags_of_parts: set[tuple[Instance, tuple[str, ...]]] = field(default_factory=set)
    unregistered: list[Unregistered] = field(default_factory=list)
    overrides: list[ModeOverride] = field(default_factory=list)
    call_methods: list[CallMethod] = field(default_factory=list)
    graph_calls: list[GraphCall] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    phase_uses: list[PhaseUse] = field(default_factory=list)
    trainables: list[TrainableSet] = field(default_factory=list)
    settled: set[Instance] = field(default_factory=set)
    mode_managed: set[Instance | Mystery] = field(default_factory=set)
    optimised: set[Instance | Mystery] = field(default_factory=set)
    buffers_read: set[Instance | Mystery] = field(default_factory=set)
    put_in_train: set[Instance | Mystery] = field(default_factory=set)
    put_in_eval: dict[Instance | Mystery, TraceStep] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    modes_saved: set[tuple[Instance | Mystery, tuple[TraceStep, ...]]] = field(default_factory=set)
    applied: list[Applied] = field(default_factory=list)
    input_shapes: set[tuple[int | None, ...] | None] = field(default_factory=set)


def numbers(value: Value) -> tuple[list[Constant], bool]:
    """The numeric constants a value may be, and whether it can be nothing but those."""
    found = [
        atom
        for atom in value
        if isinstance(atom, Constant) and isinstance(atom.value, (int, float)) and not isinstance(atom.value, bool)
    ]
    found.sort(key=lambda atom: float(atom.value))  # type: ignore[arg-type]
    return found, len(found) == len(value)


def is_exactly(value: Value | None, expected: object) -> bool:
    return value is not None and all(isinstance(atom, Constant) and atom.value is expected for atom in value)
