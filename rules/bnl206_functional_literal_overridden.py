from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, GraphCall, Layer, TrainableSet, is_exactly


class FunctionalLiteralOverridden(Rule):
    """`training=False` in a functional model does not keep BatchNormalization from training in Keras 3.0 to 3.15.

    ## What it does
    Reports `training=False` written into the call of a layer or model while a functional model is built, if it owns
    BatchNormalization that is trainable, where the project is known to run on Keras 3.0 to 3.15.

    ## Why is this bad?
    In these versions `fit` overrides the constant with its own `training=True`. A pretrained model that the usual
    recipe for fine-tuning keeps in inference mode this way normalises with the statistics of the new, small batches,
    and its moving statistics are overwritten. Keras 2 heeds the constant, and so does Keras from 3.16 on.

    ## Example
    ```python
    base.trainable = True
    outputs = head(base(inputs, training=False))
    model = keras.Model(inputs, outputs)
    ```

    ## Use instead
    ```python
    base.trainable = True
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    outputs = head(base(inputs, training=False))
    model = keras.Model(inputs, outputs)
    ```

    ## When it does not fire
    Where the version is not known, or is another; for layers that are frozen (`trainable = False`) and not thawed
    later; inside the `call` of a subclass, whose constants count in every version; for Dropout alone.

    ## How --verify confirms it
    It builds a functional model with the rebuilt layer and the constant, and fits it for an epoch: the moving
    statistics move, as they do not with `trainable=False`. Keras 3.16 and a layer that is frozen refute it.

    ## Fix safety
    There is no fix: which layers are to be frozen, and from which stage of the training on, is for the author to say.

    ## References
    - <https://keras.io/guides/transfer_learning/>
    - <https://github.com/keras-team/keras/issues/20285>
    - <https://github.com/keras-team/keras/pull/23364>
    """

    code: ClassVar[str] = "BNL206"
    name: ClassVar[str] = "functional-literal-overridden"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("fit-epoch",)
    evidence: ClassVar[int] = 2
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"keras", b"tensorflow"),)
    needle_pattern: ClassVar[str] = r"training\s*=\s*(?:False|0)\b"
    marks: ClassVar[tuple[str, ...]] = (r"training\s*=\s*(?:False|0)\b",)
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not keras.ignores_literals(file.assumptions):
            return
        for call in file.graph_calls:
            if not keras.gets_constant(call, False):
                continue
            norms = [layer for layer in call.layers if layer.certain and support.is_batchnorm(layer.instance)]
            layers = [layer for layer in norms if (not _last(file, layer) and not layer.frozen) or _thaws(file, layer)]
            if layers:
                yield self._report(file, call, layers, _last(file, layers[0]))

    def _report(self, file: FileFacts, call: GraphCall, layers: list[Layer], setting: TrainableSet | None) -> Finding:
        steps = [TraceStep(call.target.location, "built here"), *call.where.calls]
        if setting is not None:
            steps.append(TraceStep(setting.location, "made trainable here"))
        specs = [layer.instance for layer in layers]
        return self.finding(
            call.location,
            f"training=False does not hold in fit, which overrides it in Keras 3.0 to 3.15: "
            f"{support.describe(layers, call.target)} train{'s' * support.is_one(layers)} all the same "
            f"({keras.assumed(file.assumptions)})",
            Confidence.LIKELY,
            tuple(steps),
            experiment=support.experiment(
                "fit-epoch", "keras", specs, model=support.graph_spec(call.location), how="graph-literal-false"
            ),
        )


def _last(file: FileFacts, layer: Layer) -> TrainableSet | None:
    """The last that the file says of whether the layer, or what it is in, is trainable."""
    return next((its for its in reversed(file.trainables) if layer.instance in its.parts), None)


def _thaws(file: FileFacts, layer: Layer) -> bool:
    last = _last(file, layer)
    return last is not None and is_exactly(last.value, True)
