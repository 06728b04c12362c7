"""``degenerate-momentum``: the measurement of ``momentum-memory``, or what a training step raises."""

from __future__ import annotations

from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras import momentum_memory
from bnlint.verify.backends.keras.rebuilt import Rebuilt
from bnlint.verify.fixture import raised


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    x = rebuilt.input()
    try:
        rebuilt.fresh()(x, training=True)
    except Exception as error:  # whatever it is, it is reported
        return {"raises": raised(error), "input": "", "chosen": rebuilt.chosen}
    return momentum_memory.measure_each(rebuilt)[0]
