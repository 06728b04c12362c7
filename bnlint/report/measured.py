"""What the verifier's measurements are called and how their numbers are written for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Under which the measurement was made, told in one line of its own.
CONDITIONS = ("input", "dtype", "seed", "chosen")
#: Already said by the verdict's reason, or of use to programs only.
_UNSAID = ("layer", "tolerance")


def share(value: float) -> str:
    """A ratio of like quantities, in percent where that is readable."""
    if value == 0:
        return "0"
    return f"{100 * value:.3g} %" if 1e-3 <= abs(value) < 1e3 else f"{value:.2g}"


def number(value: float) -> str:
    return f"{value:.4g}"


def exact(value: float) -> str:
    """With the digits that tell 0.999995 from 0.9995, and as a decimal number even if it is whole."""
    text = f"{value:.7g}"
    return text if set(text) & set(".en") else text + ".0"


#: In the order in which they are shown; what is not named here comes after, under its own key.
_LABELS: dict[str, tuple[str, Callable[[float], str]]] = {
    "source_input": ("input in the source", exact),
    "output_train": ("output in train mode", exact),
    "output_train_spread": ("  spread", number),
    "output_eval": ("output in eval mode", exact),
    "output_eval_spread": ("  spread", number),
    "output_default": ("output as called", exact),
    "output_default_spread": ("  spread", number),
    "output_training_true": ("output with training=True", exact),
    "output_training_true_spread": ("  spread", number),
    "gap": ("gap between the two modes", share),
    "identity_gap": ("gap between output and input", share),
    "batch_dependence_train": ("dependence on the batch, train mode", share),
    "batch_dependence_eval": ("dependence on the batch, eval mode", share),
    "tracks_running_stats": ("keeps running statistics", number),
    "statistics_drift": ("running statistics moved by", number),
    "num_batches_tracked": ("batches counted", number),
    "trainable": ("trainable", number),
    "p": ("dropout probability", number),
    "statistics_change_default": ("moving statistics moved by, as called", number),
    "statistics_change_training_true": ("moving statistics moved by, training=True", number),
    "output_change_default": ("change of the input, as called", share),
    "output_change_training_true": ("change of the input, training=True", share),
    "momentum": ("momentum", number),
    "new_batch_weight": ("weight of the newest batch", number),
    "ratio": ("noise of the running mean / of one batch", share),
    "eval_error": ("error in eval mode", share),
    "eval_error_converted": ("error in eval mode, 1 - momentum", share),
    "difference_from_converted": ("output's distance from that with 1 - momentum", share),
    "batches": ("batches run", number),
    "eps": ("eps", number),
    "gap_eval": ("gap to the default eps, eval mode", share),
    "gap_train": ("gap to the default eps, train mode", share),
    "scale": ("scale of the output", number),
    "layers_measured": ("layers measured", number),
}


def rows(measurements: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each measurement, for people, in a sensible order."""
    known = [key for key in _LABELS if key in measurements]
    others = [key for key in measurements if key not in _LABELS and key not in (*CONDITIONS, *_UNSAID)]
    result = []
    for key in known + others:
        label, write = _LABELS.get(key, (key.replace("_", " "), number))
        result.append((label, _value(measurements[key], write)))
    return result


def conditions(measurements: Mapping[str, Any]) -> str:
    """On what it was measured, and what had to be chosen because the source does not tell; '' if unknown."""
    parts = []
    if measurements.get("input") is not None:
        parts.append(f"input {measurements['input']}")
    if measurements.get("dtype") is not None:
        parts.append(str(measurements["dtype"]))
    if measurements.get("seed") is not None:
        parts.append(f"seed {measurements['seed']}")
    if chosen := measurements.get("chosen"):
        names = chosen if isinstance(chosen, (list, tuple)) else [chosen]
        parts.append(f"not in the source, so chosen: {', '.join(map(str, names))}")
    return "; ".join(parts)


def _value(value: Any, write: Callable[[float], str]) -> str:
    if value is None:
        return "no finite number"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return write(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(item, write) for item in value)
    return str(value)
