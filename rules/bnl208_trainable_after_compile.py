from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Fitted, Layer, TrainableSet, is_exactly
from bnlint.semantics.values import Instance


class TrainableAfterCompile(Rule):
    """A Keras model is frozen or thawed between two `fit`, and not compiled again.

    ## What it does
    Reports `trainable = ...` on layers or on a model with BatchNormalization after the model was fitted, when it is
    fitted again with no `compile` in between.

    ## Why is this bad?
    The first `fit` after `compile` builds the training step, with what is trainable then, and later ones take the same
    step. So layers that are frozen afterwards go on learning, and their moving statistics go on moving; layers that
    are thawed for fine-tuning learn nothing and BatchNormalization stays in inference mode. On the TensorFlow backend
    nothing is raised or warned.

    ## Example
    ```python
    model.fit(data)
    base.trainable = True
    model.fit(data, epochs=5)  # fine-tunes nothing
    ```

    ## Use instead
    ```python
    model.fit(data)
    base.trainable = True
    model.compile(optimizer=keras.optimizers.Adam(1e-5), loss=loss)
    model.fit(data, epochs=5)
    ```

    ## When it does not fire
    When the model is compiled again before it is fitted, when `trainable` is set before the first `fit` (which then
    heeds it), when it may have been what it is set to, as where a GAN switches it back and forth, when another model
    is compiled or fitted with the layers after that, for layers other than BatchNormalization, and where the backend is
    known to be PyTorch, which heeds what is frozen and raises for what is thawed.

    ## How --verify confirms it
    It fits the rebuilt layer, changes `trainable` and fits it again, with and without `compile` in between: the moving
    statistics move only in one of the two. A layer that is never trainable refutes it, and so does the PyTorch backend
    for layers that are frozen: it builds no step.

    ## Fix safety
    There is no fix: `compile` needs the optimizer and the loss, and for fine-tuning another learning rate.

    ## References
    - <https://keras.io/guides/transfer_learning/>
    - <https://github.com/keras-team/keras/issues/3268>
    - <https://github.com/keras-team/keras/issues/4674>
    """

    code: ClassVar[str] = "BNL208"
    name: ClassVar[str] = "trainable-after-compile"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("fit-epoch",)
    evidence: ClassVar[int] = 2
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"keras", b"tensorflow"),
        (b".trainable",),
        (b".fit", b".train_on_batch"),
    )
    needle_pattern: ClassVar[str] = r"\.trainable\s*=[^=]"
    marks: ClassVar[tuple[str, ...]] = (r"\.trainable\s*=[^=]|\.(?:fit|fit_generator|train_on_batch)\(",)
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if file.assumptions.keras_backend == "torch":
            return
        for fit in file.fitted:
            for setting in reversed(file.trainables):
                layers = [
                    layer
                    for layer, now in fit.stale
                    if layer.instance in setting.parts
                    and is_exactly(setting.value, now)
                    and support.is_batchnorm(layer.instance)
                ]
                if layers and not _is_shared(file, fit, layers):
                    yield self._report(fit, setting, layers, thawed=is_exactly(setting.value, True))
                    break

    def _report(self, fit: Fitted, setting: TrainableSet, layers: list[Layer], thawed: bool) -> Finding:
        what = support.describe(layers, setting.target)
        effect = (
            f"{what} would learn now, but stay{'s' * support.is_one(layers)} in inference mode"
            if thawed
            else f"the moving statistics of {what} go on moving"
        )
        return self.finding(
            setting.location,
            f"{setting.receiver or 'the layer'}.trainable = {thawed} has no effect on {fit.receiver}(), "
            f"as the model was fitted before and is not compiled again: {effect}",
            Confidence.LIKELY,
            (TraceStep(fit.target.location, "built here"), TraceStep(fit.location, "trained again here")),
            experiment=_experiment((layer.instance for layer in layers), thawed),
        )


def _is_shared(file: FileFacts, fit: Fitted, layers: list[Layer]) -> bool:
    """Whether another model that is compiled or trained has the layers too: then what is set may be meant for it."""
    mine = {layer.instance for layer in layers}
    others = [other for other in file.fitted if other.target is not fit.target]
    return any(mine & other.layers for other in others)


def _experiment(layers: Iterator[Instance], thawed: bool) -> Experiment:
    specs = {repr(spec): spec for spec in (support.layer_spec(layer, trainable=True) for layer in layers)}
    how = "thawed-after-fit" if thawed else "frozen-after-fit"
    return Experiment("fit-epoch", "keras", tuple(specs.values()), options={"how": how})
