"""What every experiment is measured on: sizes, seeds and distributions, the same for all frameworks.

The running statistics are neither 0 and 1 nor those of the data: with either, train and eval mode agree by
accident and every finding would look refuted.
"""

from __future__ import annotations

import math
import re
from typing import Any

SEED = 1234
BATCH = 16
#: Samples of the smaller batch whose outputs are compared with those inside the whole batch.
SUBSET = 4

#: The input: independent normal values of this mean and standard deviation.
INPUT_MEAN = 3.0
INPUT_SD = 2.0

#: Running means and variances are spread evenly over these ranges, one value per channel.
RUNNING_MEAN = (0.5, 1.5)
RUNNING_VAR = (1.5, 2.5)

#: Channels are normalised independently, so more of them cost memory and teach nothing.
MAX_FEATURES = 4096
#: Values in the largest input from the source that is run as it stands (256 MiB as float32).
MAX_ELEMENTS = 2**26

#: Batches of an epoch, and of a training in which something was meant to stay frozen.
EPOCH_BATCHES = 8
FREEZE_BATCHES = 50

#: Channels for the statistics of statistics (momentum memory), whatever the source has.
MEMORY_CHANNELS = 64


#: Characters that are shown of what a measurement raised: exporters write pages.
_RAISED = 150
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def plain(value: float | None) -> float | None:
    """A float for the report: seven significant digits; ``None`` where there is none or it is not finite."""
    return float(f"{value:.7g}") if value is not None and math.isfinite(value) else None


def shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception's message as one line, its type first where the message alone says little."""
    text = " ".join(_COLOUR.sub("", str(error)).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def raised(error: BaseException) -> str:
    """What a measurement raised, where that is the answer."""
    return one_line(error, _RAISED)


def describe(kind: str, arguments: dict[str, Any]) -> str:
    """``BatchNorm2d(num_features=100, momentum=0.99)``"""
    inside = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{kind.rpartition('.')[2]}({inside})"
