"""``axis-layout``, ``bias-gradient``, ``dropout-shift`` and ``norm-fit``: a BatchNorm and what feeds it."""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import Facts, Judgement, percent

# Gradient of the bias over that of the weights, in double precision: 1e-16 to 1e-14 where BatchNorm takes the mean off
# (1e-7 on devices that know float32 only), 0.01 to 1 where an activation or a frozen BatchNorm stands behind.
GRADIENT_CONFIRMED = 1e-6
GRADIENT_REFUTED = 1e-3
GRADIENT_TOLERANCE = f"gradient_ratio: confirmed below {GRADIENT_CONFIRMED:g}, refuted above {GRADIENT_REFUTED:g}"

# Variance in eval mode over that in train mode: 0.33 at p = 0.5, 0.67 at 0.2, 0.98 to 1.02 without dropout.
SHIFT_CONFIRMED = 0.8
SHIFT_REFUTED = 0.95
SHIFT_TOLERANCE = (
    f"variance_eval / variance_train: confirmed below {SHIFT_CONFIRMED:g}, refuted above {SHIFT_REFUTED:g}"
)

EXACT = "exact: numbers of values"
RAISES = "exact: exceptions"


def axis_layout(facts: Facts) -> Judgement | None:
    values, filters = facts["values_as_written"], facts["filters"]
    if values == filters:
        return Verdict.REFUTED, f"one value of gamma and beta for each of the {filters} filters: the axis is right"
    gap = facts.get("gap_to_mended")
    harm = f"; in training the output is {percent(gap)} off that with the right axis" if gap is not None else ""
    return (
        Verdict.CONFIRMED,
        f"gamma has {values} values on an output of shape {facts['input']} by {filters} filters{harm}",
    )


def bias_gradient(facts: Facts) -> Judgement | None:
    ratio = facts["gradient_ratio"]
    if ratio is None:
        return None
    if ratio > GRADIENT_REFUTED:
        return Verdict.REFUTED, f"the gradient of the bias is {percent(ratio)} of that of the weights: it learns"
    text = f"the gradient of the bias is {ratio:.1g} of that of the weights"
    return (Verdict.CONFIRMED if ratio < GRADIENT_CONFIRMED else Verdict.INCONCLUSIVE), text


def dropout_shift(facts: Facts) -> Judgement | None:
    train, evaluating = facts["variance_train"], facts["variance_eval"]
    if not train or evaluating is None:
        return None
    ratio = evaluating / train
    text = f"in eval mode the variance behind BatchNorm is {ratio:.2f} of that in train mode"
    if facts.get("tracks_running_stats") is False:
        text = f"no running statistics: {text}"
    if ratio < SHIFT_CONFIRMED:
        return Verdict.CONFIRMED, f"{text}, so outputs shrink to {percent(ratio**0.5)}"
    return (Verdict.REFUTED if ratio > SHIFT_REFUTED else Verdict.INCONCLUSIVE), text


def norm_fit(facts: Facts) -> Judgement | None:
    if "raises" in facts:
        return Verdict.CONFIRMED, f"the forward pass raises: {facts['raises']}"
    return Verdict.REFUTED, "the forward pass runs: dimensions and features fit"
