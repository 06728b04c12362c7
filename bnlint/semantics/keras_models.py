"""What becomes of Keras models: their ``call``, graphs of layers, ``fit``, and what is frozen when."""

from __future__ import annotations

import re

from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.frames import Frame
from bnlint.semantics.precision import Precision
from bnlint.semantics.values import (
    UNKNOWN,
    Atom,
    Class,
    Function,
    Instance,
    Mystery,
    Part,
    Value,
    constant,
    instances,
    join,
    only_constant,
)
from bnlint.source.positions import Span

#: A definition whose parameters can be followed by another, up to the last of them.
_HEADER = re.compile(r"def\s+call\s*\([^()*]*[^()*,\s](?=\s*\)\s*(?:->[^:]*)?:)")
_AT_FIT = "trainable at fit"
#: What stands for it where the model has not been trained since it was compiled.
_NOT_YET = constant("not yet")


class KerasModels(Precision):
    """Adds the events of ``call_methods``, ``graph_calls``, ``fitted`` and ``trainables``."""

    def run_body(self, frame: Frame, function: Function, receiver: Instance | None, arguments: Arguments) -> Value:
        seen = len(self.facts.forwards)
        value = super().run_body(frame, function, receiver, arguments)
        if function.name == "call" and receiver is not None and receiver.cls is not None and function.owner is not None:
            is_model = receiver.cls.library_bases() & known.KERAS_MODELS
            takes_training = any(param.name == "training" for param in function.node.params)
            if is_model and not takes_training and function.location.path == self.root.source.path:
                self._note_call_method(function, receiver, self.facts.forwards[seen:])
        return value

    def _note_call_method(self, function: Function, receiver: Instance, passes: list[events.Forward]) -> None:
        assert receiver.cls is not None
        key, event = self.event(function.node, events.CallMethod, id(receiver.cls))
        if isinstance(event, events.CallMethod):
            event.passes += passes
            return
        at = function.location
        header = self.root.source.lines[at.line - 1][at.column - 1 :]
        match = _HEADER.match(header)
        column = at.column + match.end() if match else 0
        name = re.match(r"(?:async\s+)?def\s+\w+", header)
        end = at.column + name.end() if name else at.end_column
        event = events.CallMethod(
            location=self.location(Span(at.line, at.column, at.line, end)),
            cls=receiver.cls,
            passes=list(passes),
            parameters=self.location(Span(at.line, column, at.line, column)) if match else None,
            own_step=receiver.cls.lookup("train_step") is not None,
        )
        self.remember(key, event)
        self.facts.call_methods.append(event)

    def graph_call(self, target: Instance, arguments: Arguments, node: ir.Call) -> None:
        training = arguments.get("training")
        key, event = self.event(node, events.GraphCall, id(target))
        if isinstance(event, events.GraphCall):
            event.training = join(event.training, training) if event.training and training else None
        else:
            layers = self.mode_dependent_layers(target)[0]
            at, receiver = self.location(node.span), ir.dotted(node.func)
            event = events.GraphCall(at, receiver, target, training, layers, self.surroundings())
            self.remember(key, event)
            self.facts.graph_calls.append(event)

    # Training

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if not isinstance(owner, Instance) or owner.framework != "keras":
            return super().inherited_method(owner, name, arguments, node)
        if name in known.KERAS_FITTING:
            self._note_fitted(owner, name, node)
        value = super().inherited_method(owner, name, arguments, node)
        if name in known.KERAS_STEPS:  # that of the model's own class, if it defines one
            self._run_own(owner, known.KERAS_STEPS[name], node)
        return value

    def instantiate(self, cls: Class, arguments: Arguments, node: ir.Expr) -> Value:
        value = super().instantiate(cls, arguments, node)
        for instance in instances(value):
            if instance.framework == "keras":  # builds itself at the first call, whenever that is
                self._run_own(instance, "build", node)
        return value

    def _run_own(self, owner: Instance, method: str, node: ir.Expr) -> None:
        """Run a method that Keras calls, of what the project's own class defines."""
        for atom in (owner.cls.lookup(method) if owner.cls else None) or ():
            if isinstance(atom, Function) and self.state is not None:
                self.run_function(atom, owner, Arguments((UNKNOWN,)), node)

    def _note_fitted(self, model: Instance, name: str, node: ir.Call) -> None:
        """The first training after ``compile`` builds the step that all further ones take, with what is trainable
        then."""
        assert self.state is not None
        key, event = self.event(node, events.Fitted, id(model))
        parts = [part for part, _ in self.parts(model)[0]]
        mark = f"{_AT_FIT} of {id(model)}"
        if not isinstance(event, events.Fitted):
            event = events.Fitted(self.location(node.span), ir.dotted(node.func), model, name, self.surroundings())
            self.remember(key, event)
            self.facts.fitted.append(event)
        layers = self.mode_dependent_layers(model)[0]
        event.layers |= {layer.instance for layer in layers}
        if name == "compile":
            for part in parts:
                self.state.assign(part, mark, _NOT_YET)
            return
        changed = [part for part in parts if self._change(part, mark) is not None]
        event.stale = [
            (layer, change)
            for layer in layers
            if (change := self._change_of(layer.instance, changed, mark)) is not None
        ]
        for part in parts:
            held = self.state.slots.get((part, mark)) or _NOT_YET
            if held & _NOT_YET:
                self.state.assign(part, mark, join(held - _NOT_YET, self._trainable(part)))

    def _trainable(self, part: Instance | Mystery) -> Value:
        assert self.state is not None
        given = part.arguments.get("trainable") if isinstance(part, Instance) else None
        return self.state.slots.get((part, "trainable")) or given or constant(True)

    def _change_of(self, layer: Instance, changed: list[Instance | Mystery], mark: str) -> bool | None:
        """What became of the layer by itself, or with what it is in."""
        within = [part for part in changed if any(inner is layer for inner, _ in self.parts(part)[0])]
        changes = {self._change(part, mark) for part in within}
        return changes.pop() if len(changes) == 1 else None

    def _change(self, part: Instance | Mystery, mark: str) -> bool | None:
        """What ``trainable`` surely is now, and surely was not when the step was built."""
        assert self.state is not None
        before, now = self.state.slots.get((part, mark)), self._trainable(part)
        was_known, was = only_constant(before) if before is not None else (False, None)
        is_known, is_now = only_constant(now)
        if not (was_known and is_known and isinstance(was, bool) and isinstance(is_now, bool)):
            return None
        return is_now if was is not is_now else None

    def _assign_attribute(self, atom: Atom, target: ir.Attr, value: Value, strong: bool) -> None:
        super()._assign_attribute(atom, target, value, strong)
        if target.name != "trainable":
            return
        owner = atom.whole if isinstance(atom, Part) else atom
        if not isinstance(owner, Instance) or owner.framework != "keras":
            return
        key, event = self.event(target, events.TrainableSet, id(owner))
        if isinstance(event, events.TrainableSet):
            event.value = join(event.value, value)
            return
        parts = frozenset(part for part, _ in self.parts(owner)[0])
        event = events.TrainableSet(self.location(target.span), ir.dotted(target.value), owner, parts, value)
        self.remember(key, event)
        self.facts.trainables.append(event)
