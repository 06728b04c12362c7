"""TensorFlow 1: graphs that a program builds first and then runs in sessions.

``tf.contrib.layers``, ``tf.contrib.slim``, ``tf.contrib.framework`` and their successor ``tf_slim`` are one library,
``tf1.contrib`` here. Its ``arg_scope`` gives functions other defaults; its layers call ``normalizer_fn`` with
``normalizer_params``. The updates of the moving statistics are operations of their own, which nothing runs unless the
program gathers them from the collection ``UPDATE_OPS``, or a function that does so makes the training step.
"""

from __future__ import annotations

import re

#: Gives functions other defaults for as long as a ``with`` block runs.
ARG_SCOPE = "tf1.contrib.arg_scope"
#: Functions that call the function they are given, by its position and that of the first of its arguments.
REPEATING = {"tf1.contrib.repeat": (2, 3), "tf1.contrib.stack": (1, 3)}

#: Methods of an optimiser whose result is the operation that changes the weights.
TRAIN_STEP_METHODS = frozenset({"minimize", "apply_gradients"})
#: What operations are run by: a session's method, or the operation's own.
RUNNING_METHODS = frozenset({"run"})
#: Functions that make one operation of those they are given, or of those that it must come after.
JOINING = frozenset(
    f"tensorflow.{v1}{name}" for v1 in ("", "compat.v1.") for name in ("group", "no_op", "tuple", "identity")
)
CONTROL_DEPENDENCIES = frozenset({"tensorflow.control_dependencies", "tensorflow.compat.v1.control_dependencies"})
#: The collection that updates are put in, unless ``updates_collections`` names another.
UPDATE_OPS = re.compile(r"(?:^|\.)GraphKeys\.UPDATE_OPS$")

#: Parameters that tell whether a network is built, or run, for training.
MODE_PARAMETER = re.compile(
    r"_?(?:is_?)?(?:train(?:ing|able)?|test(?:ing)?|eval|inference)(?:_?(?:mode|phase|flag|bool))?|phase(?:_train)?|"
    r"(?:train|bn)_phase|bn_train(?:ing)?|istrain(?:ing)?"
)


def takes_defaults(layer: str, text: str) -> bool:
    """Whether a layer in a file with this text may get arguments from a scope that its callers are in: those of contrib
    do in files written that way, and with tensorpack's ``argscope`` all."""
    return "argscope" in text or (layer.startswith("tf1.contrib.") and "arg_scope" in text)


_NAMED_AS_PLACE = re.compile(r"[\"']?updates_collections?[\"']?\s*[:=]\s*[\w.]*UPDATE_OPS")
_GATHERING = re.compile(r"(?i)update_?ops|create_train_op|optimize_loss|bn_?updates?|norm_?updates?|extra_?updates?")


def may_gather_updates(text: str) -> bool:
    """Whether a file may take the updates out of their collection to run them, or leave that to a function that does;
    naming the collection as the place where a layer puts them is neither."""
    return _GATHERING.search(_NAMED_AS_PLACE.sub("", text)) is not None
