"""``eps-carried`` and ``weights-order``: is a layer that was carried from one framework to the other still the same?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import GAP_REFUTED, Facts, Judgement, percent

# Between 1e-5 and 1e-3 it is 2e-2 over variances from 0.01 to 1; float32 noise is below 1e-6.
CARRIED_CONFIRMED = 1e-4
CARRIED_REFUTED = 1e-5
CARRIED_TOLERANCE = f"gap_eval: confirmed above {CARRIED_CONFIRMED:g}, refuted up to {CARRIED_REFUTED:g}"


def eps_carried(facts: Facts) -> Judgement | None:
    gap = facts["gap_eval"]
    if gap is None:
        return None
    what = f"with eps={facts['eps']:g} instead of {facts['eps_of_source']:g} the outputs are {percent(gap)} off"
    if gap > CARRIED_CONFIRMED:
        return Verdict.CONFIRMED, f"{what} over running variances from 0.01 to 1"
    return Verdict.REFUTED if gap <= CARRIED_REFUTED else Verdict.INCONCLUSIVE, what


def weights_order(facts: Facts) -> Judgement | None:
    gap = facts["gap_to_mended"]
    if gap is None:
        return None
    if gap <= GAP_REFUTED:
        return Verdict.REFUTED, "the order is that of Keras"
    return Verdict.CONFIRMED, f"the outputs are {percent(gap)} off those with the weights in Keras's order"
