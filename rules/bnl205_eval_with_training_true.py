from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Edit, Finding, Fix, Safety, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer
from bnlint.semantics.intent import inference_function, is_deliberate, is_test_file


class EvalWithTrainingTrue(Rule):
    """A Keras model is evaluated with `training=True`.

    ## What it does
    Reports the call of a Keras model or layer with BatchNormalization that passes the constant `training=True` in a
    function whose name tells of evaluation (`test_step`, `validate`, `evaluate`, `predict`).

    ## Why is this bad?
    Each batch of the evaluation is normalised with its own statistics, so the result depends on how the data are
    batched, and the moving statistics take in the data that the model is tested on.

    ## Example
    ```python
    def test_step(self, data):
        x, y = data
        loss = self.loss(y, self(x, training=True))
    ```

    ## Use instead
    ```python
    def test_step(self, data):
        x, y = data
        loss = self.loss(y, self(x, training=False))
    ```

    ## When it does not fire
    In a gradient tape, for models with Dropout alone (Monte Carlo estimates), where a name tells of a method that wants
    batch statistics in inference (GANs, pix2pix, adaptation, few-shot learning), where the data are those of the
    training or made up on the spot, in tests of code, and for layers that are or may be frozen.

    ## How --verify confirms it
    It calls the rebuilt layer with `training=True`: the output depends on the rest of the batch and the moving
    statistics move. A layer with `trainable=False`, always in inference mode, refutes it.

    ## Fix safety
    Unsafe: `training=False` changes what is computed, as it must.

    ## References
    - <https://keras.io/guides/writing_a_custom_training_loop_in_tensorflow/>
    - <https://github.com/google/automl/issues/817>
    """

    code: ClassVar[str] = "BNL205"
    name: ClassVar[str] = "eval-with-training-true"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("training-literal",)
    evidence: ClassVar[int] = 1
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"keras", b"tensorflow"),)
    needle_pattern: ClassVar[str] = r"training\s*=\s*(?:True|1)\b"
    marks: ClassVar[tuple[str, ...]] = (r"training\s*=\s*(?:True|1)\b",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file):
            return
        for forward in file.forwards:
            where = forward.where
            if forward.framework != "keras" or where.tapes or not keras.gets_constant(forward, True):
                continue
            if forward.eager_input:  # made up to try the network out: nothing is evaluated
                continue
            layers = [
                layer for layer in forward.layers if keras.is_live(layer) and support.is_batchnorm(layer.instance)
            ]
            function = inference_function(where.functions)
            if function and not is_deliberate(forward) and layers:
                yield self._report(forward, layers, function)

    def _report(self, forward: Forward, layers: list[Layer], function: str) -> Finding:
        at = forward.training_at
        fix = None if at is None else Fix(Safety.UNSAFE, "pass training=False", (Edit(at, "False"),))
        run = "runs" if support.is_one(layers) else "run"
        return self.finding(
            forward.location,
            f"{support.subject(forward)} is called with training=True in {function}(): "
            f"{support.describe(layers, forward.target)} {run} on the statistics of each batch, and the moving "
            "statistics take in the data of the evaluation",
            Confidence.LIKELY,
            (forward.built, *forward.where.calls),
            fix,
            support.experiment("training-literal", "keras", (layer.instance for layer in layers)),
        )
