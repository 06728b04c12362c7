"""``fit-epoch``: what one epoch of ``fit`` does to a layer, as the source has it and mended.

For BatchNorm that is the largest change of a moving statistic, exactly 0 in inference mode and |batch - initial| times
(1 - momentum) a step in training mode (0.03 at mean 3 and the default momentum). For Dropout it is how far the model's
output is from its input, √loss / rms(input), since the model is fitted to give back its input and has nothing else in
it: exactly 0 where nothing is dropped.

``how`` says what the source has: a ``call`` without ``training``, one that passes ``training=False``, the same in a
functional model, or a layer whose ``trainable`` changes between two ``fit`` (the second is looked at; mended is
``compile`` in between).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.keras.rebuilt import Array, Layer, Rebuilt, keras, movement, np, statistics
from bnlint.verify.fixture import plain

#: Each a way to build the model as written, the same mended, and what the difference is.
_MENDED_BY = {
    "no-training-parameter": "call(self, x, training=None)",
    "hard-coded-false": "training=training",
    "graph-literal-false": "trainable = False",
    "frozen-after-fit": "compile()",
    "thawed-after-fit": "compile()",
}


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    how = option(options, "how", _MENDED_BY)
    x = rebuilt.input()
    facts = {**rebuilt.facts(x), "how": how, "mended_by": _MENDED_BY[how]}
    name = "statistics_moved" if rebuilt.normalises else "output_change"
    for side in ("as_written", "mended"):
        changes = {"trainable": False} if how == "thawed-after-fit" and rebuilt.fresh().trainable else {}
        layer = rebuilt.fresh(**changes)
        facts[f"{name}_{side}"] = plain(_epoch(rebuilt, layer, x, how, side == "mended"))
    return facts


def _epoch(rebuilt: Rebuilt, layer: Layer, x: Array, how: str, mended: bool) -> float:
    """The change in the epoch that is looked at."""
    model = (
        _functional(layer, x, {"training": False} if how == "graph-literal-false" and not mended else {})
        if how in ("graph-literal-false", "frozen-after-fit", "thawed-after-fit")
        else _subclassed(layer, how, mended)
    )
    if how == "graph-literal-false" and mended:
        layer.trainable = False
    # What is traced once is what is looked at where trainable changes; elsewhere tracing only takes time.
    _compile(model, eagerly="after-fit" not in how)
    if "after-fit" in how:
        model.fit(x, x, batch_size=len(x), verbose=0)
        if layer.trainable is not (how == "thawed-after-fit"):
            layer.trainable = how == "thawed-after-fit" and rebuilt.spec.arguments.get("trainable") is not False
        if mended:
            _compile(model, eagerly=False)
    before = statistics(layer) if rebuilt.normalises else None
    history = model.fit(x, x, batch_size=len(x), verbose=0)
    if before is not None:
        return movement(before, statistics(layer))
    return math.sqrt(float(history.history["loss"][0]) / float(np.square(x.astype("float64")).mean()))


def _compile(model: Layer, eagerly: bool) -> None:
    model.compile(optimizer="sgd", loss="mse", run_eagerly=eagerly)


def _functional(layer: Layer, x: Array, arguments: dict[str, bool]) -> Layer:
    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, layer(inputs, **arguments))


def _subclassed(layer: Layer, how: str, mended: bool) -> Layer:
    calls: dict[tuple[str, bool], Callable[..., object]] = {
        ("no-training-parameter", False): lambda self, x: layer(x),
        ("hard-coded-false", False): lambda self, x, training=None: layer(x, training=False),
    }
    call = calls.get((how, mended), lambda self, x, training=None: layer(x, training=training))
    model = type("Model", (keras.Model,), {"call": call})()
    model.layer = layer
    return model
