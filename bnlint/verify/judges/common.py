"""Thresholds and words that several judges share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnlint.finding import Verdict

Facts = Mapping[str, Any]
Judgement = tuple[Verdict, str]

# Relative L2 distance of two outputs. Two modes that compute the same agree to float32 noise (below 1e-6 as
# measured, exactly 0 on the CPU); BatchNorm with running statistics away from the batch's gives 0.1 and more.
GAP_CONFIRMED = 1e-3
GAP_REFUTED = 1e-5
MODES_TOLERANCE = f"gap: confirmed above {GAP_CONFIRMED:g}, refuted up to {GAP_REFUTED:g}"
GAP_TOLERANCE = f"gap_to_mended: confirmed above {GAP_CONFIRMED:g}, refuted up to {GAP_REFUTED:g}"

# Largest change of a sample's output when its batch-mates are taken away, relative to the largest output:
# 3e-7 in eval mode, 0.1 to 5 in train mode, so this cut leaves more than two orders on both sides.
DEPENDENCE_CONFIRMED = 1e-4

# Change of a moving statistic in one step, 0.03 at Keras's default momentum and mean 3, or share of the output that
# is dropped, 0.5; a layer that is not training does neither, exactly.
CHANGE_CONFIRMED = 1e-4


def gap_undecided(facts: Facts, otherwise: str) -> Judgement | None:
    """The verdict where the gap alone settles it: refuted, or too small to decide anything."""
    gap = facts["gap_to_mended"]
    if gap <= GAP_REFUTED:
        return Verdict.REFUTED, why_same(facts) + otherwise
    if gap <= GAP_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap, {gap:.1g}, decides nothing"
    return None


def why_same(facts: Facts) -> str:
    """Why the layer has but one mode, as the beginning of a sentence, or ''."""
    if facts.get("tracks_running_stats") is False:
        return "no running statistics: "
    if facts.get("p") == 0:
        return "p = 0: "
    if facts.get("trainable") is False:
        return "the layer is frozen: "
    return ""


def is_instance_norm(facts: Facts) -> bool:
    """It normalises each sample by itself, so that its train mode does not depend on the batch."""
    return str(facts["layer"]).startswith("InstanceNorm")


def without_effect(facts: Facts) -> Judgement | None:
    """The verdict where batch statistics would have to show in the outputs, and do not; None where they do."""
    dependence = facts["batch_dependence_as_written"]
    if dependence is not None and dependence > DEPENDENCE_CONFIRMED:
        return None
    return (
        Verdict.INCONCLUSIVE,
        f"the output is {percent(facts['gap_to_mended'])} off, but does not depend on the batch",
    )


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
