from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Location, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, GraphCall, Layer
from bnlint.semantics.intent import is_deliberate_file, is_test_file


class TrainingTrueEverywhere(Rule):
    """A Keras BatchNormalization is built into a model with `training=True` written out.

    ## What it does
    Reports a BatchNormalization layer that is called with the constant `training=True` in a `call` that has a
    parameter `training`, or while a functional model is built.

    ## Why is this bad?
    The constant wins over `predict` and `model(x, training=False)`: the layer normalises with the statistics of the
    batch in inference too. A sample's output then depends on the others in its batch, a batch of one becomes zeros
    (beta) after the layer, and each inference moves the moving statistics, which nothing uses. In Keras 3.0 to 3.15
    `predict` overrides the constant in a functional model, while a direct call heeds it.

    ## Example
    ```python
    def call(self, x, training=None):
        return self.bn(self.conv(x), training=True)
    ```

    ## Use instead
    ```python
    def call(self, x, training=None):
        return self.bn(self.conv(x), training=training)
    ```

    ## When it does not fire
    In a `call` without the parameter, whose author wants but one mode; for Dropout, which stays on for Monte Carlo
    estimates; where a name in the file tells of a method that wants batch statistics in inference: GANs and pix2pix,
    adaptation at test time, few-shot learning, style transfer; in tests; for layers that are or may be frozen; in a
    `train_step` or a gradient tape, which train; and where the same layer is also called without the constant.

    ## How --verify confirms it
    It calls the rebuilt layer with `training=True`: the output depends on the rest of the batch, and is another than
    with `training=False`. A layer with `trainable=False`, always in inference mode, refutes it.

    ## Fix safety
    There is no fix: it takes a `training` that the caller passes in, and the statistics of a model that is trained
    already were not meant for use.

    ## References
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/tensorflow/tfjs/issues/562>
    - <https://github.com/keras-team/keras/issues/3078>
    - <https://github.com/tensorflow/tensorflow/issues/43833>
    """

    code: ClassVar[str] = "BNL204"
    name: ClassVar[str] = "training-true-everywhere"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("training-literal",)
    evidence: ClassVar[int] = 4
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"keras", b"tensorflow"),
        (b"BatchNormalization",),
    )
    needle_pattern: ClassVar[str] = r"training\s*=\s*(?:True|1)\b"
    marks: ClassVar[tuple[str, ...]] = (r"training\s*=\s*(?:True|1)\b",)
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for forward in file.forwards:
            if (
                keras.is_in_call_with_training(forward)
                and not forward.where.tapes
                and keras.gets_constant(forward, True)
            ):
                layer = _layer(forward)
                if layer is not None and not _is_meant(file, forward):
                    where = f"{forward.where.classes[-1].name}.call(), whatever that gets"
                    yield self._report(file, forward.location, forward, layer, where)
        for call in file.graph_calls:
            if keras.gets_constant(call, True):
                layer = _layer(call)
                if layer is not None and not _is_meant(file, call):
                    yield self._report(file, call.location, call, layer, "a functional model")

    def _report(self, file: FileFacts, at: Location, call: Forward | GraphCall, layer: Layer, where: str) -> Finding:
        overridden = isinstance(call, GraphCall) and keras.ignores_literals(file.assumptions)
        but = ", except under predict in Keras 3.0 to 3.15" if overridden else ""
        model = support.graph_spec(at) if isinstance(call, GraphCall) else support.class_spec(call.where.classes[-1])
        return self.finding(
            at,
            f"BatchNormalization always gets training=True in {where}: it normalises with the statistics of the "
            f"batch in inference too, so a sample's output depends on its batch-mates{but}",
            Confidence.LIKELY,
            (TraceStep(layer.instance.location, "built here"), *call.where.calls),
            experiment=support.experiment("training-literal", "keras", (layer.instance,), model=model),
        )


def _layer(call: Forward | GraphCall) -> Layer | None:
    """The BatchNormalization layer that is what is called."""
    layer: Layer | None = keras.called_layer(call)
    return layer if layer is not None and support.is_batchnorm(layer.instance) else None


def _is_meant(file: FileFacts, call: Forward | GraphCall) -> bool:
    where = call.where
    names = [*where.functions, *(cls.name for cls in where.classes), call.receiver or ""]
    if is_deliberate_file(file, names) or is_test_file(file):
        return True
    # The other calls are how the layer is meant to infer, and this one how it learns.
    calls: list[Forward | GraphCall] = [*file.forwards, *file.graph_calls]
    return any(its.target is call.target and not keras.gets_constant(its, True) for its in calls)
