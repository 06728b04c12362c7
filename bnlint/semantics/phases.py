"""Keras up to 2.3, and TensorFlow 1: the global learning phase, which layers take up when they are built."""

from __future__ import annotations

from bnlint.finding import TraceStep
from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.keras_models import KerasModels
from bnlint.semantics.values import UNKNOWN, Instance, Mystery, Phase, Value, only_constant
from bnlint.source.positions import Span

# No names of Python, so that nothing else can be stored under them.
_PHASE = "learning phase"
_BUILT_IN = "learning phase when built"


class LearningPhases(KerasModels):
    """Adds the events of ``phase_uses``."""

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in known.KERAS_SETS_PHASE:
            is_known, phase = only_constant(arguments.at(0) or arguments.get("value") or UNKNOWN)
            told = is_known and phase in (0, 1)
            step = TraceStep(self.location(node.span), f"the learning phase is set to {phase} here")
            self._set_phase(frozenset({Phase(bool(phase), step)}) if told else UNKNOWN)
        elif name in known.KERAS_CLEARS_PHASE:
            self._set_phase(UNKNOWN)
        return super().call_library(name, arguments, node)

    def _set_phase(self, phase: Value) -> None:
        assert self.state is not None
        self.state.assign(self.root.frame, _PHASE, phase)

    def new_object(self, node: object, kind: str, span: Span | None, **facts: object) -> tuple[Instance, bool]:
        instance, first = super().new_object(node, kind, span, **facts)
        assert self.state is not None
        if instance.framework == "keras" and (phase := self.state.slots.get((self.root.frame, _PHASE))):
            self.state.assign(instance, _BUILT_IN, phase)
        return instance, first

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        uses = known.KERAS_INFERRING | known.KERAS_FITTING
        if isinstance(owner, Instance) and owner.framework == "keras" and name in uses and name != "compile":
            self._note_use(owner, name, node)
        return super().inherited_method(owner, name, arguments, node)

    def _note_use(self, model: Instance, name: str, node: ir.Call) -> None:
        """A model is trained, or infers, with layers that were all built in one phase."""
        assert self.state is not None
        key, event = self.event(node, events.PhaseUse, id(model))
        layers = [
            (layer, phase)
            for layer in self.mode_dependent_layers(model)[0]
            if len(held := self.state.slots.get((layer.instance, _BUILT_IN)) or UNKNOWN) == 1
            for phase in held
            if isinstance(phase, Phase)
        ]
        if isinstance(event, events.PhaseUse):
            event.layers = [
                pair for pair in event.layers if any(pair[0].instance is other.instance for other, _ in layers)
            ]
        elif layers:
            event = events.PhaseUse(
                self.location(node.span), ir.dotted(node.func), model, name, layers, self.surroundings()
            )
            self.remember(key, event)
            self.facts.phase_uses.append(event)
