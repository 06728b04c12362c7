"""``inference-gap``: a call without ``training=`` against one with it, and against the input itself.

The gaps are ‖a - b‖ / ‖b‖ of the outputs.
"""

from __future__ import annotations

from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.keras.rebuilt import Rebuilt, call, relative
from bnlint.verify.fixture import plain


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    x = rebuilt.input()
    default = call(rebuilt.fresh(), x)
    return {
        **rebuilt.facts(x),
        "gap": plain(relative(call(rebuilt.fresh(), x, training=True), default)),
        "identity_gap": plain(relative(default, x)),
    }
