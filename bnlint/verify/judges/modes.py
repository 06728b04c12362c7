"""``mode-gap``, ``batch-of-one``, ``inference-gap`` and ``tape-step``: what the layer computes in the mode in which it
was left."""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import (
    CHANGE_CONFIRMED,
    DEPENDENCE_CONFIRMED,
    GAP_CONFIRMED,
    GAP_REFUTED,
    MODES_TOLERANCE,
    Facts,
    Judgement,
    is_instance_norm,
    percent,
    why_same,
)

DEPENDENCE_TOLERANCE = f"batch_dependence_eval: confirmed above {DEPENDENCE_CONFIRMED:g}"
CHANGE_TOLERANCE = f"change: confirmed above {CHANGE_CONFIRMED:g}, refuted at 0"


def mode_gap(facts: Facts) -> Judgement | None:
    gap, dependence = facts["gap"], facts.get("batch_dependence_train")
    if gap is None:
        return None
    if gap <= GAP_REFUTED:
        if facts.get("tracks_running_stats") is False:
            return Verdict.REFUTED, "no running statistics: train and eval mode compute the same"
        if "p" in facts:
            return Verdict.REFUTED, f"p = {facts['p']:g}: train and eval mode compute the same"
        return Verdict.REFUTED, f"train and eval mode compute the same (relative gap {gap:.1g})"
    if gap <= GAP_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap between train and eval mode, {gap:.1g}, decides nothing"
    effect = f"train mode's output is {percent(gap)} away from eval mode's"
    if "p" in facts:
        return Verdict.CONFIRMED, effect
    if not is_instance_norm(facts):
        if dependence is None:
            return None
        if dependence <= DEPENDENCE_CONFIRMED:
            return Verdict.INCONCLUSIVE, f"{effect}, but does not depend on the batch"
        effect += " and depends on the rest of the batch"
    if facts.get("statistics_drift"):
        effect += "; each call moves the running statistics"
    return Verdict.CONFIRMED, effect


def eval_dependence(facts: Facts) -> Judgement | None:
    dependence = facts.get("batch_dependence_eval")
    if dependence is None:
        return None
    if dependence > DEPENDENCE_CONFIRMED:
        return (
            Verdict.CONFIRMED,
            f"in eval mode a sample's output changes by {percent(dependence)} with its batch-mates",
        )
    return Verdict.REFUTED, f"in eval mode no sample depends on its batch-mates ({dependence:.1g})"


# How many times the gap of larger batches that of single samples must be: 6 and more, where their means differ as they
# do here.
SINGLE_CONFIRMED = 2
SINGLE_TOLERANCE = f"{MODES_TOLERANCE}; confirmed above {SINGLE_CONFIRMED} times gap_mended"


def batch_of_one(facts: Facts) -> Judgement | None:
    gap, mended = facts["gap"], facts["gap_mended"]
    if gap is None or mended is None:
        return None
    if gap <= GAP_REFUTED:
        return Verdict.REFUTED, f"{why_same(facts)}both modes make the same of a single sample"
    effect = f"trained on single samples, train mode's output is {percent(gap)} away from eval mode's"
    if gap <= GAP_CONFIRMED or gap <= SINGLE_CONFIRMED * mended:
        return Verdict.INCONCLUSIVE, f"{effect}, and in {facts['mended_by']} {percent(mended)}"
    return Verdict.CONFIRMED, f"{effect}, instead of {percent(mended)} in {facts['mended_by']}"


def inference_gap(facts: Facts) -> Judgement | None:
    gap, identity = facts["gap"], facts["identity_gap"]
    if gap is None:
        return None
    if gap <= GAP_REFUTED:
        cause = "the layer is not trainable: " if facts.get("trainable") is False else ""
        return Verdict.REFUTED, f"{cause}the output is the same with training=True"
    if gap <= GAP_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap to training=True, {gap:.1g}, decides nothing"
    reason = f"without training= the output is {percent(gap)} away from that with training=True"
    if identity is not None and identity <= GAP_CONFIRMED:
        reason += "; it is the input itself" + (f" to {identity:.1g}" if identity else "")
    return Verdict.CONFIRMED, reason


def tape_step(facts: Facts) -> Judgement | None:
    if "output_change_training_true" in facts:
        return _tape_step_of_dropout(facts)
    default, training = facts["statistics_change_default"], facts["statistics_change_training_true"]
    if default is None or training is None:
        return None
    if default > 0:
        return (
            Verdict.REFUTED,
            f"the moving statistics do move without training=True (by {default:.2g} a step)",
        )
    if training == 0:
        if facts.get("trainable") is False:
            return Verdict.REFUTED, "the layer is frozen, nothing would be updated anyway"
        return Verdict.REFUTED, "the moving statistics do not move with training=True either"
    if training <= CHANGE_CONFIRMED:
        return (
            Verdict.INCONCLUSIVE,
            f"with training=True the moving statistics move by only {training:.1g} a step",
        )
    return (
        Verdict.CONFIRMED,
        f"the moving statistics stay where they are; with training=True they move by {training:.2g} a step",
    )


def _tape_step_of_dropout(facts: Facts) -> Judgement | None:
    default, training = facts["output_change_default"], facts["output_change_training_true"]
    if default is None or training is None:
        return None
    if default > GAP_REFUTED:
        return Verdict.REFUTED, "the layer does change its input without training=True"
    if training <= GAP_REFUTED:
        return Verdict.REFUTED, "the layer does not change its input with training=True either"
    if training <= GAP_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"with training=True the output changes by only {training:.1g}"
    return (
        Verdict.CONFIRMED,
        f"nothing is dropped; with training=True the output changes by {percent(training)}",
    )
