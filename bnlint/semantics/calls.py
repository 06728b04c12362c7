"""Calls: functions of the file are run in the caller's state, library calls have the effect the tables say."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from bnlint.finding import Location, TraceStep
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import framework_of
from bnlint.semantics import events, ir
from bnlint.semantics.expressions import Expressions
from bnlint.semantics.machine import MAX_DEPTH, Context, Frame
from bnlint.semantics.state import ELEMENTS, UNKNOWN_MODE, Mode, join_all
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Class,
    Function,
    Instance,
    Method,
    Part,
    Partial,
    Ref,
    Super,
    Tape,
    Tensor,
    Tuple,
    Unknown,
    Value,
    Variables,
    constant,
    instances,
    join,
    only_constant,
)
from bnlint.source.positions import Span


@dataclass(frozen=True)
class Arguments:
    """Evaluated arguments. ``spread`` tells that ``*`` or ``**`` may have passed more than is listed."""

    positional: tuple[Value, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()
    positional_nodes: tuple[ir.Expr, ...] = ()
    keyword_nodes: tuple[tuple[str, ir.Expr], ...] = ()
    spread: Value = NOTHING

    def get(self, name: str) -> Value | None:
        return next((value for keyword, value in self.keywords if keyword == name), None)

    def at(self, position: int) -> Value | None:
        return self.positional[position] if position < len(self.positional) else None

    def everything(self) -> Value:
        found: Value = self.spread
        for value in (*self.positional, *(value for _, value in self.keywords)):
            found |= value
        return found


NONE_GIVEN = Arguments()


class Calls(Expressions):
    """Adds ``call``."""

    @abstractmethod
    def run_block(self, body: tuple[ir.Stmt, ...]) -> None: ...

    def call(self, node: ir.Call) -> Value:
        callee = self.evaluate(node.func)
        arguments = self._arguments(node)
        found: Value = NOTHING
        for atom in sorted(callee, key=_stable):
            found = join(found, self._call_atom(atom, arguments, node))
        return found or UNKNOWN

    def _arguments(self, node: ir.Call) -> Arguments:
        positional: list[Value] = []
        nodes: list[ir.Expr] = []
        keywords: list[tuple[str, Value]] = []
        keyword_nodes: list[tuple[str, ir.Expr]] = []
        spread: Value = NOTHING
        for arg in node.args:
            value = self.evaluate(arg.value)
            if arg.star == "**":
                mappings = instances(value)
                if len(mappings) == len(value) == 1 and mappings[0].kind == "builtins.dict":
                    for name, held in self.field_values(mappings[0]):
                        if name != ELEMENTS:
                            keywords.append((name.strip("'"), held))
                        else:
                            spread |= held | UNKNOWN
                else:
                    spread |= value | UNKNOWN
            elif arg.star == "*":
                spread |= self.elements(value) or UNKNOWN
            elif arg.keyword is not None:
                keywords.append((arg.keyword, value))
                keyword_nodes.append((arg.keyword, arg.value))
            else:
                positional.append(value)
                nodes.append(arg.value)
        return Arguments(tuple(positional), tuple(keywords), tuple(nodes), tuple(keyword_nodes), spread)

    def _call_atom(self, atom: Atom, arguments: Arguments, node: ir.Call) -> Value:
        match atom:
            case Function():
                return self.run_function(atom, None, arguments, node)
            case BoundFunction(function=function, receiver=receiver):
                return self.run_function(function, receiver, arguments, node)
            case Class():
                return self.instantiate(atom, arguments, node)
            case Instance():
                return self._call_instance(atom, arguments, node)
            case Method(owner=owner, name=name):
                return self._call_method(owner, name, arguments, node)
            case Ref(name=name):
                return self._call_library(name, arguments, node)
            case Partial(callee=callee, keywords=more):
                given = {name for name, _ in arguments.keywords}
                extended = replace(
                    arguments,
                    keywords=(*arguments.keywords, *((n, v) for n, v, _ in more if n not in given)),
                    keyword_nodes=(*arguments.keyword_nodes, *((n, e) for n, _, e in more if n not in given)),
                )
                found: Value = NOTHING
                for inner in sorted(callee, key=_stable):
                    found = join(found, self._call_atom(inner, extended, node))
                return found
            case Tensor():
                return self._call_tensor_method(atom, node)
        self._call_unknown(arguments, node)
        return self.tensors_of(arguments.everything()) | UNKNOWN

    # Functions and classes of this file

    def run_function(
        self, function: Function, receiver: Instance | None, arguments: Arguments, node: ir.Expr
    ) -> Value:
        """Run the body of a function of this file for this call."""
        assert self.state is not None
        everything = arguments.everything()
        if any(frame.function is function for frame in self.frame.chain()) or self.frame.depth > MAX_DEPTH:
            self.forget_modes(everything | (frozenset({receiver}) if receiver else NOTHING))
            return UNKNOWN
        function.called = True
        if function.strange_decorator:  # it may put its arguments into a mode of its own before the body runs
            self.forget_modes(everything | (frozenset({receiver}) if receiver else NOTHING))
        span = node.span if isinstance(node, (ir.Call, ir.Attr)) else None
        name = function.owner.name if function.name == "__init__" and function.owner else function.name
        # Only a place in the source can be shown; a representative object is built nowhere.
        step = TraceStep(self.location(span), f"{name}() called here") if span is not None else None
        frame = self._enter(function, (id(node), id(function)), step, self.frame.from_script)
        frame.receiver = receiver
        return self.run_body(frame, function, receiver, arguments)

    def _enter(self, function: Function, key: tuple[object, ...], call: TraceStep | None, script: bool) -> Frame:
        frame = self.frame.children.get(key)
        if frame is None:
            frame = Frame(function, function.frame, self.frame, call, from_script=script)
            self.frame.children[key] = frame
        return frame

    def run_body(self, frame: Frame, function: Function, receiver: Instance | None, arguments: Arguments) -> Value:
        assert self.state is not None
        saved = (self.frame, self.contexts, self.statement, self.block)
        self.frame, self.block = frame, None
        frame.returned = []
        for decorator in sorted(function.decorators & (known.NO_GRAD | known.ENABLE_GRAD)):
            kind = "no_grad" if decorator in known.NO_GRAD else "grad"
            step = TraceStep(function.location, f"runs under {decorator} (decorator)")
            self.contexts = (*self.contexts, Context(kind, step))
        self._bind_parameters(function, receiver, arguments)
        self.run_block(function.node.body)
        value: Value = NOTHING
        states = []
        for state, returned in frame.returned:
            states.append(state)
            value = join(value, returned)
        if self.state is not None:
            states.append(self.state)
            value = join(value, constant(None))
        after = join_all(states)
        if after is not None and not frame.functions:  # no closure can read its names any more
            for name in frame.names:
                after.slots.pop((frame, name), None)
        self.frame, self.contexts, self.statement, self.block = saved
        # A body that only raises: what follows the call is not run, but silence about it would be a guess.
        self.state = after if after is not None else self.before_raise
        return value or UNKNOWN

    def _bind_parameters(self, function: Function, receiver: Instance | None, arguments: Arguments) -> None:
        positional = list(arguments.positional)
        if receiver is not None:
            positional.insert(0, frozenset({receiver}))
        keywords = dict(arguments.keywords)
        unlisted = arguments.spread | UNKNOWN if arguments.spread else NOTHING
        for param in function.node.params:
            if param.kind == "positional" and positional:
                value = positional.pop(0)
            elif param.kind == "*":
                value, positional = frozenset({Tuple(tuple(positional))}) | unlisted, []
            elif param.kind == "**":
                value = UNKNOWN
            elif param.name in keywords:
                value = keywords.pop(param.name)
            else:
                default = function.defaults.get(param.name)
                value = default | unlisted if default is not None else unlisted or UNKNOWN
            self.bind(param.name, value)

    def call_method(self, function: Function, receiver: Instance, node: ir.Expr) -> Value:
        return self.run_function(function, receiver, NONE_GIVEN, node)

    def instantiate(self, cls: Class, arguments: Arguments, node: ir.Expr) -> Value:
        framework = self.framework_of_bases(cls.library_bases())
        span = node.span if isinstance(node, (ir.Call, ir.Attr)) else cls.node.span
        instance, _ = self.new_object(node, cls.name, span, cls=cls, framework=framework)
        if cls.has_unknown_base and framework == "torch":
            assert self.state is not None
            self.state.modes[instance] = UNKNOWN_MODE
        init = cls.lookup("__init__")
        for atom in init or ():
            if isinstance(atom, Function):
                self.run_function(atom, instance, arguments, node)
        if init is None and cls.library_bases() & (known.TORCH_CONTAINERS | {"keras.Sequential"}):
            self.add_elements(instance, self._children(arguments))
        return frozenset({instance})

    # Objects

    def _call_instance(self, instance: Instance, arguments: Arguments, node: ir.Call) -> Value:
        if instance.framework is not None:
            return self._forward(instance, arguments, node)
        if instance.cls is not None:
            call = instance.cls.lookup("__call__")
            functions = [atom for atom in call or () if isinstance(atom, Function)]
            if functions:
                return self.run_function(functions[0], instance, arguments, node)
        self._call_unknown(arguments, node)
        return self.tensors_of(arguments.everything()) | UNKNOWN

    def _forward(self, target: Instance, arguments: Arguments, node: ir.Call) -> Value:
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

    def _call_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
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
        self._call_unknown(arguments, node)
        return UNKNOWN

    def _call_collection_method(self, owner: Instance, name: str, arguments: Arguments) -> Value:
        first = arguments.at(0) or NOTHING
        if name in ("append", "add", "insert"):
            self.add_elements(owner, arguments.everything())
        elif name in ("extend", "update"):
            self.add_elements(owner, self.elements(first) or UNKNOWN)
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
            return self._forward(owner, arguments, node)
        if name in ("append", "extend", "insert", "add_module", "register_module"):
            self.add_elements(owner, self._children(arguments))
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
            return self._forward(owner, arguments, node)
        if name == "add":
            self.add_elements(owner, self._children(arguments))
        elif name in known.KERAS_SETTLES_STATISTICS:
            self.facts.settled.update(part for part, _ in self.parts(owner)[0])
        elif name in ("predict", "predict_on_batch"):
            return frozenset({Tensor("eager")})
        elif owner.cls is not None and owner.cls.has_unknown_base:
            self.forget_modes(frozenset({owner}))
        return UNKNOWN

    def _call_tensor_method(self, tensor: Tensor, node: ir.Call) -> Value:
        name = node.func.name if isinstance(node.func, ir.Attr) else ""
        if name == "backward":
            self._backward(node, frozenset({tensor}))
            return UNKNOWN
        if name in known.READING_METHODS | known.COMPARING_METHODS:
            compared = name in known.COMPARING_METHODS
            self.read(frozenset({tensor}), self.location(node.span), compared)
        # .cpu() of a tensor of ones is a tensor of ones; .sum() is something else.
        same = name in ("cuda", "to", "cpu", "float", "contiguous", "clone", "detach", "requires_grad_")
        return frozenset({tensor if same else replace(tensor, shape=None, fill=None)})

    # Libraries

    def _call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in LAYERS:
            return self._build_layer(name, arguments, node)
        if name in known.TORCH_WRAPPERS:
            return arguments.at(0) or arguments.get("module") or UNKNOWN
        if name in known.TORCH_CONTAINERS or name in known.KERAS_MODELS:
            return self._build_container(name, arguments, node)
        if name in known.SYMBOLIC_INPUTS:
            return frozenset({Tensor("symbolic")})
        if name in known.TENSOR_MAKERS:
            kind = "random" if name in known.RANDOM_MAKERS else "eager"
            shape = _shape(self, name, arguments)
            return frozenset({Tensor(kind, shape=shape, fill=known.TENSOR_MAKERS[name])})
        if name in known.TAPE:
            return frozenset({Tape(self.location(node.span))})
        if name == "functools.partial" and arguments.positional:
            nodes = dict(arguments.keyword_nodes)
            keywords = tuple((n, v, nodes.get(n, ir.Opaque())) for n, v in arguments.keywords)
            return frozenset({Partial(arguments.positional[0], keywords)})
        if name.startswith("builtins."):
            return self._call_builtin(name.partition(".")[2], arguments, node)
        if name == "collections.OrderedDict":
            return frozenset({Tuple((self._children(arguments),))})
        last = name.rpartition(".")[2]
        root = name.split(".", 1)[0]
        if name.endswith(known.COMPARING_ENDINGS) or root == "numpy":
            compared = name.endswith(known.COMPARING_ENDINGS)
            self.read(arguments.everything(), self.location(node.span), compared)
        if root == "torch" and name.startswith("torch.nn.") and name.count(".") == 2 and last[0].isupper():
            return frozenset({self.new_object(node, name, node.span, framework="torch")[0]})
        if name.startswith("keras.layers.") and last[0].isupper():
            return frozenset({self.new_object(node, name, node.span, framework="keras")[0]})
        if name == "copy.deepcopy" or root not in known.HARMLESS_ROOTS:
            self._call_unknown(arguments, node)
        return self.tensors_of(arguments.everything()) | UNKNOWN

    def _build_layer(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        facts = LAYERS[name]
        bound: dict[str, Value] = dict(zip(facts.parameters, arguments.positional, strict=False))
        nodes: dict[str, ir.Expr] = dict(zip(facts.parameters, arguments.positional_nodes, strict=False))
        positional = frozenset(bound)
        bound.update(arguments.keywords)
        nodes.update(arguments.keyword_nodes)
        if arguments.spread:  # anything not written out may have been passed
            bound.update({p: UNKNOWN for p in facts.parameters if p not in bound})
        layer, first = self.new_object(node, name, node.span, framework=facts.framework)
        for parameter, value in bound.items():
            previous = layer.arguments.get(parameter)
            default = frozenset() if first else previous or NOTHING
            layer.arguments[parameter] = value | default
        layer.positional, layer.argument_nodes = positional, nodes
        if first:
            self.facts.layers.append(
                events.LayerBuilt(self.location(node.span), layer, node, self.surroundings())
            )
        if name.startswith("tf1."):  # one call builds the layer and applies it
            return frozenset({Tensor("symbolic", through=frozenset({layer}))})
        return frozenset({layer})

    def _build_container(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        container, _ = self.new_object(node, name, node.span, framework=framework_of(name))
        self.add_elements(container, self._children(arguments))
        return frozenset({container})

    def _children(self, arguments: Arguments) -> Value:
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

    def _call_builtin(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        first = arguments.at(0) or UNKNOWN
        if name in known.READING_FUNCTIONS:
            self.read(arguments.everything(), self.location(node.span), compared=False)
        if name == "super":
            for frame in self.frame.chain():
                function = frame.function
                if function is not None and function.owner is not None and frame.receiver is not None:
                    return frozenset({Super(frame.receiver, function.owner)})
        if name in ("list", "tuple", "reversed", "sorted", "iter", "set"):
            return frozenset({Tuple((self.iterate(first),))}) if arguments.positional else UNKNOWN
        if name == "enumerate":
            return frozenset({Tuple((frozenset({Tuple((UNKNOWN, self.iterate(first)))}),))})
        if name == "zip":
            pair = Tuple(tuple(self.iterate(value) for value in arguments.positional))
            return frozenset({Tuple((frozenset({pair}),))})
        if name == "next":
            return self.iterate(first)
        if name == "setattr" and len(arguments.positional) == 3:
            known_name, attribute = only_constant(arguments.positional[1])
            for owner in instances(first):
                if known_name and isinstance(attribute, str):
                    self.set_field(owner, attribute, arguments.positional[2])
                else:
                    self.add_elements(owner, arguments.positional[2])
        if name == "getattr" and len(arguments.positional) >= 2:
            known_name, attribute = only_constant(arguments.positional[1])
            if known_name and isinstance(attribute, str):
                found: Value = NOTHING
                for atom in first:
                    found = join(found, self.attribute_of(atom, attribute, node))
                return found
        if name in ("abs", "round", "max", "min", "sum", "float"):
            return self.tensors_of(arguments.everything()) or UNKNOWN
        return UNKNOWN

    def _call_unknown(self, arguments: Arguments, node: ir.Call) -> None:
        """A call that cannot be followed: it may do anything to the modules it is given."""
        if isinstance(node.func, ir.Attr):
            if node.func.name in ("backward", "step") and not arguments.positional:
                self._backward(node, NOTHING)
            elif node.func.name in ("gradient", "jacobian"):
                self._gradient(node, arguments)
                return
        self.forget_modes(arguments.everything())

    def _backward(self, node: ir.Call, tensors: Value) -> None:
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
        unknown = any(not isinstance(atom, Variables) for atom in sources)
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


def names_in(node: ir.Expr) -> list[str]:
    """The names and attribute names that an expression reads."""
    match node:
        case ir.Name(id=name):
            return [name]
        case ir.Attr(value=value, name=name):
            return [*names_in(value), name]
        case ir.Call(func=func, args=args):
            return [*names_in(func), *(name for arg in args for name in names_in(arg.value))]
        case ir.Subscript(value=value, index=index):
            key = [index.value] if isinstance(index, ir.Const) and isinstance(index.value, str) else []
            return [*names_in(value), *key]
        case ir.Binary(left=left, right=right):
            return [*names_in(left), *names_in(right)]
        case ir.Display(items=items):
            return [name for item in items for name in names_in(item)]
    return []


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


def _shape(machine: Calls, name: str, arguments: Arguments) -> tuple[int, ...] | None:
    values = arguments.positional or ((arguments.get("shape") or arguments.get("size") or UNKNOWN),)
    first = [atom for atom in values[0] if isinstance(atom, Tuple)]
    lists = [atom for atom in values[0] if isinstance(atom, Instance) and atom.kind == "builtins.list"]
    if first:
        values = first[0].items
    elif lists:
        return None  # the order of a list's elements is not kept
    sizes = [only_constant(value) for value in values]
    if all(is_known and isinstance(size, int) for is_known, size in sizes):
        return tuple(size for _, size in sizes)
    return None


def _stable(atom: Atom) -> tuple[str, str]:
    """An order that does not depend on hashes, so that two runs give the same answer."""
    location = getattr(atom, "location", None)
    return (type(atom).__name__, str(location or getattr(atom, "name", "")))
