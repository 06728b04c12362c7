"""``momentum-memory``, ``eps-gap`` and ``half-statistics``: what a layer's arguments and dtype make of its statistics
and outputs."""

from __future__ import annotations

import math

from bnlint.finding import Verdict
from bnlint.verify.judges.common import Facts, Judgement, percent

# Noise of the running mean over noise of one batch's mean, sqrt(a / (2 - a)) for the new-batch weight a:
# 0.90 at a = 0.9, 0.77 at a = 0.75, 0.58 at 0.5, 0.33 at 0.2, 0.23 at the default 0.1; measured to within 5 %.
MEMORY_CONFIRMED = 0.75
MEMORY_REFUTED = 0.35
MEMORY_TOLERANCE = f"ratio: confirmed from {MEMORY_CONFIRMED:g}, refuted up to {MEMORY_REFUTED:g}"

# From here on the running mean is no better than one batch's: 1 exactly at new-batch weight 1, more beyond it.
NO_AVERAGE = 0.99
SOME_AVERAGE = 0.95
DEGENERATE_TOLERANCE = f"ratio: confirmed at 0 and from {NO_AVERAGE:g}, refuted up to {SOME_AVERAGE:g}"

# Relative change of the outputs by eps at variance 1: 0.25 for eps 0.8, 5e-3 for 1e-2, 5e-4 for 1e-3.
EPS_CONFIRMED = 1e-2
EPS_REFUTED = 1e-4
EPS_TOLERANCE = f"gap_eval: confirmed above {EPS_CONFIRMED:g}, refuted up to {EPS_REFUTED:g}"

# What statistics that have stopped too early change of the outputs: 6 % in bfloat16 at momentum 0.1. At 0.9 it is
# 0.5 %, which is no more than that the numbers of bfloat16 are so far apart.
ROUNDED_CONFIRMED = 2e-2
ROUNDED_REFUTED = 1e-2
ROUNDED_TOLERANCE = f"gap_to_mended: confirmed above {ROUNDED_CONFIRMED:g}, refuted up to {ROUNDED_REFUTED:g}"


def momentum_memory(facts: Facts) -> Judgement | None:
    if facts.get("tracks_running_stats") is False:
        return Verdict.REFUTED, "no running statistics: momentum is never used"
    ratio, weight = facts["ratio"], facts["new_batch_weight"]
    if ratio is None:
        return None
    if ratio == 0:
        why = "the layer is frozen" if facts.get("trainable") is False else "their new-batch weight is 0"
        return Verdict.REFUTED, f"the running statistics never move ({why}), so they remember no single batch"
    share = f"the running mean carries {percent(ratio)} of one batch's noise"
    theory = expected_ratio(weight) if weight is not None else None
    if theory is not None:
        share += f" (theory {percent(theory)})"
    if ratio <= MEMORY_REFUTED:
        return Verdict.REFUTED, f"{share}: it averages many batches"
    if ratio < MEMORY_CONFIRMED or weight is None:
        return Verdict.INCONCLUSIVE, share
    batches = effective_batches(weight)
    remembered = "" if batches is None else f", as if it remembered {batches:.3g} batch{'es' * (batches != 1)}"
    error, converted = facts["eval_error"], facts.get("eval_error_converted")
    harm = (
        ""
        if error is None or converted is None
        else f"; eval mode errs by {percent(error)}, with 1 - momentum by {percent(converted)}"
    )
    return Verdict.CONFIRMED, share + remembered + harm


def degenerate_momentum(facts: Facts) -> Judgement | None:
    if "raises" in facts:
        return Verdict.CONFIRMED, f"a training step raises {facts['raises']}"
    if facts.get("tracks_running_stats") is False:
        return Verdict.REFUTED, "no running statistics: momentum is never used"
    if facts.get("trainable") is False:
        return Verdict.REFUTED, "the layer is frozen: momentum is never used"
    ratio = facts["ratio"]
    if ratio is None:
        return Verdict.CONFIRMED, "the running statistics leave the finite numbers"
    share = f"the running mean carries {percent(ratio)} of one batch's noise"
    if ratio == 0:
        return Verdict.CONFIRMED, f"after {facts['batches']} batches the running statistics are where they were"
    if ratio >= NO_AVERAGE:
        broken = "; eval mode gives no finite number" if facts["eval_error"] is None else ""
        return Verdict.CONFIRMED, f"{share}: nothing is averaged{broken}"
    return Verdict.REFUTED if ratio <= SOME_AVERAGE else Verdict.INCONCLUSIVE, share


def eps_gap(facts: Facts) -> Judgement | None:
    gap = facts["gap_eval"]
    if gap is None:
        return None
    effect = f"at variance 1 eps={facts['eps']:g} changes the output by {percent(gap)}"
    if gap <= EPS_REFUTED:
        return Verdict.REFUTED, f"eps={facts['eps']:g} computes the same as the default 1e-05 (gap {gap:.1g})"
    if gap <= EPS_CONFIRMED:
        return Verdict.INCONCLUSIVE, effect
    return Verdict.CONFIRMED, f"{effect} (scale {facts['scale']:.3g} instead of 1)"


def half_statistics(facts: Facts) -> Judgement | None:
    if facts.get("tracks_running_stats") is False:
        return Verdict.REFUTED, "no running statistics that could be rounded"
    gap = facts["gap_to_mended"]
    if gap is None:
        return Verdict.CONFIRMED, f"the running statistics leave the finite numbers of {facts['dtype']}"
    effect = (
        f"kept in {facts['dtype']}, the running statistics stop {percent(facts['off_the_batch_as_written'])} away from "
        f"the batch's, which makes {percent(gap)} of the output"
    )
    if gap <= ROUNDED_REFUTED:
        return Verdict.REFUTED, effect
    return Verdict.CONFIRMED if gap > ROUNDED_CONFIRMED else Verdict.INCONCLUSIVE, effect


def expected_ratio(weight: float) -> float | None:
    """Noise of the running mean over that of a batch mean, for the new-batch weight; None outside 0 … 1."""
    return math.sqrt(weight / (2 - weight)) if 0 <= weight <= 1 else None


def effective_batches(weight: float) -> float | None:
    """How many batches a plain average would need to be as steady; None outside 0 … 1."""
    return (2 - weight) / weight if 0 < weight <= 1 else None
