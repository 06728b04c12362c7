"""What BNL101, BNL102 and BNL901 share: a momentum in another framework's convention.

PyTorch's momentum is the weight of the new batch in the running statistics, Keras's is the weight of the old
statistics. Copied without ``1 - momentum``, either makes the running statistics those of the last batch or
two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bnlint.rules import _support as support

from bnlint.experiment import CHOSEN_FEATURES, Experiment, LayerSpec, Scalar
from bnlint.finding import Confidence, Edit, Finding, Fix, Location, Safety, TraceStep
from bnlint.frameworks.layers import LAYERS, NEW_BATCH, OLD_STATISTICS, LayerFacts, effective_batches
from bnlint.frameworks.others import DISPLAYED, HOLDS_UNTIL, OTHER_LAYERS
from bnlint.rule import Rule
from bnlint.semantics import ir
from bnlint.semantics.events import FileFacts, LayerBuilt, Surroundings, is_exactly
from bnlint.semantics.values import UNKNOWN, Constant, Instance, Unknown, Value

#: From here on the statistics remember 1.7 batches or fewer. Speed-run recipes that mean it stay below 0.5.
SHORTEST_MEANT = 0.75

# By convention: whose the other one is, its default eps, which beside the momentum tells where both were copied from,
# and what a momentum of this one weighs.
_OTHER = {NEW_BATCH: ("Keras", 1e-3), OLD_STATISTICS: ("PyTorch", 1e-5)}
_WEIGHT_OF = {NEW_BATCH: "the weight of the new batch", OLD_STATISTICS: "the weight of the old statistics"}


@dataclass(frozen=True)
class Copied:
    """A momentum taken over without conversion, and all that a finding says of it."""

    location: Location
    message: str
    confidence: Confidence
    trace: tuple[TraceStep, ...]
    fix: Fix | None
    experiment: Experiment


@dataclass(frozen=True)
class Given:
    """A momentum that a BatchNorm layer is built with or, where ``built`` is None, is set to."""

    layer: LayerFacts
    value: Value
    location: Location
    where: Surroundings
    built: LayerBuilt | None = None

    def spec(self, momentum: Scalar) -> LayerSpec:
        if self.built is None:
            return _spec_of_kind(self.layer, momentum)
        spec: LayerSpec = support.layer_spec(self.built.instance, momentum=momentum)
        return spec


def momenta(file: FileFacts) -> Iterator[Given]:
    """The momenta of BatchNorm layers, as far as the running statistics are used."""
    for built in file.layers:
        layer = LAYERS.get(built.instance.kind)
        value = built.instance.arguments.get(layer.momentum) if layer is not None else None
        if layer is None or layer.kind != "batchnorm" or value is None:
            continue
        if uses_statistics(file, built.instance, layer) and not _is_unused_default(file.layers, built, layer):
            yield Given(layer, value, built.location, built.where, built)
    for change in file.momentum_sets:
        known = LAYERS[change.kind]
        if known.kind == "batchnorm":
            yield Given(known, change.value, change.location, change.where)


def report(rule: Rule, copies: Iterable[Copied]) -> Iterator[Finding]:
    for its in copies:
        yield rule.finding(its.location, its.message, its.confidence, its.trace, its.fix, its.experiment)


def copied_momenta(file: FileFacts, framework: str) -> Iterator[Copied]:
    for given in momenta(file):
        judged = _judge(given.value, given.layer)
        if judged is None or given.layer.framework != framework:
            continue
        momentum, confidence = judged
        yield Copied(
            given.location,
            _message(given.layer, momentum, given.built.instance if given.built is not None else None),
            confidence,
            given.where.calls,
            _fix(given.built, given.layer, momentum) if given.built is not None else None,
            Experiment("momentum-memory", framework, (given.spec(momentum),)),
        )


def copied_momenta_of_others(file: FileFacts) -> Iterator[Copied]:
    """Those of layers of other frameworks; the experiment runs PyTorch's layer with the same weight."""
    for built in file.other_layers:
        layer = OTHER_LAYERS[built.instance.kind]
        value = built.instance.arguments.get(layer.momentum)
        judged = _judge(value, layer) if value is not None else None
        if judged is None or not uses_statistics(file, built.instance, layer):
            continue
        if not _is_unused_default(file.other_layers, built, layer):
            yield _copied_of_other(built, layer, *judged)


def _copied_of_other(built: LayerBuilt, layer: LayerFacts, momentum: float, confidence: Confidence) -> Copied:
    if layer.framework in HOLDS_UNTIL:  # nothing tells the version
        confidence = Confidence.LIKELY
    rebuilt = LAYERS[layer.rebuild_as or layer.name]
    same = momentum if rebuilt.convention == layer.convention else 1 - momentum
    spec = support.layer_spec(built.instance, momentum=round(same, 10))
    if rebuilt.framework != layer.framework:
        spec = replace(spec, chosen=(*spec.chosen, f"{rebuilt.name} with the same update in place of {layer.name}"))
    return Copied(
        built.location,
        _message(layer, momentum, built.instance),
        confidence,
        built.where.calls,
        _fix(built, layer, momentum),
        Experiment("momentum-memory", rebuilt.framework, (spec,)),
    )


def _judge(value: Value, layer: LayerFacts) -> tuple[float, Confidence] | None:
    """The momentum and how sure it is; None unless every constant that the value may be is a copied one."""
    constants = [atom for atom in value if isinstance(atom, Constant)]
    others = [atom for atom in value if not isinstance(atom, Constant)]
    wrong: list[float] = []
    for atom in constants:
        if isinstance(atom.value, bool) or not isinstance(atom.value, (int, float)):
            return None
        # Weight 1 and anything outside 0 … 1 are other questions: few-shot recipes mean 1.
        if not SHORTEST_MEANT <= round(layer.new_batch_weight(atom.value), 10) < 1:
            return None
        wrong.append(float(atom.value))
    if not wrong or not all(isinstance(atom, Unknown) for atom in others):
        return None
    by_default = all(atom.from_default for atom in constants)
    if others and not by_default:
        return None
    worst = max(wrong, key=layer.new_batch_weight)
    sure = not others and not any(atom.from_default for atom in constants)
    return worst, Confidence.CERTAIN if sure else Confidence.LIKELY


def _is_unused_default(alike: list[LayerBuilt], built: LayerBuilt, layer: LayerFacts) -> bool:
    """Whether the number is a parameter's default for which every caller in the file gives another value."""
    value = built.instance.arguments[layer.momentum]
    if not any(isinstance(atom, Constant) and atom.from_default for atom in value):
        return False
    return any(
        other.location == built.location and not any(isinstance(atom, Constant) and atom.from_default for atom in its)
        for other in alike
        if (its := other.instance.arguments.get(layer.momentum)) is not None
    )


def uses_statistics(file: FileFacts, instance: Instance, layer: LayerFacts) -> bool:
    """Whether the running statistics, and so the momentum, are used at all."""
    arguments = instance.arguments
    for name, values in layer.unused.items():
        if any(isinstance(atom, Constant) and atom.value in values for atom in arguments.get(name) or ()):
            return False
    tracks = arguments.get("track_running_stats")
    # One that nobody wrote down may still have come with ``**kwargs``: that it did is no more than possible.
    written = "track_running_stats" in instance.argument_nodes or tracks != UNKNOWN
    if tracks is not None and written and not is_exactly(tracks, True):
        return False
    if is_exactly(arguments.get("trainable"), False):
        return False
    if any(is_exactly(arguments.get(name), True) for name in ("training", "is_training")):
        return False
    calls = [forward for forward in file.forwards if forward.target is instance]
    always_batch = bool(calls) and all(is_exactly(forward.training, True) for forward in calls)
    return not always_batch


def _message(layer: LayerFacts, momentum: float, instance: Instance | None) -> str:
    here = DISPLAYED[layer.framework]
    there, foreign_eps = _OTHER[layer.convention]
    until = HOLDS_UNTIL.get(layer.framework)
    weight = round(layer.new_batch_weight(momentum), 10)
    name, converted = layer.momentum or "momentum", support.complement(momentum)
    meaning = _WEIGHT_OF[layer.convention] + (f" (up to version {until}, assumed here)" if until else "")
    foreign = ""
    eps = support.sole_number(instance.arguments.get(layer.eps)) if instance is not None and layer.eps else None
    if eps == foreign_eps != layer.defaults.get(layer.eps):
        foreign = f" ({layer.eps}={eps:g} is {there}'s default too)"
    return (
        f"{name}={momentum:g}{foreign} looks like {there}'s convention; {here}'s {name} is {meaning}, so the "
        f"running statistics remember about {effective_batches(weight):.1f} batches, with {name}={converted} "
        f"about {effective_batches(1 - weight):.1f}; if this is meant (transductive or few-shot evaluation, "
        "statistics never used), suppress it"
    )


def _fix(built: LayerBuilt, layer: LayerFacts, momentum: float) -> Fix | None:
    """Convert the number where it is written in the call; a name may serve other uses too."""
    node = built.instance.argument_nodes.get(layer.momentum)
    if not isinstance(node, ir.Const) or node.span is None or node.value != momentum:
        return None
    at = Location(built.location.path, *node.span)
    converted = support.complement(momentum)
    return Fix(Safety.UNSAFE, f"convert it to {converted}", (Edit(at, converted),))


def _spec_of_kind(layer: LayerFacts, momentum: Scalar) -> LayerSpec:
    arguments: dict[str, Scalar] = {"momentum": momentum}
    if "num_features" in layer.parameters:
        arguments["num_features"] = CHOSEN_FEATURES
    chosen = tuple(name for name in arguments if name != "momentum")
    return LayerSpec(layer.rebuild_as or layer.name, arguments, chosen)
