"""What the verifier's measurements are called and how their numbers are written for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Under which the measurement was made, told in one line of its own.
CONDITIONS = ("input", "dtype", "seed", "chosen")
#: Already said by the verdict's reason, or of use to programs only.
_UNSAID = ("layer", "tolerance", "drift_by_layer", "validation_batches")


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


def _pair(
    key: str, label: str, write: Callable[[float], str] = number
) -> dict[str, tuple[str, Callable[[float], str]]]:
    """The labels of a quantity that was measured as the source has it, and without the mistake."""
    return {f"{key}_as_written": (f"{label}, as written", write), f"{key}_mended": (f"{label}, mended", write)}


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
    "model": ("model built", str),
    "modules": ("modules in it", number),
    "parameters": ("parameters", number),
    "norm_layers": ("layers with running statistics", number),
    "trainable_norm_layers": ("  of these trainable", number),
    "dropout_layers": ("Dropout layers", number),
    "gap_to_training_true": ("gap to the output with training=True", share),
    "gap_to_training_false": ("gap to the output with training=False", share),
    "batch_dependence": ("dependence on the batch, as called", share),
    "batch_dependence_training_false": ("dependence on the batch, training=False", share),
    "dropout_gap_as_called": ("gap between two calls", share),
    "dropout_gap_training_true": ("gap between two calls with training=True", share),
    "layers_moved_as_called": ("layers moved as called", number),
    "layers_moved_in_fit": ("layers moved in fit", number),
    "layers_still_in_fit": ("trainable layers that fit does not move", str),
    "gap": ("gap between the two modes", share),
    "identity_gap": ("gap between output and input", share),
    "batch_dependence_train": ("dependence on the batch, train mode", share),
    "batch_dependence_eval": ("dependence on the batch, eval mode", share),
    "dropout_gap": ("gap between two passes in train mode", share),
    "layers_moved": ("layers moved by a validation in train mode", number),
    "largest_drift": ("  farthest, in running standard deviations", number),
    "largest_drift_in": ("  which is", str),
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
    "exporter": ("exporter", str),
    "method": ("method", str),
    "container": ("container", str),
    "buffers": ("buffers in the average", str),
    "how": ("frozen by", str),
    "on_layer": ("flag set on the layer itself", number),
    "update_bn": ("update_bn in the source", number),
    "mended_by": ("mended by", str),
    "batches": ("batches run", number),
    "gap_to_mended": ("gap to the mended output", share),
    "gap_mended": ("gap between the two modes, mended", share),
    **_pair("off_the_batch", "statistics away from the batch's", share),
    "gap_between_two_calls": ("gap between two calls", share),
    "gap_of_last_model": ("gap made by update_bn on the last model", share),
    **_pair("batch_dependence", "dependence on the batch", share),
    **_pair("output_change", "change of the input", share),
    **_pair("batches_counted", "batches counted"),
    **_pair("statistics_moved", "running statistics moved by"),
    **_pair("statistics_change", "moving statistics moved by"),
    "steps": ("training steps", number),
    **_pair("relative_drift", "drift of the running statistics", share),
    **_pair("statistics_distance", "distance of the running statistics", share),
    "batches_counted_by_tracing": ("batches counted by tracing", number),
    "statistics_moved_by_tracing": ("running statistics moved by tracing", number),
    **_pair("state_entries", "entries in state_dict"),
    "is_registered": ("the module knows the layer", number),
    "layer_training_after_assignment": ("layer in train mode after the assignment", number),
    **{
        f"{part}_training_after_{method}": (f"{part} in train mode after {method}()", number)
        for method in ("eval", "train")
        for part in ("parent", "layer")
    },
    **{f"{method}_returns_self": (f"{method}() returns the module", number) for method in ("eval", "train")},
    **{f"{method}_raises": (f"{method}() raises", str) for method in ("eval", "train")},
    "raises": ("raised in train mode", str),
    "raises_mended": ("raised in eval mode", str),
    "eval_afterwards": ("eval() afterwards raises", str),
    "eps": ("eps", number),
    "gap_eval": ("gap to the default eps, eval mode", share),
    "gap_train": ("gap to the default eps, train mode", share),
    "scale": ("scale of the output", number),
    "before": ("layer before", str),
    "data_format": ("its data_format", str),
    "filters": ("its filters", number),
    **_pair("values", "values of gamma"),
    "bias_gradient": ("gradient of the bias", number),
    "weight_gradient": ("gradient of the weights", number),
    "gradient_ratio": ("gradient of the bias / of the weights", share),
    "dropout": ("dropout", str),
    "rate": ("dropout probability", number),
    "variance_train": ("variance of the output, train mode", number),
    "variance_eval": ("variance of the output, eval mode", number),
    "features_given": ("features given", number),
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
