"""Calls of modules, layers, models, tensors and collections, and of the methods they inherit."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import replace

from bnlint.finding import Location
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments, names_in
from bnlint.semantics.functions import Functions
from bnlint.semantics.modules import whole_framework
from bnlint.semantics.state import NO_GUARDS, UNKNOWN_MODE, Guards, Mode
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Constant,
    Function,
    Instance,
    Method,
    Mystery,
    Part,
    SavedMode,
    Tensor,
    Tuple,
    Unknown,
    Value,
    Variables,
    constant,
    join,
    only_constant,
)
from bnlint.source.positions import Span

_OF_NO_NORM = re.compile(r"conv|weight|bias|linear|classifier|head|\bfc|downsample\.0")


class Objects(Functions):
    """Adds the effects of forward passes and of inherited methods."""

    def forward(self, target: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        keras = whole_framework(target) == "keras"
        inputs = arguments.at(0) or arguments.get("inputs") or arguments.get("x") or UNKNOWN
        flat = inputs | self.elements(inputs)
        tensors = [atom for atom in flat if isinstance(atom, Tensor)]
        through = frozenset(layer for tensor in tensors for layer in tensor.through)
        if any(tensor.kind == "symbolic" for tensor in tensors):
            itself = {target} if isinstance(target, Instance) else set()
            return frozenset({Tensor("symbolic", through=through | itself)})
        key, event = self.event(node, events.Forward, id(target))
        layers, owns_unknown = self.mode_dependent_layers(target)
        mode = self.state.mode_of(target)
        training = arguments.get("training") if keras else None
        if keras and training is None and (len(arguments.positional) > 1 or arguments.spread):
            training = UNKNOWN
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
                needs_comma=bool(node.args) and not node.trailing_comma,
                discarded=isinstance(self.statement, ir.ExprStmt) and self.statement.value is node,
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

    def frozen_parts(self, target: Instance | Mystery) -> frozenset[events.Freeze]:
        """The parts of what runs whose parameters get no gradients."""
        assert self.state is not None
        if not self.facts.freezes:
            return frozenset()
        parts = {part for part, _ in self.parts(target)[0]}
        return frozenset(freeze for freeze in self.facts.freezes if freeze.owner in parts and not freeze.undone)

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

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if isinstance(owner, Mystery):
            return self._call_method_of_mystery(owner, name, arguments, node)
        if owner.kind in ("builtins.list", "builtins.dict", "builtins.set"):
            return self._call_collection_method(owner, name, arguments)
        if owner.framework == "torch":
            return self._call_torch_method(owner, name, arguments, node)
        if owner.framework == "keras":
            return self._call_keras_method(owner, name, arguments, node)
        if name in ("train", "eval") and self._is_mode_call(name, arguments):
            self._train_or_eval(owner, name, arguments, node)
            return frozenset({owner})
        self.call_unknown(arguments, node)
        return UNKNOWN

    def call_mystery(self, mystery: Mystery, arguments: Arguments, node: ir.Call) -> Value:
        """A call of something unknown: a forward pass, if it is a module; anything at all, if it is not."""
        whole = mystery.parent
        self.call_unknown(arguments, node)
        if isinstance(whole, Instance) and whole.cls is not None and whole.cls.has_unknown_base:
            self.forget_modes(frozenset({whole}))  # a method of the base it may be
        returned = self.tensors_of(arguments.everything()) or self.unknown_result(node)
        assert self.state is not None
        if mystery not in self.state.modes and not any(context.kind == "no_grad" for context in self.contexts):
            return returned  # nobody says that it is a module, nor that this is inference
        return self.forward(mystery, arguments, node) | returned

    def unknown_result(self, node: ir.Call) -> Value:
        return frozenset({self.mystery((id(node), "returned"), "returned", node.span)})

    def _call_method_of_mystery(self, owner: Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        itself: Value = frozenset({owner})
        if name in ("train", "eval"):
            if self._is_mode_call(name, arguments):
                self._train_or_eval(owner, name, arguments, node)
                return itself
            self.call_unknown(arguments, node)  # a trainer's method, perhaps
            return frozenset({self.mystery((id(node), "returned"), name, node.span)})
        if name in ("forward", "__call__", "generate"):
            return self.call_mystery(owner, arguments, node)
        if name in known.TORCH_CHAINING:
            return itself
        if name in known.TORCH_PARAMETERS:
            self.facts.optimised |= {owner} if name in ("parameters", "named_parameters") else set()
            return frozenset({Variables(owner, name)})
        if name in known.TORCH_PARTS:
            return frozenset({Method(owner, name)})
        if name == "apply":
            return self._apply(owner, arguments, node)
        if name == "get_submodule":
            return frozenset({Part(owner)})
        return UNKNOWN

    @staticmethod
    def _is_mode_call(name: str, arguments: Arguments) -> bool:
        """Whether a ``train`` or ``eval`` with these arguments may be a module's: a training loop takes others."""
        if arguments.spread or any(keyword != "mode" for keyword, _ in arguments.keywords):
            return False
        given = [*arguments.positional, *(value for _, value in arguments.keywords)]
        if name == "eval" or len(given) > 1:
            return not given
        return all(
            isinstance(atom, (SavedMode, Unknown))
            or (isinstance(atom, Constant) and not isinstance(atom.value, (str, float)))
            for value in given
            for atom in value
        )

    def call_part_method(self, part: Part, name: str, arguments: Arguments, node: ir.Call) -> Value:
        """``train`` or ``eval`` of some module inside another: of all of them, or of the layers of a kind."""
        assert self.state is not None
        flag = arguments.at(0) or arguments.get("mode")
        wanted = name == "train" if flag is None else name == "train" and self.truth(flag)
        if wanted is None:
            self.forget_modes(frozenset({part.whole}))
            return frozenset({part})
        by: Atom = part
        if wanted:
            mode = Mode(train=self.way("put in train mode here", node.span, by))
        else:
            mode = Mode(eval=self.way("put in eval mode here", node.span, by))
        if not part.kinds:  # which of the parts is not known
            for inner, _ in self.parts(part.whole)[0]:
                if inner is not part.whole and inner in self.state.modes:
                    self.state.set_mode(inner, UNKNOWN_MODE)
            self.facts.mode_managed.add(part.whole)
        else:
            self.set_mode(part.whole, mode, part.kinds)
        return frozenset({part})

    def freeze(self, variables: Variables, value: Value, node: ir.Expr) -> None:
        is_known, flag = only_constant(value)
        if is_known and flag is False and any(came_true and _OF_NO_NORM.search(w) for w, came_true in self.name_tests):
            return  # parameters are chosen by name, and those of a BatchNorm have others
        if is_known and flag is False:
            key, event = self.event(node, events.Freeze, id(variables.owner))
            if event is None:
                at = self.location(node.span if isinstance(node, (ir.Attr, ir.Call)) else None)
                parts = frozenset(part for part, _ in self.parts(variables.owner)[0])
                event = events.Freeze(at, variables.owner, parts, self.surroundings())
                self.remember(key, event)
                self.facts.freezes.append(event)
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
        if name == "requires_grad_":
            flag = arguments.at(0) or arguments.get("requires_grad") or constant(True)
            self.freeze(Variables(owner), flag, node)
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
            return frozenset({Variables(owner, name)})
        if name in known.TORCH_PARTS:
            return frozenset({Method(owner, name)})
        if name == "get_submodule":
            return frozenset({Part(owner)})
        if name == "apply":
            return self._apply(owner, arguments, node)
        if owner.cls is not None and owner.cls.has_unknown_base:
            self.forget_modes(itself | arguments.everything())
        return UNKNOWN

    def _apply(self, owner: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        """``module.apply(function)``: the function is run on a part that may be any."""
        assert self.state is not None
        for atom in arguments.at(0) or UNKNOWN:
            if isinstance(atom, Function):
                if _may_set_modes(atom):
                    self.run_function(atom, None, Arguments((frozenset({Part(owner)}),)), node)
            elif isinstance(atom, Unknown):
                self.forget_modes(frozenset({owner}))
        return frozenset({owner})

    def _train_or_eval(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> None:
        assert self.state is not None
        flag = arguments.at(0) or arguments.get("mode") if name == "train" else None
        wanted = name == "train" if flag is None and not arguments.spread else self.truth(flag or UNKNOWN)
        train = self.way("put in train mode here", node.span, owner)
        evaluating = self.way("put in eval mode here", node.span, owner)
        saved = [atom for atom in flag or () if isinstance(atom, SavedMode)]
        if saved and len(saved) == len(flag or ()):
            mode = saved[0].mode if len(saved) == 1 else UNKNOWN_MODE
        elif wanted is not None:
            mode = Mode(train=train) if wanted else Mode(eval=evaluating)
        else:
            argument = node.args[0].value if node.args else ir.Opaque()
            when, otherwise = self.guards_of(argument)
            # Which of the two a test decides is told by that test alone.
            mode = Mode(train.under(when), evaluating.under(otherwise)) if when else UNKNOWN_MODE
        self._record_mode_call(owner, name, wanted, node)
        self.set_mode(owner, mode)
        if isinstance(owner, Instance) and wanted is not None:
            self._run_overrides(owner, wanted, node)

    def _run_overrides(self, whole: Instance, wanted: bool, node: ir.Call) -> None:
        """A part whose class has a ``train()`` of its own takes the mode in its own way."""
        for part, _ in self.parts(whole)[0]:
            if part is whole or not isinstance(part, Instance) or part.cls is None:
                continue
            for atom in part.cls.lookup("train") or ():
                takes_mode = isinstance(atom, Function) and len(atom.node.params) == 2
                if isinstance(atom, Function) and takes_mode:
                    self.run_function(atom, part, Arguments((constant(wanted),)), node)

    def _record_mode_call(self, owner: Instance | Mystery, name: str, wanted: bool | None, node: ir.Call) -> None:
        key, event = self.event(node, events.ModeCall, id(owner))
        if event is None:
            event = events.ModeCall(
                self.location(node.span),
                ir.dotted(node.func.value) if isinstance(node.func, ir.Attr) else None,
                owner,
                name,
                wanted,
                self.mode_dependent_layers(owner)[0],
                self.surroundings(),
                is_self=any(frame.receiver is owner for frame in self.frame.chain()),
            )
            self.remember(key, event)
            self.facts.mode_calls.append(event)

    @abstractmethod
    def guards_of(self, test: ir.Expr) -> tuple[Guards, Guards]:
        """What is known where a test is true, and where it is false."""

    def _call_keras_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in ("__call__", "call"):
            return self.forward(owner, arguments, node)
        if name == "add":
            self.add_elements(owner, self.children(arguments), arguments.doubtful)
        elif name in known.KERAS_SETTLES_STATISTICS:
            self.facts.settled.update(part for part, _ in self.parts(owner)[0] if isinstance(part, Instance))
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
            elif isinstance(atom, Mystery):
                found |= frozenset({atom})
            elif isinstance(atom, Part):
                found |= self.parts_taken(frozenset({atom})) or UNKNOWN
            elif isinstance(atom, Unknown):
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
        for value in (*arguments.positional, *(value for _, value in arguments.keywords)):
            for atom in value:
                if isinstance(atom, Function):
                    self._call_back(atom, arguments, node)
        self.forget_modes(arguments.everything())

    def _call_back(self, function: Function, arguments: Arguments, node: ir.Call) -> None:
        """Run what was handed to something unknown, which may call it: ``Process(target=worker, args=(1, 2))``."""
        assert self.state is not None
        if self.too_deep(function):
            return
        given: list[Value] = []
        for atom in arguments.get("args") or NOTHING:
            given = list(atom.items) if isinstance(atom, Tuple) else []
        if given and isinstance(node.func, ir.Attr) and node.func.name == "spawn":
            given.insert(0, UNKNOWN)  # the number of the process
        before = self.state.copy()
        self.run_function(function, None, Arguments(tuple(given)), node)
        self.state = before.join(self.state) if self.state is not None else before

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


def _training_default(target: Instance | Mystery) -> Value | None:
    """The default of ``training`` in the ``call`` of a class of this file."""
    if isinstance(target, Mystery) or target.cls is None:
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
