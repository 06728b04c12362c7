"""``training-literal``: what a call that infers gives with ``training=True``, and with ``training=False``.

A sample's dependence on its batch-mates is the largest change of the first samples' outputs when the others are taken
away, relative to the largest output; the drift is the largest change of a moving statistic by one call.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import Facts
from bnlint.verify.backends.keras.rebuilt import Rebuilt, call, dependence, relative, statistics
from bnlint.verify.fixture import plain


def measure_each(rebuilt: Rebuilt) -> list[Facts]:
    x = rebuilt.input()
    outputs = {flag: rebuilt.each(call(rebuilt.fresh(), x, training=flag)) for flag in (True, False)}
    measured = rebuilt.facts_of_each()
    for facts, on, off in zip(measured, outputs[True], outputs[False], strict=True):
        facts["gap_to_mended"] = plain(relative(on, off))
    if not rebuilt.normalises:
        return measured
    for name, flag in (("as_written", True), ("mended", False)):
        parts = rebuilt.each(call(rebuilt.fresh(), x[: fixture.SUBSET], training=flag))
        layer = rebuilt.fresh()
        before = statistics(layer)
        layer(x, training=flag)
        moved = rebuilt.movements(before, layer)
        for facts, whole, part, change in zip(measured, outputs[flag], parts, moved, strict=True):
            facts[f"batch_dependence_{name}"] = plain(dependence(whole, part))
            facts[f"statistics_moved_{name}"] = plain(change)
    return measured
