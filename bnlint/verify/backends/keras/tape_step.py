"""``tape-step``: what one training step does, as the source writes it and with ``training=True``.

For BatchNorm the largest change of a moving statistic; for Dropout how far the output is from the input.
"""

from __future__ import annotations

from bnlint.verify.backends import Facts
from bnlint.verify.backends.keras.rebuilt import (
    Array,
    Layer,
    Rebuilt,
    call,
    keras,
    numpy,
    relative,
    statistics,
    tf,
)
from bnlint.verify.fixture import plain


def measure_each(rebuilt: Rebuilt) -> list[Facts]:
    x = rebuilt.input()
    measured = rebuilt.facts_of_each()
    calls: dict[str, dict[str, bool]] = {"default": {}, "training_true": {"training": True}}
    for name, arguments in calls.items():
        layer = rebuilt.fresh()
        before = statistics(layer) if rebuilt.normalises else None
        output = _train_step(layer, x, **arguments)
        what = "output" if before is None else "statistics"
        changes = [relative(output, x)] if before is None else rebuilt.movements(before, layer)
        for facts, change in zip(measured, changes, strict=True):
            facts[f"{what}_change_{name}"] = plain(change)
    return measured


def _train_step(layer: Layer, x: Array, **arguments: bool) -> Array:
    """One forward and, on TensorFlow, the rest of the step: gradients from a tape and SGD."""
    if tf is None:
        return call(layer, x, **arguments)
    with tf.GradientTape() as tape:
        output = layer(x, **arguments)
        loss = tf.reduce_mean(tf.square(output))
    if weights := layer.trainable_variables:
        keras.optimizers.SGD().apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    return numpy(output)
