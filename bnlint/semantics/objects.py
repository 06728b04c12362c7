"""Calls of modules, layers, models, tensors and collections, and of the methods they inherit."""

from __future__ import annotations

from dataclasses import replace

from bnlint.finding import Location, TraceStep
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments, names_in
from bnlint.semantics.functions import Functions
from bnlint.semantics.state import UNKNOWN_MODE, Mode
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Function,
    Instance,
    Method,
    Part,
    Tensor,
    Tuple,
    Unknown,
    Value,
    Variables,
    join,
    only_constant,
)
from bnlint.source.positions import Span


class Objects(Functions):
    """Adds the effects of forward passes and of inherited methods."""

    def forward(self, target: Instance, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        keras = target.framework == "keras"
        inputs = arguments.at(0) or arguments.get("inputs") or arguments.get("x") or UNKNOWN
        flat = inputs | self.elements(inputs)
        tensors = [atom for atom in flat if isinstance(atom, Tensor)]
        through = frozenset(layer for tensor in tensors for layer in tensor.through)
        if any(tensor.kind == "symbolic" for tensor in tensors):
            return frozenset({Tensor("symbolic", through=through | {target})})
        key, event = self.event(node, events.Forward, id(target))
        layers, owns_unknown = self.mode_dependent_layers(target)
        mode = self.state.modes.get(target, UNKNOWN_MODE)
        training = arguments.get("training") if keras else None
        if keras and training is None and (len(arguments.positional) > 1 or arguments.spread):
            training = UNKNOWN
        if isinstance(event, events.Forward):
            event.mode = event.mode.join(mode)
            event.layers = _merge_layers(event.layers, layers)
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
                needs_comma=bool(node.args) and not node.trailing_comma,
                discarded=isinstance(self.statement, ir.ExprStmt) and self.statement.value is node,
                sole_layer=self._is_sole_layer(target, layers),
            )
            self.remember(key, event)
            self.facts.forwards.append(event)
        result = Tensor("unknown", frozenset({event}), through | ({target} if keras else frozenset()))
        return frozenset({result})

    def _is_sole_layer(self, target: Instance, layers: list[events.Layer]) -> bool:
        if len(layers) != 1 or not layers[0].certain:
            return False
        contents = [atom for _, value in self.field_values(target) for atom in value]
        plain_container = target.kind in known.TORCH_CONTAINERS or target.kind == "keras.Sequential"
        return target is layers[0].instance or (plain_container and contents == [layers[0].instance])

    def _edge(self, node: ir.Call) -> Location | None:
        if node.span is None:
            return None
        end_line, end_column = node.span.end_line, node.span.end_column
        return self.location(Span(end_line, end_column - 1, end_line, end_column - 1))

    def inherited_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        itself: Value = frozenset({owner})
        if name.startswith("part."):  # some module inside owner gets a mode of its own
            self.forget_modes(itself)
            return UNKNOWN
        if owner.kind in ("builtins.list", "builtins.dict", "builtins.set"):
            return self._call_collection_method(owner, name, arguments)
        if owner.framework == "torch":
            return self._call_torch_method(owner, name, arguments, node)
        if owner.framework == "keras":
            return self._call_keras_method(owner, name, arguments, node)
        self.call_unknown(arguments, node)
        return UNKNOWN

    def _call_collection_method(self, owner: Instance, name: str, arguments: Arguments) -> Value:
        first = arguments.at(0) or NOTHING
        if name in ("append", "add", "insert"):
            self.add_elements(owner, arguments.everything(), arguments.doubtful)
        elif name in ("extend", "update"):
            self.add_elements(owner, self.elements(first) or UNKNOWN, arguments.doubtful)
        elif name in ("items", "values"):
            held = self.elements(frozenset({owner})) or UNKNOWN
            item = frozenset({Tuple((UNKNOWN, held))}) if name == "items" else held
            return frozenset({Tuple((item,))})
        elif name in ("pop", "get", "setdefault"):
            known_key, key = only_constant(first)
            assert self.state is not None
            item_there = self.state.slots.get((owner, repr(key))) if known_key else None
            return item_there if item_there is not None else self.elements(frozenset({owner})) | UNKNOWN
        elif name == "copy":
            return frozenset({owner})
        return UNKNOWN

    def _call_torch_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        itself: Value = frozenset({owner})
        if name in ("train", "eval"):
            self._train_or_eval(owner, name, arguments, node)
            return itself
        if name in known.TORCH_CHAINING:
            return itself
        if name in ("forward", "__call__"):
            return self.forward(owner, arguments, node)
        if name in ("append", "extend", "insert", "add_module", "register_module"):
            self.add_elements(owner, self.children(arguments), arguments.doubtful)
            return itself
        if name in ("items", "values", "named_children", "children") and owner.kind in known.TORCH_CONTAINERS:
            held = self.elements(itself) or UNKNOWN
            named = name in ("items", "named_children")
            return frozenset({Tuple((frozenset({Tuple((UNKNOWN, held))}) if named else held,))})
        if name in known.TORCH_PARAMETERS:
            if name in ("parameters", "named_parameters"):
                self.facts.optimised.add(owner)
            return frozenset({Variables(owner)})
        if name in known.TORCH_PARTS:
            return frozenset({Method(owner, name)})
        if name == "get_submodule":
            return frozenset({Part(owner)})
        if name == "apply":
            if any(_may_set_modes(atom) for atom in arguments.everything()):
                self.forget_modes(itself)
            return itself
        if owner.cls is not None and owner.cls.has_unknown_base:
            self.forget_modes(itself | arguments.everything())
        return UNKNOWN

    def _train_or_eval(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> None:
        wanted: bool | None = False
        if name == "train":
            flag = arguments.at(0) or arguments.get("mode")
            wanted = True if flag is None and not arguments.spread else self.truth(flag or UNKNOWN)
        if wanted is None:
            mode = UNKNOWN_MODE
        elif wanted:
            mode = Mode(train=TraceStep(self.location(node.span), "put in train mode here"))
        else:
            mode = Mode(eval=TraceStep(self.location(node.span), "put in eval mode here"))
        self.set_mode(owner, mode)

    def _call_keras_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in ("__call__", "call"):
            return self.forward(owner, arguments, node)
        if name == "add":
            self.add_elements(owner, self.children(arguments), arguments.doubtful)
        elif name in known.KERAS_SETTLES_STATISTICS:
            self.facts.settled.update(part for part, _ in self.parts(owner)[0])
        elif name == "get_layer":
            return frozenset({Part(owner)})
        elif name == "pop":
            self.doubt_parts(owner)
        elif name in ("predict", "predict_on_batch"):
            return frozenset({Tensor("eager")})
        elif owner.cls is not None and owner.cls.has_unknown_base:
            self.forget_modes(frozenset({owner}))
        return UNKNOWN

    def tensor_method(self, tensor: Tensor, node: ir.Call) -> Value:
        name = node.func.name if isinstance(node.func, ir.Attr) else ""
        if name == "backward":
            self.backward_pass(node, frozenset({tensor}))
            return UNKNOWN
        if name in known.READING_METHODS | known.COMPARING_METHODS:
            compared = name in known.COMPARING_METHODS
            self.read(frozenset({tensor}), self.location(node.span), compared)
        # .cpu() of a tensor of ones is a tensor of ones; .sum() is something else.
        same = name in ("cuda", "to", "cpu", "float", "contiguous", "clone", "detach", "requires_grad_")
        return frozenset({tensor if same else replace(tensor, shape=None, fill=None)})

    def children(self, arguments: Arguments) -> Value:
        """The modules in the arguments of a container, also inside lists, dicts, pairs and symbolic tensors."""
        found: Value = NOTHING
        stack, seen = list(arguments.everything()), set()
        while stack:
            atom = stack.pop()
            if atom in seen:
                continue
            seen.add(atom)
            if isinstance(atom, Instance) and atom.framework is not None:
                found |= frozenset({atom})
            elif isinstance(atom, Tensor):
                found |= atom.through
            elif isinstance(atom, (Unknown, Part)):
                found |= UNKNOWN
            elif isinstance(atom, (Tuple, Instance)):
                stack += list(self.elements(frozenset({atom})))
        return found

    def call_unknown(self, arguments: Arguments, node: ir.Call) -> None:
        """A call that cannot be followed: it may do anything to the modules it is given."""
        if isinstance(node.func, ir.Attr):
            if node.func.name in ("backward", "step") and not arguments.positional:
                self.backward_pass(node, NOTHING)
            elif node.func.name in ("gradient", "jacobian"):
                self._gradient(node, arguments)
                return
        self.forget_modes(arguments.everything())

    def backward_pass(self, node: ir.Call, tensors: Value) -> None:
        for atom in tensors:
            if isinstance(atom, Tensor):
                for origin in atom.origins:
                    origin.trained = True
        key, event = self.event(node, events.Backward)
        if event is None:
            event = events.Backward(self.location(node.span), self.surroundings())
            self.remember(key, event)
            self.facts.backwards.append(event)

    def _gradient(self, node: ir.Call, arguments: Arguments) -> None:
        assert isinstance(node.func, ir.Attr)
        tape = self.tape_location(self.evaluate(node.func.value))
        sources = arguments.at(1) or arguments.get("sources") or UNKNOWN
        models = frozenset(atom.owner for atom in sources if isinstance(atom, Variables))
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
        if kind not in LAYERS or LAYERS[kind].kind != "batchnorm":
            return
        key, event = self.event(target, events.MomentumSet)
        if isinstance(event, events.MomentumSet):
            event.value = join(event.value, value)
        else:
            event = events.MomentumSet(self.location(target.span), kind, value, self.surroundings())
            self.remember(key, event)
            self.facts.momentum_sets.append(event)


def _merge_layers(known_layers: list[events.Layer], seen: list[events.Layer]) -> list[events.Layer]:
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


def _training_default(target: Instance) -> Value | None:
    """The default of ``training`` in the ``call`` of a class of this file."""
    if target.cls is None:
        return None
    for atom in target.cls.lookup("call") or ():
        if isinstance(atom, Function):
            return atom.defaults.get("training")
    return None


def _may_set_modes(atom: Atom) -> bool:
    """Whether a function given to ``module.apply`` may change modes: it names ``train`` or ``eval``, or is not
    known."""
    if isinstance(atom, Function):
        text = repr(atom.node)
        return any(word in text for word in ("name='eval'", "name='train'", "name='training'"))
    return True
