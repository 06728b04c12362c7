"""``always-training``: what a layer whose mode is always that of training computes for inference.

A layer of ``tf.contrib`` or slim that is not told its mode; its arithmetic is that of Keras's. It has statistics that
fit its data, and is run on a batch and on a part of that, as the source has it with ``training=True`` and, mended, with
``training=False``.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts
from bnlint.verify.backends.keras.rebuilt import Array, Rebuilt, call, converged, dependence, relative
from bnlint.verify.fixture import plain


def measure_each(rebuilt: Rebuilt) -> list[Facts]:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no moving statistics")

    def run(x: Array, training: bool) -> list[Array]:
        return rebuilt.each(call(converged(rebuilt.fresh()), x, training=training))

    x = rebuilt.input()
    outputs = (run(x, True), run(x, False), run(x[: fixture.SUBSET], True))
    return [
        {
            **facts,
            "gap_to_mended": plain(relative(written, mended)),
            "batch_dependence_as_written": plain(dependence(written, alone)),
        }
        for facts, written, mended, alone in zip(rebuilt.facts_of_each(), *outputs, strict=True)
    ]
