"""``degenerate-momentum``: the measurement of ``momentum-memory``, or what a training step raises."""

from __future__ import annotations

from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras import momentum_memory
from bnlint.verify.backends.keras.rebuilt import Rebuilt
from bnlint.verify.fixture import one_line


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    x = rebuilt.input()
    try:
        rebuilt.fresh()(x, training=True)
    except Exception as error:  # whatever it is, it is reported
        return {"raises": one_line(error, _ERROR), "input": "", "chosen": rebuilt.chosen}
    return momentum_memory.measure(rebuilt, options)


#: Characters of an error's message that are shown.
_ERROR = 150
