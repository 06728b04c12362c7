from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Location, Severity, TraceStep
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.tf1 import UPDATE_OPS
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, LayerBuilt, TrainStepBuilt, is_exactly
from bnlint.semantics.values import Constant, Ref, Value


class Tf1UpdateOps(Rule):
    """A TensorFlow 1 training step leaves the moving statistics of batch normalisation as they were.

    ## What it does
    Reports an optimiser's `minimize` or `apply_gradients` whose operation a session runs, in a program that builds
    `tf.layers.batch_normalization` or `batch_norm` of contrib or slim with a mode that can be either, and that takes
    nothing out of the collection `UPDATE_OPS`.

    ## Why is this bad?
    In TensorFlow 1 the updates of the moving statistics are operations of their own. The layers only put them into a
    collection; unless the training step depends on them they are never run. The network learns well with the
    statistics of its batches, and for inference it is normalised by mean 0 and variance 1.

    ## Example
    ```python
    logits = network(images, is_training=is_training)  # tf.layers.batch_normalization(..., training=is_training)
    train_step = tf.train.AdamOptimizer().minimize(loss(logits, labels))
    session.run(train_step, {is_training: True})
    ```

    ## Use instead
    ```python
    logits = network(images, is_training=is_training)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_step = tf.train.AdamOptimizer().minimize(loss(logits, labels))
    session.run(train_step, {is_training: True})
    ```

    ## When it does not fire
    When a file of the program names the collection, in whatever way it runs what is in it; for layers with
    `updates_collections=None`, given in the call, in `normalizer_params` or by an `arg_scope`, which update at once;
    where `create_train_op`, `optimize_loss` or an Estimator makes or runs the training step; for layers that are
    always in training mode, whose moving statistics nothing reads (meta-learning, many GANs), or always in inference
    mode; and where the program that runs the step is in a file that imports this one.

    ## How --verify confirms it
    It builds the layer as a TensorFlow 1 graph with one trained weight, updates in a collection as in the source, and
    runs the training step 200 times; then it compares the output for inference with that of the same graph whose
    training step depends on the collection. A frozen layer, which has no updates, refutes it.

    ## Fix safety
    There is no fix: the collection must be read after the layers are built and before the training step is, and
    where that is depends on the program.

    ## References
    - <https://www.tensorflow.org/versions/r1.15/api_docs/python/tf/layers/batch_normalization>
    - <https://github.com/tensorflow/tensorflow/issues/10118>
    - <https://github.com/tensorflow/tensorflow/issues/11965>
    - <https://github.com/tensorflow/tensorflow/issues/16455>
    - <https://github.com/openai/coinrun/issues/17>
    - <https://github.com/meetps/tf-3dgan/issues/7>
    """

    code: ClassVar[str] = "BNL220"
    name: ClassVar[str] = "tf1-update-ops"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("TensorFlow 1",)
    experiments: ClassVar[tuple[str, ...]] = ("update-ops",)
    evidence: ClassVar[int] = 11
    # The layers and the optimiser may stand in other files; what runs them in a session stands in this.
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"tensorflow", b"tf_slim"),
        (b".run(",),
        (b"Session", b"sess"),
    )
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"minimize\(|apply_gradients\(|\.run\(|batch_norm|arg_scope|normalizer_fn",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if file.gathers_updates or not file.complete:
            return
        places: dict[Location, list[LayerBuilt]] = {}
        for built in file.layers:
            places.setdefault(built.location, []).append(built)
        pending = [built for chains in places.values() if _is_for_both(chains) for built in chains if _trains(built)]
        for step in file.train_steps:
            if pending and step.run_at is not None and not _is_in_other_hands(step):
                yield self._report(step, pending)

    def _report(self, step: TrainStepBuilt, pending: list[LayerBuilt]) -> Finding:
        assert step.run_at is not None
        first = pending[0]
        what = LAYERS[first.instance.kind].short_name
        return self.finding(
            step.location,
            f"this training step does not run UPDATE_OPS: the updates of {what}'s moving statistics are only put into "
            "that collection, so inference normalises by mean 0 and variance 1",
            Confidence.LIKELY,
            (
                *step.where.calls,
                TraceStep(step.location, "the training step is made here"),
                TraceStep(first.location, f"{what}() is built here"),
                step.run_at,
            ),
            None,
            support.experiment("update-ops", "keras", (built.instance for built in pending)),
        )


def _is_for_both(chains: list[LayerBuilt]) -> bool:
    """Whether one place builds layers for training and for inference, or one layer whose mode is chosen later."""
    flags = [built.instance.arguments.get(LAYERS[built.instance.kind].mode) for built in chains]
    return any(flag is not None and not is_exactly(flag, True) for flag in flags)


def _trains(built: LayerBuilt) -> bool:
    """Whether the layer may be in training mode, and puts its updates into the collection."""
    facts = LAYERS[built.instance.kind]
    flag = built.instance.arguments.get(facts.mode)
    if not facts.mode or flag is None or is_exactly(flag, False):
        return False
    collection = built.instance.arguments.get(facts.updates)
    return collection is None or _is_the_usual(collection)


def _is_the_usual(collection: Value) -> bool:
    return all(
        (isinstance(atom, Ref) and UPDATE_OPS.search(atom.name) is not None)
        or (isinstance(atom, Constant) and atom.value == "update_ops")
        for atom in collection
    )


def _is_in_other_hands(step: TrainStepBuilt) -> bool:
    """Whether a base class from elsewhere may run the updates."""
    return any(cls.has_unknown_base for cls in step.where.classes)
