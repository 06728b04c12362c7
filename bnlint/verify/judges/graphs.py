"""``always-training`` and ``update-ops``: layers of TensorFlow 1, whose call chooses the mode."""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import Facts, Judgement, gap_undecided, percent, without_effect


def always_training(facts: Facts) -> Judgement | None:
    gap, dependence = facts["gap_to_mended"], facts["batch_dependence_as_written"]
    if gap is None or dependence is None:
        return None
    undecided = gap_undecided(facts, "training and inference compute the same") or without_effect(facts)
    return undecided or (
        Verdict.CONFIRMED,
        f"for inference the output is {percent(gap)} away from that with is_training=False, and a sample's depends on "
        "the rest of its batch",
    )


def update_ops(facts: Facts) -> Judgement | None:
    gap, moved = facts["gap_to_mended"], facts["statistics_change_as_written"]
    if gap is None or moved is None:
        return None
    if moved > 0:
        return Verdict.REFUTED, f"the moving statistics do move (by {moved:.2g} in {facts['steps']} steps)"
    undecided = gap_undecided(facts, "the updates change nothing")
    return undecided or (
        Verdict.CONFIRMED,
        f"after {facts['steps']} training steps the moving statistics are the initial ones; the output for inference "
        f"is {percent(gap)} away from that where the step depends on UPDATE_OPS",
    )
