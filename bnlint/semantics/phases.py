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
_USES = known.KERAS_INFERRING | (known.KERAS_FITTING - {"compile"})


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

    def _phase(self) -> Value | None:
        """The learning phase; None where nothing has set one."""
        return self.state.slots.get((self.root.frame, _PHASE)) if self.state is not None else None

    def _set_phase(self, phase: Value) -> None:
        assert self.state is not None
        self.state.assign(self.root.frame, _PHASE, phase)

    def new_object(self, node: object, kind: str, span: Span | None, **facts: object) -> tuple[Instance, bool]:
        instance, first = super().new_object(node, kind, span, **facts)
        if instance.framework == "keras" and (phase := self._phase()) is not None:
            assert self.state is not None
            self.state.assign(instance, _BUILT_IN, phase)
        return instance, first

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if isinstance(owner, Instance) and owner.framework == "keras" and name in _USES:
            self._note_use(owner, name, node)
        return super().inherited_method(owner, name, arguments, node)

    def _note_use(self, model: Instance, name: str, node: ir.Call) -> None:
        """A model is trained, or infers, with layers that were all built in one phase."""
        key, event = self.event(node, events.PhaseUse, id(model))
        if self.state is None or (event is None and self._phase() is None):
            return
        layers = [
            (layer, phase)
            for layer in self.mode_dependent_layers(model)[0]
            if len(held := self.state.slots.get((layer.instance, _BUILT_IN)) or UNKNOWN) == 1
            for phase in held
            if isinstance(phase, Phase)
        ]
        if isinstance(event, events.PhaseUse):
            still = {layer.instance for layer, _ in layers}
            event.layers = [pair for pair in event.layers if pair[0].instance in still]
        elif layers:
            event = events.PhaseUse(
                self.location(node.span), ir.dotted(node.func), model, name, layers, self.surroundings()
            )
            self.remember(key, event)
            self.facts.phase_uses.append(event)
