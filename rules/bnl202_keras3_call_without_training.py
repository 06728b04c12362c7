from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _keras as keras
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Edit, Finding, Fix, Safety, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import CallMethod, FileFacts, Fitted, Forward, is_exactly
from bnlint.semantics.intent import is_part_of_a_model, is_test_file
from bnlint.semantics.values import Instance


class Keras3CallWithoutTraining(Rule):
    """A Keras 3 model whose `call` has no `training` parameter is fitted in inference mode.

    ## What it does
    Reports the `call` of a subclass of `keras.Model` that has no parameter named `training`, while the model owns
    BatchNormalization or Dropout that `call` runs.

    ## Why is this bad?
    In Keras 3, `fit` and `train_on_batch` pass `training=True` only to a `call` that has the parameter. Without it all
    layers run in inference mode: BatchNormalization normalises with its initial statistics, which never move, and
    Dropout drops nothing. Nothing is raised. `**kwargs` or another name, such as `is_training`, does not help. Keras 2
    put all layers into training mode, so code that was right is wrong since TensorFlow 2.16, which comes with Keras 3.

    ## Example
    ```python
    class Net(keras.Model):
        def call(self, x):
            return self.head(self.bn(x))
    ```

    ## Use instead
    ```python
    class Net(keras.Model):
        def call(self, x, training=None):
            return self.head(self.bn(x, training=training))
    ```

    ## When it does not fire
    For a `keras.layers.Layer`, which gets the mode from whoever calls it, and a model that the file uses only inside
    another; for a model with a `train_step` of its own, or that the file calls with `training=` or inside a gradient
    tape, where BNL201 speaks; for layers that are or may be frozen, and those to which `call` passes `training`; in
    tests, whose models are not trained for use; and where the project or the file tells that it runs on Keras 2. Where
    nothing tells which Keras it is, the finding is only possible (`--min-confidence possible`), since Keras 2 does what
    is meant.

    ## How --verify confirms it
    It fits a model with the rebuilt layer for an epoch: the moving statistics stay as they are, and move when `call`
    has the parameter. A layer with `trainable=False` refutes it.

    ## Fix safety
    Unsafe: adding the parameter and passing it on changes what is trained, as it must.

    ## References
    - <https://keras.io/api/models/model/>
    - <https://github.com/tensorflow/tensorflow/issues/36073>
    - <https://github.com/tensorflow/models/issues/9538>
    """

    code: ClassVar[str] = "BNL202"
    name: ClassVar[str] = "keras3-call-without-training"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("fit-epoch",)
    evidence: ClassVar[int] = 2
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"def call(",),)
    marks: ClassVar[tuple[str, ...]] = (r"def call\(",)
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if file.assumptions.keras.at_least(3) is False or is_test_file(file):
            return
        for method in file.call_methods:
            passes = [its for its in method.passes if its.training is None or is_exactly(its.training, None)]
            layers = {layer.instance: layer for its in passes for layer in its.layers if keras.is_live(layer)}
            if layers and not method.own_step and not _is_used_otherwise(file, method):
                yield self._report(file, method, passes, list(layers))

    def _report(self, file: FileFacts, method: CallMethod, passes: list[Forward], layers: list[Instance]) -> Finding:
        fits = _fits(file, method)
        shown = [layer for its in passes for layer in its.layers if layer.instance in layers]
        runs = "runs" if support.is_one(shown) else "run"
        normalises = any(support.is_batchnorm(layer) for layer in layers)
        effect = "the moving statistics never move" if normalises else "nothing is dropped"
        steps = [TraceStep(layer.location, "built here") for layer in layers[:1]]
        steps += [TraceStep(fit.location, f"{fit.name}() called here") for fit in fits[-1:]]
        model = support.model_spec(fits[-1].target) if fits else support.class_spec(method.cls)
        return self.finding(
            method.location,
            f"{method.cls.name}.call() has no training parameter, so Keras 3 fits it in inference mode: "
            f"{support.describe(shown)} {runs} without training and {effect} ({keras.assumed(file.assumptions)})",
            _confidence(file, method, fits),
            tuple(steps),
            _fix(method, passes),
            support.experiment("fit-epoch", "keras", layers, model=model, how="no-training-parameter"),
        )


def _confidence(file: FileFacts, method: CallMethod, fits: list[Fitted]) -> Confidence:
    if not file.assumptions.keras.at_least(3):
        return Confidence.POSSIBLE
    if fits:
        return Confidence.CERTAIN
    # A model in a file of its own is fitted by another; a block that is called a model for convenience is not.
    return Confidence.POSSIBLE if is_part_of_a_model(method.cls) else Confidence.LIKELY


def _fits(file: FileFacts, method: CallMethod) -> list[Fitted]:
    return [fit for fit in file.fitted if fit.target.cls is method.cls]


def _is_used_otherwise(file: FileFacts, method: CallMethod) -> bool:
    """Whether the file itself says how the model's layers get their mode: from an outer model, or from a call."""
    mine = [its for its in file.forwards if isinstance(its.target, Instance) and its.target.cls is method.cls]
    if any(its.training is not None or its.where.tapes for its in mine):
        return True
    if _fits(file, method):
        return False
    inside = any("call" in its.where.functions for its in mine)
    in_graph = any(its.target.cls is method.cls for its in file.graph_calls)
    held = any(
        isinstance(part, Instance) and part.cls is method.cls
        for its in file.forwards
        for part in its.parts
        if part is not its.target
    )
    return inside or in_graph or held


def _fix(method: CallMethod, passes: list[Forward]) -> Fix | None:
    """The parameter, and its way on to the layers that are called directly."""
    if method.parameters is None:
        return None
    edits: dict[tuple[int, int], Edit] = {}
    for its in passes:
        if its.edge is not None and its.training is None and support.is_layer(its.target):
            text = ", training=training" if its.needs_comma else "training=training"
            edits[(its.edge.line, its.edge.column)] = support.insert(its.edge, text)
    return Fix(
        Safety.UNSAFE,
        "add the parameter training and pass it on",
        (support.insert(method.parameters, ", training=None"), *edits.values()),
    )
