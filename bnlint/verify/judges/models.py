"""A whole model: do its two modes compute different things?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import DEPENDENCE_CONFIRMED, GAP_CONFIRMED, GAP_REFUTED, Facts, Judgement, percent


def judge_model(facts: Facts) -> Judgement:
    gap, dependence, dropped = facts["gap"], facts["batch_dependence_train"], facts.get("dropout_gap")
    if gap is None or dependence is None:
        return Verdict.INCONCLUSIVE, "the measurement gave no finite number"
    if gap <= GAP_REFUTED and dependence <= DEPENDENCE_CONFIRMED:
        if dropped is not None and dropped > GAP_CONFIRMED:
            return (
                Verdict.CONFIRMED,
                f"the model drops values in train mode: two passes over the same batch are {percent(dropped)} apart",
            )
        return Verdict.REFUTED, f"the model computes the same in both modes: {_why_same(facts)}"
    if gap <= GAP_CONFIRMED or dependence <= DEPENDENCE_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap between the modes of the model, {gap:.1g}, decides nothing"
    drift = facts.get("largest_drift")
    moved = (
        f"; {facts['validation_batches']} batches of a validation move the running mean in {facts['largest_drift_in']} "
        f"by {drift:.2g} of its standard deviations, and those of {facts['layers_moved']} layers in all"
        if drift
        else ""
    )
    return (
        Verdict.CONFIRMED,
        f"the model's output in train mode is {percent(gap)} away from eval mode's, and a sample's changes by "
        f"{percent(dependence)} with its batch-mates{moved}",
    )


def _why_same(facts: Facts) -> str:
    if facts["norm_layers"] == 0 and facts["dropout_layers"] == 0:
        return f"none of its {facts['modules']} modules has running statistics or drops anything"
    return "what it has of BatchNorm and Dropout does not show in its output"
