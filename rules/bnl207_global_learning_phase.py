from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.frameworks.functions import KERAS_INFERRING, PHASE_IGNORED
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Layer, PhaseUse
from bnlint.semantics.intent import is_deliberate_file, is_test_file
from bnlint.semantics.values import Phase


class GlobalLearningPhase(Rule):
    """A Keras model is built under a learning phase that is not that of its use.

    ## What it does
    Reports `K.set_learning_phase(1)` where a model with BatchNormalization that is built after it infers (`predict`,
    `evaluate`), and `K.set_learning_phase(0)` where a model that is built after it is trained (`fit`), in one file.

    ## Why is this bad?
    In Keras up to 2.3 and in `tf.keras` of TensorFlow 1, layers take up the phase when they are built, for good. Under
    phase 1, `predict` and `evaluate` normalise each batch with its own statistics, so that the result for a sample
    depends on those beside it; frozen layers do so too. Under phase 0, `fit` trains the weights on the output of
    inference mode; the moving statistics of `tf.keras` stay 0 and 1. Without the call each method tells the layers by
    itself. From Keras 2.4 on `fit`, `predict` and `evaluate` do so whatever the phase is, and Keras 3 has none:
    `set_learning_phase` raises AttributeError there.

    ## Example
    ```python
    K.set_learning_phase(1)
    model = keras.Sequential([Conv2D(8, 3), BatchNormalization(), Flatten(), Dense(10)])
    model.compile("adam", "mse")
    model.fit(x_train, y_train)
    print(model.evaluate(x_test, y_test))
    ```

    ## Use instead
    ```python
    model = keras.Sequential([Conv2D(8, 3), BatchNormalization(), Flatten(), Dense(10)])
    model.compile("adam", "mse")
    model.fit(x_train, y_train)
    print(model.evaluate(x_test, y_test))
    ```

    ## When it does not fire
    Where the project is known to run on Keras 2.4 or later, or the file records gradient tapes, which is TensorFlow 2;
    for models that are built before the call, or loaded; where the phase is not a constant, or may be another when the
    model is built; for layers that are or may be frozen; for Dropout alone; under phase 0 for a library's pretrained
    layers, which are kept as they are in this way; where names tell that batch statistics are meant (GANs, pix2pix);
    and in tests.

    ## How --verify confirms it
    Keras 3, with which it measures, has no learning phase, so it gives the rebuilt layer the mode that the phase gives
    it: the output of a call that infers with `training=True` depends on the rest of the batch, and an epoch of `fit`
    with `training=False` leaves the moving statistics where they are. A frozen layer refutes both.

    ## Fix safety
    There is no fix: the call may be meant for other models, and without it those change as well.

    ## References
    - <https://www.tensorflow.org/versions/r1.15/api_docs/python/tf/keras/backend/set_learning_phase>
    - <https://github.com/keras-team/keras/issues/7177>
    - <https://github.com/keras-team/keras/issues/11590>
    - <https://github.com/qjadud1994/CRNN-Keras/issues/15>
    """

    code: ClassVar[str] = "BNL207"
    name: ClassVar[str] = "global-learning-phase"
    severity: ClassVar[Severity] = Severity.ERROR
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("training-literal", "fit-epoch")
    evidence: ClassVar[int] = 6
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"keras", b"tensorflow"), (b"set_learning_phase",))
    marks: ClassVar[tuple[str, ...]] = (r"set_learning_phase\(|\.(?:fit|train_on|predict|evaluate|test_on)\w*\(",)
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if file.assumptions.keras.at_least(*PHASE_IGNORED) or "GradientTape" in file.named:
            return
        if is_test_file(file) or is_deliberate_file(file, ()):
            return
        own = {built.instance for built in file.layers}
        reported = set()
        for use in file.phase_uses:
            infers = use.name in KERAS_INFERRING
            wrong = [
                (layer, phase)
                for layer, phase in use.layers
                if phase.training is infers
                and keras.is_live(layer)
                and support.is_batchnorm(layer.instance)
                and (infers or layer.instance in own)
            ]
            places = {phase.step.location for _, phase in wrong}
            if wrong and (use.target, infers) not in reported and len(places) == 1:
                reported.add((use.target, infers))
                yield self._report(use, [layer for layer, _ in wrong], wrong[0][1])

    def _report(self, use: PhaseUse, layers: list[Layer], phase: Phase) -> Finding:
        what = support.describe(layers, use.target)
        s = "s" if support.is_one(layers) else ""
        effect = f"normalise{s} with the statistics of each batch" if phase.training else f"stay{s} in inference mode"
        kind, how = ("training-literal", {}) if phase.training else ("fit-epoch", {"how": "hard-coded-false"})
        return self.finding(
            phase.step.location,
            f"the learning phase is set to {int(phase.training)} for all that is built from here on: "
            f"in {use.receiver or use.name}() {what} {effect}, in Keras up to 2.3 and TensorFlow 1",
            Confidence.LIKELY,
            (
                TraceStep(layers[0].instance.location, "this layer is built under it"),
                *use.where.calls,
                TraceStep(use.location, "used here"),
            ),
            experiment=support.experiment(kind, "keras", (layer.instance for layer in layers), **how),
        )
