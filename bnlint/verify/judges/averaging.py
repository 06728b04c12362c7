"""``ema-buffers`` and ``swa-buffers``: do averaged weights have running statistics of their own?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import GAP_TOLERANCE, Facts, Judgement, gap_undecided, percent

# What update_bn changes in the average, over what it changes in the last model, whose statistics merely lag behind
# its weights: 100 at the default momentum, 2.6 at least with momentum=None or 0.01, over 20 seeds. The lag alone
# gives 1.
LAG_CONFIRMED = 2.0
SWA_TOLERANCE = f"{GAP_TOLERANCE}; gap_to_mended / gap_of_last_model: confirmed above {LAG_CONFIRMED:g}"


def ema_buffers(facts: Facts) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if facts["buffers"] == "copied":
        same = "the average has the model's buffers and computes the same"
    else:
        same = "the average computes the same with the model's buffers"
    if undecided := gap_undecided(facts, same):
        return undecided
    distance = facts.get("statistics_distance_as_written")
    apart = "" if distance is None else f", {percent(distance)} away from the model's"
    return Verdict.CONFIRMED, (
        f"the average keeps the running statistics that it began with{apart}; in eval mode its output is "
        f"{percent(facts['gap_to_mended'])} away from that with the model's"
    )


def swa_buffers(facts: Facts) -> Judgement | None:
    gap, lag = facts["gap_to_mended"], facts["gap_of_last_model"]
    if gap is None or lag is None:
        return None
    once_more = " once more" if facts["update_bn"] else ""
    if undecided := gap_undecided(facts, f"update_bn{once_more} changes nothing"):
        return undecided
    effect = f"update_bn{once_more} changes the average's output in eval mode by {percent(gap)}"
    if gap <= LAG_CONFIRMED * lag:
        return Verdict.INCONCLUSIVE, f"{effect}, and that of the last model, which is no average, by {percent(lag)}"
    return Verdict.CONFIRMED, f"{effect} (that of the last model by {percent(lag)})"
