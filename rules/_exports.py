"""What the rules on tracing and on exporting have in common: which layers matter, how it came about, the fix."""

from __future__ import annotations

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Fix, TraceStep
from bnlint.frameworks.functions import QUANTIZATION_AWARE
from bnlint.semantics.events import Exported, FileFacts, Layer
from bnlint.semantics.intent import words
from bnlint.semantics.values import Instance


def live_layers(event: Exported) -> list[Layer]:
    """The layers that are in train mode and compute something else in it."""
    return [
        layer
        for layer in event.layers
        if layer.mode is not None and layer.mode.surely_train and support.is_mode_dependent(layer.instance)
    ]


def is_managed_unknown(event: Exported) -> bool:
    """Whether the module's make is unknown, but the program itself has put it in train mode."""
    way = event.mode.train
    return event.owns_unknown and not event.layers and way is not None and way.by is not None


def is_meant(file: FileFacts, event: Exported) -> bool:
    """Whether train mode is asked for in the very call, by the function's name, or may be needed for
    quantization-aware training."""
    for name in event.where.functions[-1:]:
        if words(name) & {"train", "training"} and words(name) & {"export", "trace", "convert", "onnx"}:
            return True
    way, call = event.mode.train, event.location
    if way is not None and way.by is not None and call.line <= way.location.line <= call.end_line:
        return True
    return event.how in ("export", "fuse") and not QUANTIZATION_AWARE.isdisjoint(file.named)


def subject(event: Exported) -> str:
    target = event.target
    return event.receiver or (target.cls.name if isinstance(target, Instance) and target.cls else "the module")


def confidence(event: Exported, layers: list[Layer]) -> Confidence:
    certain = event.alone and any(layer.certain for layer in layers)
    return Confidence.CERTAIN if certain else Confidence.LIKELY


def does(layers: list[Layer], target: object, normalise: str, drop: str) -> str:
    """What the layers do, in words: ``its 2 BatchNorm2d layers <normalise>; its Dropout layer <drop>``.

    The verbs come with ``{s}`` where one layer needs an s.
    """
    effects = []
    norms = [layer for layer in layers if not support.is_dropout(layer.instance)]
    dropouts = [layer for layer in layers if support.is_dropout(layer.instance)]
    for some, verb in ((norms, normalise), (dropouts, drop)):
        if some:
            whose = support.describe(some, target if isinstance(target, Instance) else None)
            effects.append(f"{whose} {verb.format(s='s' if support.is_one(some) else '')}")
    return " and ".join(effects)


def trace(event: Exported, layers: list[Layer]) -> tuple[TraceStep, ...]:
    """Where the module was built and put into its mode, one of its layers, and the calls that lead there."""
    built, way = TraceStep(event.target.location, "built here"), event.mode.train or event.mode.eval
    if way is None or way.by is None:
        steps = [TraceStep(built.location, "built here, and a new module is in train mode")]
    else:
        steps = [built, way.step] if isinstance(event.target, Instance) else [way.step]
    inner = [layer.instance for layer in layers if layer.instance is not event.target]
    if inner and inner[0].location != event.target.location:
        steps.append(TraceStep(inner[0].location, f"this {support.short_name(inner[0])} is in train mode with it"))
    return (*steps, *event.where.calls)


def fix(file: FileFacts, event: Exported) -> Fix | None:
    """``eval()`` before the call, unless that would leave later training in eval mode."""
    loops = {loop.location for loop in event.where.loops}
    if any(loop.location in loops for backward in file.backwards for loop in backward.where.loops):
        return None
    made: Fix | None = support.eval_before(event)
    return made
