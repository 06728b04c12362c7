"""Forward passes, backward passes, and what decides whether these train anything."""

from __future__ import annotations

import re
from dataclasses import replace

from bnlint.finding import Location
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments, names_in
from bnlint.semantics.functions import Functions
from bnlint.semantics.modules import whole_framework
from bnlint.semantics.state import NO_GUARDS
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Function,
    Instance,
    Mystery,
    Part,
    Tensor,
    Value,
    Variables,
    join,
    only_constant,
)
from bnlint.source.positions import Span

_FLAG = re.compile(r"training\s*=\s*(True|False|0|1)$")
_OF_NO_NORM = re.compile(r"conv|weight|bias|linear|classifier|head|\bfc|downsample\.0")


class Passes(Functions):
    """Adds the events of forward passes, freezes and momentum."""

    def forward(self, target: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        keras = whole_framework(target) == "keras"
        inputs = arguments.at(0) or arguments.get("inputs") or arguments.get("x") or UNKNOWN
        flat = inputs | self.elements(inputs)
        tensors = [atom for atom in flat if isinstance(atom, Tensor)]
        through = frozenset(layer for tensor in tensors for layer in tensor.through)
        if any(tensor.kind == "symbolic" for tensor in tensors):
            itself = {target} if isinstance(target, Instance) else set()
            if keras and isinstance(target, Instance):
                self.graph_call(target, arguments, node)
            return frozenset({Tensor("symbolic", through=through | itself)})
        key, event = self.event(node, events.Forward, id(target))
        layers, owns_unknown = self.mode_dependent_layers(target)
        mode = self.state.mode_of(target)
        training = _training(target, arguments) if keras else None
        if isinstance(event, events.Forward):
            event.mode = event.mode.join(mode)
            event.layers = merge_layers(event.layers, layers)
            event.guards &= self.state.guards
            event.inputs |= {origin for tensor in tensors for origin in tensor.origins if origin is not event}
            event.frozen |= self.frozen_parts(target)
            event.training = training if event.training is None else join(event.training, training or NOTHING)
        else:
            sole = tensors[0] if len(tensors) == 1 else None
            event = events.Forward(
                location=self.location(node.span),
                receiver=ir.dotted(node.func),
                target=target,
                mode=mode,
                layers=layers,
                owns_unknown=owns_unknown,
                reads=frozenset(name for arg in node.args for name in names_in(arg.value)),
                where=self.surroundings(),
                statement=self.location(self.statement.span if self.statement else None),
                block=self.location(self.block) if self.block else None,
                is_self=any(frame.receiver is target for frame in self.frame.chain()),
                input_kind=sole.kind if sole else "unknown",
                input_shape=sole.shape if sole else None,
                input_fill=sole.fill if sole else None,
                training=training,
                training_default=_training_default(target),
                edge=self._edge(node),
                training_at=self._training_literal(node),
                needs_comma=bool(node.args) and not node.trailing_comma,
                discarded=self._is_discarded(node),
                sole_layer=self._is_sole_layer(target, layers),
                guards=self.state.guards,
                inputs=frozenset(origin for tensor in tensors for origin in tensor.origins),
                frozen=self.frozen_parts(target),
                parts=frozenset(part for part, _ in self.parts(target)[0]),
                comprehended=self.comprehended,
            )
            self.remember(key, event)
            self.facts.forwards.append(event)
        through |= {target} if keras and isinstance(target, Instance) else frozenset()
        return frozenset({Tensor("unknown", frozenset({event}), through)})

    def graph_call(self, target: Instance, arguments: Arguments, node: ir.Call) -> None:
        """A Keras object is called on a symbolic tensor."""

    def _is_discarded(self, node: ir.Call) -> bool:
        """Whether nothing reads what a call returns: no name gets it, or one that its function never reads."""
        match self.statement:
            case ir.ExprStmt(value=value):
                return value is node
            case ir.Assign(targets=(ir.Name(id=name),), value=value) if value is node and self.frame.function:
                body = self.frame.function.node.body
                reads = [n for n in ir.nodes(body) if isinstance(n, ir.Name) and n.id == name]
                binds = [n for n in ir.nodes(body) if isinstance(n, ir.Assign) and ir.Name(name) in n.targets]
                return len(reads) == len(binds)
        return False

    def frozen_parts(self, target: Instance | Mystery) -> frozenset[events.Freeze]:
        """The parts of what runs whose parameters get no gradients."""
        assert self.state is not None
        if not self.state.freezes:
            return frozenset()
        parts = {part for part, _ in self.parts(target)[0]}
        return frozenset(freeze for freeze in self.state.freezes if freeze.owner in parts and not freeze.undone)

    def _is_sole_layer(self, target: Instance | Mystery, layers: list[events.Layer]) -> bool:
        if len(layers) != 1 or not layers[0].certain:
            return False
        contents = [atom for _, value in self.field_values(target) for atom in value]
        if isinstance(target, Mystery):
            return False
        plain_container = target.kind in known.TORCH_CONTAINERS or target.kind == "keras.Sequential"
        return target is layers[0].instance or (plain_container and contents == [layers[0].instance])

    def _edge(self, node: ir.Call) -> Location | None:
        if node.span is None:
            return None
        end_line, end_column = node.span.end_line, node.span.end_column
        return self.location(Span(end_line, end_column - 1, end_line, end_column - 1))

    def _training_literal(self, node: ir.Call) -> Location | None:
        """The place of a constant for ``training``, where that is the last argument."""
        if node.span is None or not node.args or node.args[-1].keyword != "training":
            return None
        line, column = node.span.end_line, node.span.end_column - 1
        match = _FLAG.search(self.frame.scope.source.lines[line - 1][: column - 1])
        if match is None:
            return None
        return self.location(Span(line, match.start(1) + 1, line, match.end(1) + 1))

    def freeze(self, variables: Variables, value: Value, node: ir.Expr) -> None:
        assert self.state is not None
        is_known, flag = only_constant(value)
        if is_known and flag is False and any(came_true and _OF_NO_NORM.search(w) for w, came_true in self.name_tests):
            return  # parameters are chosen by name, and those of a BatchNorm have others
        if is_known and flag is False:
            key, event = self.event(node, events.Freeze, id(variables.owner))
            if event is None:
                at = self.location(node.span if isinstance(node, (ir.Attr, ir.Call)) else None)
                parts = frozenset(part for part, _ in self.parts(variables.owner)[0])
                names = self.loops[-1].reads if self.loops else frozenset()
                if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr):
                    names |= {ir.dotted(node.func.value) or ""}
                event = events.Freeze(at, names, variables.owner, parts, self.surroundings())
                self.remember(key, event)
                self.facts.freezes.append(event)
            self.state.freezes |= {event}
        else:
            thawed = {part for part, _ in self.parts(variables.owner)[0]}
            for freeze in self.facts.freezes:
                # In one loop over parameters the next turn thaws others than the last has frozen.
                another = bool(self.loops) and freeze.where.loops[-1:] == self.loops[-1:]
                freeze.undone |= freeze.owner in thawed and not another

    def set_flag(self, module: Instance | Mystery, value: Value, target: ir.Attr, part: Part | None = None) -> None:
        assert self.state is not None
        key, event = self.event(target, events.FlagSet)
        if event is None and part is None:
            layers = self.mode_dependent_layers(module)[0]
            at = self.location(target.span)
            flag = events.FlagSet(at, ir.dotted(target.value), module, value, layers, self.surroundings())
            self.remember(key, flag)
            self.facts.flags_set.append(flag)
        self.forget_modes(frozenset({module}))

    def backward_pass(self, node: ir.Call, tensors: Value) -> None:
        guards = self.state.guards if self.state else NO_GUARDS
        stack = [origin for atom in tensors if isinstance(atom, Tensor) for origin in atom.origins]
        seen: set[events.Forward] = set()
        while stack:
            origin = stack.pop()
            if origin not in seen:
                seen.add(origin)
                origin.trained = True
                origin.training_guards |= {guards}
                stack += origin.inputs
        key, event = self.event(node, events.Backward)
        if event is None:
            event = events.Backward(self.location(node.span), self.surroundings(), guards)
            self.remember(key, event)
            self.facts.backwards.append(event)

    def _gradient(self, node: ir.Call, arguments: Arguments) -> None:
        assert isinstance(node.func, ir.Attr)
        tape = self.tape_location(self.evaluate(node.func.value))
        sources = arguments.at(1) or arguments.get("sources") or UNKNOWN
        models = frozenset(
            atom.owner for atom in sources if isinstance(atom, Variables) and isinstance(atom.owner, Instance)
        )
        # Gradients by a tensor (saliency, gradient penalty) train nothing.
        unknown = any(not isinstance(atom, (Variables, Tensor)) for atom in sources)
        key, event = self.event(node, events.Gradient)
        if isinstance(event, events.Gradient):
            event.sources |= models
            event.sources_unknown |= unknown
        else:
            event = events.Gradient(self.location(node.span), tape, models, unknown)
            self.remember(key, event)
            self.facts.gradients.append(event)

    def momentum_set(self, atom: Atom, target: ir.Attr, value: Value) -> None:
        name = ir.dotted(target.value)
        kind = atom.kind if isinstance(atom, Instance) else self.narrowed.get(name or "", "")
        if isinstance(atom, Part) and not kind:  # of all that a module is made of, only its norms have a momentum
            kind = min(atom.kinds, default="torch.nn.BatchNorm2d")
        if kind not in LAYERS or LAYERS[kind].kind != "batchnorm":
            return
        key, event = self.event(target, events.MomentumSet)
        if isinstance(event, events.MomentumSet):
            event.value = join(event.value, value)
        else:
            event = events.MomentumSet(self.location(target.span), kind, value, self.surroundings())
            self.remember(key, event)
            self.facts.momentum_sets.append(event)


def merge_layers(known_layers: list[events.Layer], seen: list[events.Layer]) -> list[events.Layer]:
    merged = {layer.instance: layer for layer in known_layers}
    for layer in seen:
        other = merged.get(layer.instance)
        if other is None:
            merged[layer.instance] = replace(layer, certain=False)
        else:
            mode = other.mode.join(layer.mode) if other.mode is not None and layer.mode is not None else None
            merged[layer.instance] = replace(
                layer, mode=mode, certain=layer.certain and other.certain, frozen=layer.frozen or other.frozen
            )
    return list(merged.values())


def _training(target: Instance | Mystery, arguments: Arguments) -> Value | None:
    """What a call of a Keras object passes as ``training``, by name or by its position; None where it passes none."""
    given = arguments.get("training")
    if given is not None or arguments.spread:
        return given or UNKNOWN
    call = _call_of(target)
    if call is None:  # a layer of the library takes it behind its input
        return UNKNOWN if len(arguments.positional) > 1 else None
    names = [param.name for param in call.node.params if param.kind == "positional"][1:]
    return arguments.at(names.index("training")) if "training" in names else None


def _training_default(target: Instance | Mystery) -> Value | None:
    """The default of ``training`` in the ``call`` of a class of this file."""
    call = _call_of(target)
    return call.defaults.get("training") if call is not None else None


def _call_of(target: Instance | Mystery) -> Function | None:
    if isinstance(target, Mystery) or target.cls is None:
        return None
    return next((atom for atom in target.cls.lookup("call") or () if isinstance(atom, Function)), None)
