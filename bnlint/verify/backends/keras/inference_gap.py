"""``inference-gap``: a call without ``training=`` against one with it, and against the input itself.

The gaps are ‖a - b‖ / ‖b‖ of the outputs.
"""

from __future__ import annotations

from bnlint.verify.backends import Facts
from bnlint.verify.backends.keras.rebuilt import Rebuilt, call, relative
from bnlint.verify.fixture import plain


def measure_each(rebuilt: Rebuilt) -> list[Facts]:
    x = rebuilt.input()
    outputs = (x, call(rebuilt.fresh(), x), call(rebuilt.fresh(), x, training=True))
    return [
        {**facts, "gap": plain(relative(trained, default)), "identity_gap": plain(relative(default, own))}
        for facts, own, default, trained in zip(rebuilt.facts_of_each(), *map(rebuilt.each, outputs), strict=True)
    ]
