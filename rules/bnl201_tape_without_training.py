from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Safety, Severity, TraceStep
from bnlint.frameworks.functions import KERAS_MODELS
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer, is_exactly
from bnlint.semantics.values import Instance


class TapeWithoutTraining(Rule):
    """A training step of one's own calls a Keras model without `training=True`.

    ## What it does
    Reports a call of a Keras model or layer with BatchNormalization or Dropout inside a `tf.GradientTape`
    from which that model's gradients are taken, or of `self` inside a model's `train_step`, that does not
    pass `training`.

    ## Why is this bad?
    Only `fit` puts layers into training mode. Called directly without `training=True`, BatchNormalization
    normalises with its initial moving statistics and never moves them, and Dropout drops nothing. The model
    is trained without batch normalisation.

    ## Example
    ```python
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x))
    gradients = tape.gradient(loss, model.trainable_variables)
    ```

    ## Use instead
    ```python
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    ```

    ## When it does not fire
    For a model whose own gradients are not asked for (a frozen feature extractor, a gradient penalty), when
    `training` is passed in any form or its default is True, for layers that are or may be frozen, and for a further
    call of a model that the file also calls with `training=True`. Nor where the tape is in a file of its own and the
    file that hands it the model names neither a tape nor a `train_step`.

    ## How --verify confirms it
    It takes a training step with the rebuilt layer: the moving statistics stay where they are, and move when
    `training=True` is passed. A layer with `trainable=False` refutes it.

    ## Fix safety
    Unsafe: adding `training=True` changes what is trained, as it must.

    ## References
    - <https://www.tensorflow.org/guide/keras/writing_a_training_loop_from_scratch>
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/tensorflow/tensorflow/issues/31184>
    """

    code: ClassVar[str] = "BNL201"
    name: ClassVar[str] = "tape-without-training"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("tape-step",)
    evidence: ClassVar[int] = 8
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"keras", b"tensorflow"),
        (b"GradientTape", b"train_step"),
    )
    # Also the methods that build what another one trains.
    marks: ClassVar[tuple[str, ...]] = (r"GradientTape|train_step|(?:Model|Sequential)\(",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for forward in file.forwards:
            if forward.framework != "keras" or forward.input_kind == "symbolic":
                continue
            if forward.training is not None or is_exactly(forward.training_default, True):
                continue
            layers = [layer for layer in forward.layers if keras.is_live(layer)]
            if not layers or _is_trained_elsewhere(file, layers):
                continue
            if _is_in_train_step(forward):
                yield self._report(forward, layers, Confidence.CERTAIN, next(iter(forward.where.tapes), None))
                continue
            trained = _trained_by(file, forward)
            if trained is not None:
                yield self._report(forward, layers, *trained)

    def _report(self, forward: Forward, layers: list[Layer], confidence: Confidence, tape: TraceStep | None) -> Finding:
        steps = [forward.built, *forward.where.calls]
        if tape is not None:
            steps.append(TraceStep(tape.location, "gradients recorded here"))
        runs = "runs" if support.is_one(layers) else "run"
        normalises = any(support.is_batchnorm(layer.instance) for layer in layers)
        effect = "the moving statistics never move" if normalises else "nothing is dropped"
        return self.finding(
            forward.location,
            f"{support.subject(forward)} is called for training without training=True: "
            f"{support.describe(layers, forward.target)} {runs} in inference mode, so {effect}",
            confidence,
            tuple(steps),
            support.pass_training(forward, True, Safety.UNSAFE),
            support.experiment(
                "tape-step", "keras", (layer.instance for layer in layers), model=support.model_spec(forward.target)
            ),
        )


def _is_in_train_step(forward: Forward) -> bool:
    cls = forward.target.cls if isinstance(forward.target, Instance) else None
    in_train_step = forward.is_self and "train_step" in forward.where.functions
    return in_train_step and cls is not None and bool(cls.library_bases() & KERAS_MODELS)


def _trained_by(file: FileFacts, forward: Forward) -> tuple[Confidence, TraceStep] | None:
    """The tape by whose gradients the target is trained, and how sure that is; None where nothing says so."""
    unsure = None
    for tape in forward.where.tapes:
        gradients = [gradient for gradient in file.gradients if gradient.tape == tape.location]
        sources = [source for gradient in gradients for source in gradient.sources]
        if any(support.owns_same_layer(file, source, forward) for source in sources):
            return Confidence.CERTAIN, tape
        if any(gradient.sources_unknown for gradient in gradients):
            unsure = unsure or (Confidence.LIKELY, tape)
        elif gradients and not sources:
            return None  # what is computed here is a gradient by the input: a penalty, which is no step of training
    return unsure


def _is_trained_elsewhere(file: FileFacts, layers: list[Layer]) -> bool:
    """Whether each BatchNorm layer is also called with a hard-coded ``training=True``."""
    norms = {layer.instance.location for layer in layers if support.is_batchnorm(layer.instance)}
    trained = {
        layer.instance.location
        for forward in file.forwards
        if is_exactly(forward.training, True)
        for layer in forward.layers
    }
    return bool(norms) and norms <= trained
