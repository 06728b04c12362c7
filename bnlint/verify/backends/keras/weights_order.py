"""``weights-order``: a layer that is given its weights in the order of the source, against one with the order of Keras.

All weights are positive and different from each other, so that no exchange goes unseen or ends in NaN.
"""

from __future__ import annotations

from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Array, Layer, Rebuilt, call, np, relative
from bnlint.verify.fixture import plain

_RANGES = {"gamma": (0.5, 1.5), "beta": (0.1, 0.9), "moving_mean": (1.0, 3.0), "moving_variance": (2.0, 6.0)}


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    order = str(options.get("order", "")).split(",")
    if not rebuilt.normalises or sorted(order) != sorted(_RANGES):
        raise CannotMeasure(f"{rebuilt.name} has no weights in the order {', '.join(order)}")
    x = rebuilt.input()
    written, mended = _given(rebuilt.fresh(), order), _given(rebuilt.fresh(), list(_RANGES))
    return {
        **rebuilt.facts(x),
        "mended_by": f"the order {', '.join(_RANGES)}",
        "gap_to_mended": plain(relative(call(written, x, training=False), call(mended, x, training=False))),
    }


def _given(layer: Layer, order: list[str]) -> Layer:
    layer.set_weights([_weight(name, layer.moving_mean.shape[0]) for name in order])
    return layer


def _weight(name: str, size: int) -> Array:
    return np.linspace(*_RANGES[name], size).astype("float32")
