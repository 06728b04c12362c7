from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Edit, Finding, Fix, Safety, Severity, TraceStep
from bnlint.frameworks.functions import KERAS_MODELS, TRAINING_MUST_BE_FORWARDED
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer
from bnlint.semantics.intent import is_about_freezing


class TrainingNotForwarded(Rule):
    """The `call` of a Keras model takes `training` and keeps it from its BatchNormalization.

    ## What it does
    Reports a BatchNormalization or Dropout layer that a `call` with the parameter `training` runs with the constant
    `training=False`, while it hands the parameter itself to another such layer. On the JAX backend of Keras before
    3.16 it also reports, in a model, a layer that is called without `training`.

    ## Why is this bad?
    With the constant the layer never trains: BatchNormalization normalises with its initial statistics, which never
    move, and Dropout drops nothing. Without `training` a layer gets the mode from the call around it, except that
    `fit` on JAX runs the model's `call` by itself, so that there is no call around it.

    ## Example
    ```python
    def call(self, x, training=None):
        x = self.bn1(self.conv1(x), training=training)
        return self.bn2(self.conv2(x), training=False)
    ```

    ## Use instead
    ```python
    def call(self, x, training=None):
        x = self.bn1(self.conv1(x), training=training)
        return self.bn2(self.conv2(x), training=training)
    ```

    ## When it does not fire
    For layers that are or may be frozen, where a name tells that they are meant to be (`frozen`, `pretrained`,
    `teacher`), where the same layer is also called with `training` elsewhere, where every such layer of the class gets
    the constant, which freezes it by design, and for whole models inside, which are feature extractors. Without
    `training` only where the file or the settings name JAX and the project an earlier Keras.

    ## How --verify confirms it
    It fits a model with the rebuilt layer for an epoch: the moving statistics stay as they are, and move when the
    parameter is passed on. A layer with `trainable=False` refutes it. Nothing is measured on JAX.

    ## Fix safety
    Unsafe: passing the parameter on changes what is trained, as it must.

    ## References
    - <https://keras.io/guides/making_new_layers_and_models_via_subclassing/>
    - <https://github.com/tensorflow/models/issues/9538>
    - <https://github.com/google/automl/issues/528>
    """

    code: ClassVar[str] = "BNL203"
    name: ClassVar[str] = "training-not-forwarded"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("fit-epoch",)
    evidence: ClassVar[int] = 2
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"keras", b"tensorflow"), (b"def call(",))
    needle_pattern: ClassVar[str] = r"training\s*=\s*(?:False|0)\b|def call\([^)]*\btraining\b"
    marks: ClassVar[tuple[str, ...]] = (r"def call\(", r"\btraining\b")
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        inside = [its for its in file.forwards if keras.is_in_call_with_training(its)]
        for forward in inside:
            layer = keras.called_layer(forward)
            if layer is None or _is_meant(forward):
                continue
            if keras.gets_constant(forward, False):
                if _others_get_it(inside, forward) and not _is_called_otherwise(inside, forward):
                    yield self._hard_coded(forward, layer)
            elif forward.training is None and _must_be_forwarded(file, forward):
                yield self._not_forwarded(file, forward, layer)

    def _hard_coded(self, forward: Forward, layer: Layer) -> Finding:
        at = forward.training_at
        fix = None if at is None else Fix(Safety.UNSAFE, "pass training on", (Edit(at, "training"),))
        return self.finding(
            forward.location,
            f"{forward.receiver} gets the constant training=False, while other layers get call()'s training: "
            f"{_effect(layer)}",
            Confidence.LIKELY,
            (TraceStep(layer.instance.location, "built here"),),
            fix,
            support.experiment(
                "fit-epoch",
                "keras",
                (layer.instance,),
                model=support.class_spec(forward.where.classes[-1]),
                how="hard-coded-false",
            ),
        )

    def _not_forwarded(self, file: FileFacts, forward: Forward, layer: Layer) -> Finding:
        fix = None
        if forward.edge is not None:
            text = ", training=training" if forward.needs_comma else "training=training"
            fix = Fix(Safety.UNSAFE, "pass training on", (support.insert(forward.edge, text),))
        return self.finding(
            forward.location,
            f"{forward.receiver} is called without training, and on JAX fit does not tell it the mode before "
            f"Keras 3.16: {_effect(layer)} ({keras.assumed(file.assumptions)})",
            Confidence.LIKELY,
            (TraceStep(layer.instance.location, "built here"),),
            fix,
            Experiment(
                "fit-epoch", "keras", (), unknown="the effect is one of the JAX backend, and nothing is measured there"
            ),
        )


def _effect(layer: Layer) -> str:
    if support.is_batchnorm(layer.instance):
        return "it runs in inference mode in training too, and its moving statistics never move"
    return "it drops nothing in training"


def _is_meant(forward: Forward) -> bool:
    names = [forward.receiver or "", *(cls.name for cls in forward.where.classes), *forward.where.functions]
    return is_about_freezing(names)


def _others_get_it(inside: list[Forward], forward: Forward) -> bool:
    """Whether the same ``call`` hands another layer what it gets itself."""
    cls = forward.where.classes[-1]
    return any(
        its.where.classes[-1] is cls and its.training is not None and its.layers and not _is_constant(its)
        for its in inside
    )


def _is_called_otherwise(inside: list[Forward], forward: Forward) -> bool:
    return any(its.target is forward.target and not keras.gets_constant(its, False) for its in inside)


def _is_constant(forward: Forward) -> bool:
    return any(keras.gets_constant(forward, flag) for flag in (True, False))


def _must_be_forwarded(file: FileFacts, forward: Forward) -> bool:
    assumptions = file.assumptions
    is_model = bool(forward.where.classes[-1].library_bases() & KERAS_MODELS)
    before = assumptions.keras.at_least(*TRAINING_MUST_BE_FORWARDED) is False
    return is_model and assumptions.keras_backend == "jax" and before and assumptions.keras.at_least(3) is not False
