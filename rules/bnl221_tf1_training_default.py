from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Fix, Location, Safety, Severity
from bnlint.frameworks.layers import LAYERS, LayerFacts
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, GraphCall, LayerBuilt, is_exactly
from bnlint.semantics.values import Instance

#: Names by which a program, or Keras for it, tells the layers that this is training.
_SETS_THE_PHASE = frozenset({"learning_phase", "set_learning_phase", "learning_phase_scope", "fit", "fit_generator",
                             "train_on_batch", "GradientTape"})  # fmt: skip
_KERAS_LAYERS = frozenset({"keras.layers.BatchNormalization", "keras.layers.SyncBatchNormalization"})
_SAYS_TRAINING = re.compile("train|phase", re.I)


class Tf1TrainingDefault(Rule):
    """A TensorFlow 1 batch normalisation is left in the one mode that is its default.

    ## What it does
    Reports a call of `tf.layers.batch_normalization` (also `tf.compat.v1.layers`) without `training`, and a call of
    `batch_norm` of `tf.contrib.layers`, slim or `tf_slim` without `is_training` in a function that has a parameter
    telling whether this is training and does not hand it on. Keras's `BatchNormalization` likewise, where it is called
    without `training` in a graph that a session trains in the same file.

    ## Why is this bad?
    The two have opposite defaults, and neither looks anything up elsewhere. `tf.layers.batch_normalization` takes
    `training=False`: the network is trained with moving statistics that stay 0 and 1 for ever, which is to say
    without batch normalisation. `batch_norm` takes `is_training=True`: what is built for testing normalises each
    batch by itself, so that a sample's output depends on its batch-mates. Keras's layers ask Keras's learning phase,
    which `fit` sets and a session of one's own does not.

    ## Example
    ```python
    def block(x, is_training):
        x = tf.layers.conv2d(x, 64, 3)
        return tf.nn.relu(tf.layers.batch_normalization(x))
    ```

    ## Use instead
    ```python
    def block(x, is_training):
        x = tf.layers.conv2d(x, 64, 3)
        return tf.nn.relu(tf.layers.batch_normalization(x, training=is_training))
    ```

    ## When it does not fire
    When the argument is passed in any form: by position, in `**parameters`, in `normalizer_params`, by
    `functools.partial`, or by an `arg_scope` around, in this function or in one that calls it; when that cannot be
    told; when a test around tells training from inference; when the file trains nothing and restores a finished
    network. A `batch_norm` without `is_training` in a function that has no such parameter is left alone: many GANs and
    meta-learners mean it. So is one in a file that uses `arg_scope`, where a caller's scope may give it its mode.
    Keras's layers are left alone in a file that names the learning phase, or calls `fit`.

    ## How --verify confirms it
    For `training=False` it takes a training step with the same layer of Keras: the moving statistics stay where they
    are, and move when `training=True` is passed. For `is_training=True` it runs the layer with statistics that fit its
    data on a whole batch and on a part of it: a sample's output changes with its batch-mates. A layer that is never
    in training mode refutes both.

    ## Fix safety
    Unsafe: passing the parameter on changes what is trained, as it must, and `tf.layers.batch_normalization` then
    needs its updates run (see tf1-update-ops, BNL220). Offered where the function has such a parameter.

    ## References
    - <https://www.tensorflow.org/versions/r1.15/api_docs/python/tf/layers/batch_normalization>
    - <https://github.com/carpedm20/DCGAN-tensorflow/pull/70>
    - <https://github.com/arahusky/Tensorflow-Segmentation/issues/15>
    - <https://github.com/dmzou/RSRAE/issues/2>
    - <https://github.com/tensorflow/models/issues/2776>
    - <https://github.com/mouna99/dien/issues/36>
    - <https://github.com/zrl4836/tensorflow_octConv/issues/3>
    - <https://github.com/nnUyi/PeleeNet/issues/7>
    - <https://github.com/tensorflow/tensorflow/pull/16134>
    """

    code: ClassVar[str] = "BNL221"
    name: ClassVar[str] = "tf1-training-default"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("TensorFlow 1",)
    experiments: ClassVar[tuple[str, ...]] = ("tape-step", "always-training")
    evidence: ClassVar[int] = 10
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"tensorflow", b"tf_slim"),
        (b"batch_norm", b"BatchNormalization"),
    )
    # Where the function is imported by its own name, or taken from one of these.
    needle_pattern: ClassVar[str] = (
        r"layers\s*\.\s*batch_norm|slim|contrib|import\b[^\n]*\bbatch_norm|\b(?:minimize|apply_gradients)\("
    )
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"batch_norm|BatchNormalization",)
    excuse: ClassVar[str] = r"\.restore\(|minimize\(|apply_gradients\(|\.run\("

    def check(self, file: FileFacts) -> Iterator[Finding]:
        # What one place builds for several callers is wrong only if it is wrong for all.
        places: dict[Location, list[LayerBuilt]] = {}
        for built in file.layers:
            if LAYERS[built.instance.kind].mode:
                places.setdefault(built.location, []).append(built)
        for chains in places.values():
            if all(_is_left_to_default(built) for built in chains) and not _only_runs(file, chains[0]):
                yield self._report(file, chains[0])
        yield from self._keras_layers(file)

    def _keras_layers(self, file: FileFacts) -> Iterator[Finding]:
        """Layers of Keras in a graph that a session trains."""
        run = next((step.run_at for step in file.train_steps if step.run_at is not None), None)
        if run is None or not _SETS_THE_PHASE.isdisjoint(file.named):
            return
        calls: list[Forward | GraphCall] = [*file.forwards, *file.graph_calls]
        for call in calls:
            target = call.target
            if not isinstance(target, Instance) or target.kind not in _KERAS_LAYERS or call.training is not None:
                continue
            if target.arguments.get("trainable") is not None:
                continue
            yield self.finding(
                call.location,
                f"{LAYERS[target.kind].short_name} is called without training= in a graph that a session trains: "
                "nothing sets Keras's learning phase, so it stays in inference mode, with moving statistics of mean 0 "
                "and variance 1",
                Confidence.LIKELY,
                (*call.where.calls, run),
                None,
                support.experiment("tape-step", "keras", (target,)),
            )

    def _report(self, file: FileFacts, built: LayerBuilt) -> Finding:
        facts = LAYERS[built.instance.kind]
        always_training = facts.defaults[facts.mode] is True
        function = facts.short_name
        if always_training:
            message = (
                f"{function}() is built without {facts.mode}= though {built.flag} tells the mode: its default True "
                "normalises by the batch at hand in testing too"
            )
        else:
            flag = f" though {built.flag} tells the mode" if built.flag else ""
            message = (
                f"{function}() is built without {facts.mode}={flag}: its default False normalises by moving statistics "
                "that no training step updates, so by mean 0 and variance 1"
            )
        sure = bool(built.flag) or bool(file.train_steps)
        kind = "always-training" if always_training else "tape-step"
        return self.finding(
            built.location,
            message,
            Confidence.CERTAIN if sure else Confidence.LIKELY,
            built.where.calls,
            _fix(built, facts),
            support.experiment(kind, "keras", (built.instance,)),
        )


def _only_runs(file: FileFacts, built: LayerBuilt) -> bool:
    """Whether the file trains nothing, and is a script of its own or loads a network that was trained elsewhere."""
    return not file.train_steps and ("restore" in file.named or not built.where.functions)


def _is_left_to_default(built: LayerBuilt) -> bool:
    facts = LAYERS[built.instance.kind]
    arguments = built.instance.arguments
    if facts.mode in arguments or built.tested or is_exactly(arguments.get("trainable"), False):
        return False
    return bool(built.flag) or facts.defaults[facts.mode] is not True


def _fix(built: LayerBuilt, facts: LayerFacts) -> Fix | None:
    """Hand on the function's own parameter, if it says yes to training and the call is the layer's own."""
    span, inputs = built.call.span, built.instance.argument_nodes.get("inputs")
    its_own = any(argument.value is inputs for argument in built.call.args)
    if span is None or not its_own or _SAYS_TRAINING.search(built.flag) is None:
        return None
    text = f"{facts.mode}={built.flag}"
    comma = "" if built.call.trailing_comma else ", "
    at = Location(built.location.path, span.end_line, span.end_column - 1, span.end_line, span.end_column - 1)
    return Fix(Safety.UNSAFE, f"pass {text}", (support.insert(at, comma + text),))
