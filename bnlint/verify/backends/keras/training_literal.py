"""``training-literal``: what a call that infers gives with ``training=True``, and with ``training=False``.

A sample's dependence on its batch-mates is the largest change of the first samples' outputs when the others are taken
away, relative to the largest output; the drift is the largest change of a moving statistic by one call.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.keras.rebuilt import Rebuilt, call, dependence, movement, relative, statistics
from bnlint.verify.fixture import plain


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    x = rebuilt.input()
    outputs = {flag: call(rebuilt.fresh(), x, training=flag) for flag in (True, False)}
    facts = {**rebuilt.facts(x), "gap_to_mended": plain(relative(outputs[True], outputs[False]))}
    if not rebuilt.normalises:
        return facts
    for name, flag in (("as_written", True), ("mended", False)):
        part = call(rebuilt.fresh(), x[: fixture.SUBSET], training=flag)
        facts[f"batch_dependence_{name}"] = plain(dependence(outputs[flag], part))
        layer = rebuilt.fresh()
        before = statistics(layer)
        layer(x, training=flag)
        facts[f"statistics_moved_{name}"] = plain(movement(before, layer))
    return facts
