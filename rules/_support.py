"""What several rules need: experiments from layers, names for layers, edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from bnlint.experiment import CHOSEN_FEATURES, Argument, Experiment, InputSpec, LayerSpec, ModelSpec, Scalar
from bnlint.finding import Edit, Fix, Location, Safety, TraceStep
from bnlint.frameworks.functions import KERAS_MODELS, MODEL_LIBRARIES
from bnlint.frameworks.layers import LAYERS, LayerFacts
from bnlint.frameworks.others import OTHER_LAYERS
from bnlint.semantics import ir
from bnlint.semantics.events import Exported, FileFacts, Forward, Layer, Surroundings, is_exactly, numbers
from bnlint.semantics.intent import words
from bnlint.semantics.values import Class, Constant, Function, Instance, Mystery, Ref, Value, only_constant

# Arguments that change nothing that an experiment measures, or that it sets itself.
_LEFT_OUT = frozenset({"device", "dtype", "process_group", "inplace", "noise_shape", "seed", "inputs"})


def is_batchnorm(instance: Instance) -> bool:
    return is_layer(instance) and LAYERS[instance.kind].kind == "batchnorm"


def is_dropout(instance: Instance) -> bool:
    return is_layer(instance) and LAYERS[instance.kind].kind == "dropout"


def is_layer(instance: Instance | Mystery) -> bool:
    return isinstance(instance, Instance) and instance.kind in LAYERS


def facts_of(kind: str) -> LayerFacts:
    """What is known of a layer by its canonical name, whichever framework it is of."""
    return LAYERS.get(kind) or OTHER_LAYERS[kind]


def short_name(instance: Instance) -> str:
    return LAYERS[instance.kind].short_name


def is_mode_dependent(instance: Instance) -> bool:
    """Whether this layer may compute something else in train mode than in eval mode."""
    facts = LAYERS.get(instance.kind)
    if facts is None:
        return False
    arguments = instance.arguments
    if facts.kind == "batchnorm":
        return not is_exactly(arguments.get("track_running_stats"), False)
    if facts.kind == "instancenorm":
        return is_exactly(arguments.get("track_running_stats"), True)
    return not any(is_zero(arguments.get(name)) for name in ("p", "rate"))


def trains(layer: Layer) -> bool:
    """Whether this surely is a BatchNorm, and in train mode (PyTorch)."""
    in_train_mode = layer.mode is not None and layer.mode.surely_train
    return layer.certain and in_train_mode and is_batchnorm(layer.instance)


def is_zero(value: Value | None) -> bool:
    known, constant = only_constant(value or frozenset())
    return known and constant == 0 and isinstance(constant, (int, float))


def layer_spec(instance: Instance, **known: Scalar) -> LayerSpec:
    """The layer as its arguments tell, ``known`` before its own; what they leave open is named as chosen."""
    facts = facts_of(instance.kind)
    rebuilt = LAYERS[facts.rebuild_as or facts.name]
    renamed_to = {facts.momentum: rebuilt.momentum, facts.eps: rebuilt.eps}
    # TensorFlow 1's trainable=False is no inference mode: it spares gamma and beta alone.
    switch = ("trainable",) if facts.framework == "keras" and not facts.mode else ()
    built = {*rebuilt.parameters, *switch}
    arguments: dict[str, Scalar] = {}
    chosen: list[str] = []
    for name in (*facts.parameters, *switch):
        renamed = renamed_to.get(name, name)
        if name in _LEFT_OUT or renamed not in built:
            continue
        if renamed in known:
            arguments[renamed] = known[renamed]
            continue
        value = instance.arguments.get(name)
        if value is not None:
            is_known, constant = only_constant(value)
            if is_known:
                arguments[renamed] = constant
                continue
            chosen.append(renamed)
        if name == "num_features":
            arguments[name] = CHOSEN_FEATURES
            if name not in chosen:
                chosen.append(name)
    for name, default in facts.defaults.items():  # where the layer that is rebuilt has others
        renamed = renamed_to.get(name, name)
        if (
            renamed in rebuilt.defaults
            and rebuilt.defaults[renamed] != default
            and renamed not in (*arguments, *chosen)
        ):
            arguments[renamed] = default
    if "num_features" in rebuilt.parameters and "num_features" not in arguments:  # one that finds it out by itself
        arguments["num_features"] = CHOSEN_FEATURES
        chosen.append("num_features")
    return LayerSpec(facts.rebuild_as or facts.name, arguments, tuple(chosen))


def experiment(
    kind: str,
    framework: str,
    layers: Iterable[Instance],
    forward: Forward | None = None,
    model: ModelSpec | None = None,
    **options: Scalar,
) -> Experiment:
    """The question for these layers; layers that are built alike are measured once.

    With a ``forward`` whose target is nothing but one layer the source's own input is run as well. ``model`` is what
    the layers are in, unless it is the target of the ``forward``.
    """
    specs: list[LayerSpec] = []
    for instance in layers:
        spec = layer_spec(instance)
        if spec not in specs:
            specs.append(spec)
    source = None
    if forward is not None and forward.sole_layer and len(specs) == 1:
        shape, fill = forward.input_shape, forward.input_fill
        source = None if shape is None or fill is None else InputSpec(shape, fill)
    unknown = "" if specs else "the source does not tell which layers with two modes the object has"
    if model is None and forward is not None:
        model = model_spec(forward.target)
    return Experiment(kind, framework, tuple(specs), source, unknown, options, model)


def model_spec(target: Instance | Mystery) -> ModelSpec | None:
    """The model as the source builds it; None for what is of no class of the project and of no library of models."""
    if not isinstance(target, Instance) or target.framework is None:
        return None
    if target.cls is None and target.kind in KERAS_MODELS:
        return graph_spec(target.location)
    if target.cls is None and not target.kind.startswith(MODEL_LIBRARIES):
        return None
    known: dict[str, Argument] = {}
    unknown: list[str] = []
    for name, value in target.arguments.items():
        is_known, argument = _argument(value, target.argument_nodes.get(name))
        if is_known:
            known[name] = argument
        else:
            unknown.append(name)
    if target.cls is not None:
        return ModelSpec(target.cls.location.path, target.cls.name, known, (), tuple(unknown))
    places = sorted(name for name in known if name.isdecimal())
    positional = tuple(known.pop(place) for place in places)
    return ModelSpec("", target.kind, known, positional, tuple(unknown))


def _argument(value: Value, node: ir.Expr | None) -> tuple[bool, Argument]:
    """(True, what a model is built with) where the source tells."""
    is_known, constant = only_constant(value)
    if is_known:
        return True, constant
    if isinstance(node, ir.Display) and node.kind in ("list", "tuple"):
        written = [item.value for item in node.items if isinstance(item, ir.Const)]
        return len(written) == len(node.items), list(written)
    (atom, *others) = value or (None,)
    if others:
        return False, None
    if isinstance(atom, Class) and atom.library_bases():
        return True, replace(class_spec(atom), called=False)
    if isinstance(atom, Ref) and atom.name in LAYERS:
        return True, ModelSpec("", atom.name, called=False)
    if isinstance(atom, Instance) and atom.cls is None and atom.kind in LAYERS:
        layer = layer_spec(atom)
        return not layer.chosen, ModelSpec("", layer.kind, dict(layer.arguments))
    spec = model_spec(atom) if isinstance(atom, Instance) else None
    return spec is not None, spec


def class_spec(cls: Class) -> ModelSpec:
    """A model of this class, of which the source does not tell how it is built."""
    return ModelSpec(cls.location.path, cls.name)


def graph_spec(at: Location) -> ModelSpec:
    """A functional model, by the place of something that builds it."""
    return ModelSpec(at.path, "", line=at.line)


def describe(layers: Iterable[Layer], target: Instance | None = None) -> str:
    """``its 2 BatchNorm2d and 1 Dropout layers``, ``its BatchNorm2d layer``, or ``this BatchNorm2d layer``.

    The last is said where the one layer is itself the target.
    """
    counts = Counter(short_name(instance) for instance in {layer.instance: None for layer in layers})
    one_each = max(counts.values(), default=0) == 1
    named = [name if one_each else f"{count} {name}" for name, count in sorted(counts.items())]
    names = " and ".join(named)
    if counts.total() == 1:
        return f"{'this' if any(layer.instance is target for layer in layers) else 'its'} {names} layer"
    return f"its {names} layers"


def names_around(where: Surroundings, path: str) -> list[str]:
    """The names of the file and of the functions and classes around, which may tell what is meant."""
    file = path.rpartition(".")[0].replace("/", "_").replace("-", "_")
    return [file, *where.functions, *(cls.name for cls in where.classes)]


def is_one(layers: Iterable[Layer]) -> bool:
    """Whether ``describe`` speaks of a single layer."""
    return len({layer.instance for layer in layers}) == 1


def subject(forward: Forward) -> str:
    target = forward.target
    return forward.receiver or (target.cls.name if isinstance(target, Instance) and target.cls else "the module")


def built_and_mode(forward: Forward) -> list[TraceStep]:
    """Where the object was built and put into its mode."""
    built, mode = forward.built, forward.mode.train
    if mode is None or mode.location == built.location:
        new = " here, and a new module is in train mode" if forward.mode.surely_train else " here"
        return [TraceStep(built.location, "built" + new)]
    return [mode.step] if isinstance(forward.target, Mystery) else [built, mode.step]


def owns_same_layer(facts: FileFacts, owner: Instance | Mystery, forward: Forward) -> bool:
    """Whether ``owner`` is what runs, one of its layers, or holds one of its layers."""
    mine = {layer.instance for layer in forward.layers}
    if owner is forward.target or owner in mine:
        return True
    return any(
        other.target is owner and not mine.isdisjoint(layer.instance for layer in other.layers)
        for other in facts.forwards
    )


def insert(at: Location, text: str) -> Edit:
    return Edit(Location(at.path, at.line, at.column, at.line, at.column), text)


def append(at: Location, text: str) -> Edit:
    """Put ``text`` behind what stands there."""
    return insert(Location(at.path, at.end_line, at.end_column, at.end_line, at.end_column), text)


def eval_before(forward: Forward | Exported) -> Fix | None:
    """Put ``RECEIVER.eval()`` on a line of its own before the statement, or before the ``with`` around it."""
    if forward.receiver is None:
        return None
    place = forward.statement
    block = forward.block
    if block is not None and not _is_bound_between(forward, block):
        place = block
    # The edit must repeat the indentation without seeing it: a depth that is no multiple of four is left
    # alone, since it may be made of tabs.
    if (place.column - 1) % 4:
        return None
    text = f"{forward.receiver}.eval()\n" + " " * (place.column - 1)
    return Fix(Safety.UNSAFE, f"put {forward.receiver} in eval mode first", (insert(place, text),))


def _is_bound_between(forward: Forward | Exported, block: Location) -> bool:
    """Whether the receiver may get its value after ``block`` begins, so that it has none before."""
    if block.line <= forward.target.location.line <= forward.statement.line:
        return True
    models = {"models", "nets", "networks", "ensemble", "members", "modules", "values", "items", "learners"}
    return any(
        block.line <= loop.location.line and any(words(name) & models for name in loop.reads)
        for loop in forward.where.loops
    )


def pass_training(forward: Forward, flag: bool, safety: Safety) -> Fix | None:
    """Add ``training=`` to the call, unless the object's own ``call`` has no such parameter."""
    if forward.edge is None or not _takes_training(forward.target):
        return None
    text = f"training={flag}"
    edit = insert(forward.edge, f", {text}" if forward.needs_comma else text)
    return Fix(safety, f"pass {text}", (edit,))


def _takes_training(target: Instance | Mystery) -> bool:
    call = target.cls.lookup("call") if isinstance(target, Instance) and target.cls else None
    if call is None:
        return True
    return all(
        isinstance(atom, Function) and any(p.name == "training" or p.kind == "**" for p in atom.node.params)
        for atom in call
    )


def complement(number: float) -> str:
    """``1 - number`` as one would write it: ``0.01`` for 0.99."""
    return repr(round(1 - number, 10))


def sole_number(value: Value | None) -> float | None:
    """The number that a value is, if it is one and nothing else."""
    found, only = numbers(value or frozenset())
    return as_float(found[0]) if only and len(found) == 1 else None


def as_float(constant: Constant) -> float:
    assert isinstance(constant.value, (int, float))
    return float(constant.value)
