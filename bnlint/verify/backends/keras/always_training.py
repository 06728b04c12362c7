"""``always-training``: what a layer whose mode is always that of training computes for inference.

A layer of ``tf.contrib`` or slim that is not told its mode; its arithmetic is that of Keras's. It has statistics that
fit its data, and is run on a batch and on a part of that, as the source has it with ``training=True`` and, mended, with
``training=False``.
"""

from __future__ import annotations

from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Array, Rebuilt, call, converged, np, relative
from bnlint.verify.fixture import plain

#: Samples of the batch whose outputs are looked at without their batch-mates.
PART = 4


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no moving statistics")

    def run(x: Array, training: bool) -> Array:
        return call(converged(rebuilt.fresh()), x, training=training)

    x = rebuilt.input()
    written, alone = run(x, True), run(x[:PART], True)
    return {
        **rebuilt.facts(x),
        "gap_to_mended": plain(relative(written, run(x, False))),
        "batch_dependence_as_written": plain(float(np.abs(written[:PART] - alone).max() / np.abs(written).max())),
    }
