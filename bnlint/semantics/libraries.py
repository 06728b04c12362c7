"""Calls of library functions and classes: what they build and do is in ``bnlint.frameworks``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bnlint.frameworks import functions as known
from bnlint.frameworks.catalogue import ANY, layers_of
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import framework_of
from bnlint.frameworks.others import other_layer
from bnlint.frameworks.tf1 import JOINING
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import NONE_GIVEN, Arguments
from bnlint.semantics.building import Building
from bnlint.semantics.state import UNKNOWN_MODE, Mode
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Instance,
    Part,
    Partial,
    Ref,
    Super,
    Tape,
    Tensor,
    Tuple,
    Unknown,
    Value,
    constant,
    instances,
    join,
    only_constant,
)


class Libraries(Building):
    """Adds what imported and built-in functions do."""

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name.startswith("tf1."):
            built = self.call_contrib(name, arguments, node)
            if built is not None:
                return built
        elif name in LAYERS:
            return self.build_layer(name, arguments, node)
        elif other_layer(name) is not None:
            self.note_other_layer(name, arguments, node)
        if name == known.AMP_INITIALIZE and len(arguments.positional) == 2:  # the model and the optimiser, as they are
            return frozenset({Tuple(arguments.positional)})
        if name in known.WRAPPERS or name == known.AMP_INITIALIZE:
            return arguments.at(0) or arguments.get("module") or arguments.get("model") or UNKNOWN
        if name in known.CONTAINERS:
            return self._build_container(name, arguments, node)
        if name in JOINING and (steps := self.joined_steps(arguments)):
            return steps | UNKNOWN
        if name in known.SYMBOLIC_INPUTS:
            return frozenset({Tensor("symbolic")})
        if name in known.TENSOR_MAKERS:
            kind = "random" if name in known.RANDOM_MAKERS else "eager"
            if any(isinstance(atom, Unknown) for atom in arguments.at(0) or NOTHING) and name in known.FROM_DATA:
                kind = "unknown"
            shape = _shape(self, name, arguments)
            return frozenset({Tensor(kind, shape=shape, fill=known.TENSOR_MAKERS[name])})
        if name in known.TAPE:
            return frozenset({Tape(self.location(node.span))})
        if name == "functools.partial" and arguments.positional:
            nodes = dict(arguments.keyword_nodes)
            keywords = tuple((n, v, nodes.get(n, ir.Opaque())) for n, v in arguments.keywords)
            positional = tuple(zip(arguments.positional[1:], arguments.positional_nodes[1:], strict=False))
            return frozenset({Partial(arguments.positional[0], positional, keywords)})
        if name in known.FIELDS:
            return self._default_of_field(name, arguments, node)
        if name.startswith("builtins."):
            return self._call_builtin(name.partition(".")[2], arguments, node)
        if name == "collections.OrderedDict":
            return frozenset({Tuple((self.children(arguments),))})
        owner_class, _, last = name.rpartition(".")
        if owner_class in known.TORCH_BASES and arguments.positional:  # nn.Module.eval(model)
            return self._call_unbound(last, arguments, node)
        root = name.split(".", 1)[0]
        if name.endswith(known.COMPARING_ENDINGS) or root == "numpy":
            compared = name.endswith(known.COMPARING_ENDINGS)
            self.read(arguments.everything(), self.location(node.span), compared)
        if root == "torch" and _is_torch_module(name, last):
            return frozenset({self.new_object(node, name, node.span, framework="torch")[0]})
        if name.startswith("keras.layers.") and last[0].isupper():
            return frozenset({self.new_object(node, name, node.span, framework="keras")[0]})
        is_pretrained = name.endswith(".from_pretrained") and not known.NO_MODELS.search(name)
        if is_pretrained and root in known.PRETRAINED_IN_EVAL_MODE:
            return self._load_pretrained(name, node)
        owned = self._model_of_library(name, arguments)
        if owned is not None:
            return self.build_model_of_library(name, owned, arguments, node)
        if layers_of(name) is not None:  # a model, but not with its usual layers
            return self.unknown_result(node)
        if name == "copy.deepcopy":
            return self.deep_copy(arguments, node)
        if root not in known.HARMLESS_ROOTS or name.startswith("torch.multiprocessing."):
            self.call_unknown(arguments, node)
        elif name not in known.MODEL_LOADERS:
            return self.tensors_of(arguments.everything()) | UNKNOWN
        return self.tensors_of(arguments.everything()) or self.unknown_result(node)

    def _load_pretrained(self, name: str, node: ir.Call) -> Value:
        """A model of unknown make, in eval mode."""
        assert self.state is not None
        model = self.mystery((id(node), "returned"), name.rpartition(".")[2], node.span)
        self.state.set_mode(model, Mode(eval=self.way("loaded in eval mode", node.span, model)))
        key, event = self.event(node, events.PretrainedLoaded)
        if event is None:
            event = events.PretrainedLoaded(self.location(node.span), name, model, self.surroundings())
            self.remember(key, event)
            self.facts.pretrained.append(event)
        return frozenset({model})

    @staticmethod
    def _model_of_library(name: str, arguments: Arguments) -> tuple[str, ...] | None:
        """The kinds of mode-dependent layers in the model that a library function or class builds; None where that is
        not known, among others where an argument may change them."""
        if name.startswith("segmentation_models_pytorch."):
            owned = _segmentation_model(name, arguments)
        elif name in known.MODELS_BY_NAME:
            is_hub = name == "torch.hub.load"
            repository = _constant(arguments.at(0) or arguments.get("repo_or_dir")) if is_hub else None
            if is_hub and not str(repository).startswith("pytorch/vision"):
                return None
            given = arguments.at(1 if is_hub else 0) or arguments.get("model_name") or arguments.get("model")
            model = _constant(given or arguments.get("name"))
            owned = layers_of(f"{known.MODELS_BY_NAME[name]}{model}") if model is not None else None
        else:
            owned = layers_of(name)
        for keyword, value in arguments.keywords if owned is not None else ():
            is_known, chosen = only_constant(value)
            if known.CHOOSES_NORM.search(keyword) and not (is_known and chosen in (True, "batchnorm")):
                return None
            if "drop" in keyword:  # its rate may be zero, or not
                owned = tuple(kind for kind in owned or () if LAYERS[kind].kind != "dropout") or None
        return owned

    def build_model_of_library(self, name: str, owned: tuple[str, ...], arguments: Arguments, node: ir.Call) -> Value:
        """A model that holds these kinds of layers."""
        framework = "keras" if name.startswith("keras.") or any(its.startswith("keras.") for its in owned) else "torch"
        model = self.new_object(node, name, node.span, framework=framework)[0]
        given = {str(place): value for place, value in enumerate(arguments.positional)}
        model.arguments = {**given, **dict(arguments.keywords)}
        layers = frozenset(self.new_object(node, kind, node.span, framework=framework)[0] for kind in owned)
        if layers:  # of some model of a family, they are what most of its models have
            self.add_elements(model, layers, layers if name.endswith(ANY) else NOTHING)
        return frozenset({model})

    def deep_copy(self, arguments: Arguments, node: ir.Call) -> Value:
        """A copy is in the mode of the original, part by part, and goes its own way from there."""
        assert self.state is not None
        found: Value = NOTHING
        for atom in arguments.at(0) or UNKNOWN:
            if isinstance(atom, Instance) and atom.framework is not None:
                found |= frozenset({self._copy_of(atom, node, {})})
            else:
                found |= self.unknown_result(node)
        return found

    def _copy_of(self, original: Instance, node: ir.Call, copied: dict[Instance, Instance]) -> Instance:
        assert self.state is not None
        if original in copied:
            return copied[original]
        key = (id(node), "copy", id(original))
        copy = self.frame.objects.get(key)
        if copy is None:
            copy = replace(original, unknown_attributes={})
            self.frame.objects[key] = copy
        copied[original] = copy
        self.state.set_mode(copy, self.state.modes.get(original) or UNKNOWN_MODE)
        for name, value in list(self.field_values(original)):
            inner = frozenset(
                self._copy_of(atom, node, copied) if isinstance(atom, Instance) else atom for atom in value
            )
            self.set_field(copy, name, inner)
        return copy

    def _default_of_field(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        """``field(default=0.1)``, ``field(default_factory=dict)``."""
        default = arguments.get("default") or (arguments.at(0) if name.startswith("pydantic.") else None)
        factory = arguments.get("default_factory") or arguments.get("factory")
        if default is None and factory is not None:
            return self.call_value(factory, NONE_GIVEN, node)
        return default or UNKNOWN

    def _build_container(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        container, _ = self.new_object(node, name, node.span, framework=framework_of(name))
        self.add_elements(container, self.children(arguments), arguments.doubtful)
        return frozenset({container})

    def _call_unbound(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        """``nn.Module.eval(model)``: a method is called on its class."""
        rest = replace(arguments, positional=arguments.positional[1:], positional_nodes=arguments.positional_nodes[1:])
        found: Value = NOTHING
        for owner in instances(arguments.positional[0]):
            if owner.framework == "torch":
                found = join(found, self.inherited_method(owner, name, rest, node))
        return found or UNKNOWN

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
        if name == "dict":
            mapping, _ = self.new_object(node, "builtins.dict", node.span)
            for key, value in arguments.keywords:
                self.set_field(mapping, repr(key), value)
            if arguments.positional or arguments.spread:
                self.forget_modes(first | arguments.spread)
                self.add_elements(mapping, UNKNOWN)
            return frozenset({mapping})
        if name == "filter" and len(arguments.positional) == 2:
            return frozenset({Tuple((self.iterate(arguments.positional[1]),))})
        if name == "next":
            return self.iterate(first)
        if name == "map" and len(arguments.positional) > 1:
            each = Arguments(tuple(self.iterate(value) for value in arguments.positional[1:]))
            return frozenset({Tuple((self.call_value(first, each, node),))})
        if name == "setattr" and len(arguments.positional) == 3:
            known_name, attribute = only_constant(arguments.positional[1])
            for owner in instances(first):
                if known_name and isinstance(attribute, str):
                    if attribute == "training":
                        self.forget_modes(frozenset({owner}))
                        continue
                    self.set_field(owner, attribute, arguments.positional[2])
                else:
                    self.doubt_attributes(owner)
                    self.add_elements(owner, arguments.positional[2])
            for atom in first:
                if isinstance(atom, Part):
                    self.doubt_parts(atom.whole)
        if name == "getattr" and len(arguments.positional) >= 2:
            known_name, attribute = only_constant(arguments.positional[1])
            if known_name and isinstance(attribute, str):
                found: Value = NOTHING
                for atom in first:
                    found = join(found, self.attribute_of(atom, attribute, node))
                return found
            families = frozenset(atom for atom in first if isinstance(atom, Ref) and atom.name in known.MODEL_FAMILIES)
            if families:
                return frozenset(Ref(f"{atom.name}.{ANY}") for atom in families if isinstance(atom, Ref))
            wholes = frozenset(atom for atom in first if isinstance(atom, Instance) and atom.framework == "torch")
            taken = frozenset(Part(atom) for atom in instances(wholes))
            taken |= frozenset(atom for atom in first if isinstance(atom, Part))
            if taken:
                self.forget_modes(first - wholes - taken)
                return taken | UNKNOWN
        if name in ("getattr", "vars"):  # what is taken out by an unknown name may be any part, or ``eval``
            self.forget_modes(first)
        if name in known.NUMBER_FUNCTIONS and (computed := _computed(known.NUMBER_FUNCTIONS[name], arguments)):
            return computed
        if name in ("abs", "round", "max", "min", "sum", "float"):
            return self.tensors_of(arguments.everything()) or UNKNOWN
        return UNKNOWN


def _computed(function: Callable[..., float], arguments: Arguments) -> Value:
    """What a built-in function makes of numbers that are all known; nothing if they are not."""
    values = [only_constant(value) for value in arguments.positional]
    if not values or arguments.keywords or arguments.spread or not all(is_known for is_known, _ in values):
        return NOTHING
    try:
        return constant(function(*(value for _, value in values)))
    except (TypeError, ValueError, OverflowError):
        return NOTHING


def _constant(value: Value | None) -> object:
    return only_constant(value)[1] if value is not None else None


def _segmentation_model(name: str, arguments: Arguments) -> tuple[str, ...] | None:
    """The layers of the decoder, whatever the encoder, and those of the encoder that is named."""
    last = name.rpartition(".")[2]
    if last == "get_encoder":
        return layers_of(f"smp:{_constant(arguments.at(0) or arguments.get('name'))}")
    by_name = last == "create_model"
    if by_name:
        last = str(_constant(arguments.at(0) or arguments.get("arch")))
    encoder = arguments.at(1 if by_name else 0) or arguments.get("encoder_name") or constant("resnet34")
    decoder = layers_of(f"segmentation_models_pytorch.{last}")
    if decoder is None:
        return None
    return tuple(sorted({*decoder, *(layers_of(f"smp:{_constant(encoder)}") or ())})) or None


def _is_torch_module(name: str, last: str) -> bool:
    return name.startswith("torch.nn.") and name.count(".") == 2 and last[0].isupper() and last != "Parameter"


def _shape(machine: Libraries, name: str, arguments: Arguments) -> tuple[int, ...] | None:
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
