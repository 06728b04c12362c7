"""Measurements -> verdict and reason; pure functions, and the only place where thresholds stand.

Each kind of experiment has a *confirmed* and a *refuted* region with a gap of orders of magnitude between
them, so that floating-point noise and a small real effect are never told apart by a hair; what falls between
is *inconclusive*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bnlint.finding import Verdict
from bnlint.verify.fixture import plain

Facts = Mapping[str, Any]
Judgement = tuple[Verdict, str]

# Relative L2 distance of two outputs. Two modes that compute the same agree to float32 noise (below 1e-6 as
# measured, exactly 0 on the CPU); BatchNorm with running statistics away from the batch's gives 0.1 and more.
GAP_CONFIRMED = 1e-3
GAP_REFUTED = 1e-5

# Largest change of a sample's output when its batch-mates are taken away, relative to the largest output:
# 3e-7 in eval mode, 0.1 to 5 in train mode, so this cut leaves more than two orders on both sides.
DEPENDENCE_CONFIRMED = 1e-4

# Change of the moving statistics in one training step: 0.03 at Keras's default momentum and mean 3; a layer
# that is not training leaves them exactly as they are.
CHANGE_CONFIRMED = 1e-4

# Noise of the running mean over noise of one batch's mean, sqrt(a / (2 - a)) for the new-batch weight a:
# 0.90 at a = 0.9, 0.77 at a = 0.75, 0.58 at 0.5, 0.33 at 0.2, 0.23 at the default 0.1; measured to within 5 %.
MEMORY_CONFIRMED = 0.75
MEMORY_REFUTED = 0.35

# Relative change of the outputs by eps at variance 1: 0.25 for eps 0.8, 5e-3 for 1e-2, 5e-4 for 1e-3.
EPS_CONFIRMED = 1e-2
EPS_REFUTED = 1e-4


def judge(kind: str, layers: Sequence[Facts]) -> Judgement:
    """One verdict over all layers: confirmed if one is, refuted only if every one is."""
    judged = [(_judge_layer(kind, facts), facts) for facts in layers]
    for verdict in (Verdict.CONFIRMED, Verdict.INCONCLUSIVE, Verdict.REFUTED):
        alike = [(reason, facts) for (its, reason), facts in judged if its is verdict]
        if alike:
            reason, facts = max(alike, key=lambda pair: _effect(pair[1]))
            return verdict, f"{facts['layer']}: {reason}{_others(verdict, len(alike), len(judged))}"
    return Verdict.INCONCLUSIVE, "nothing was measured"


def reported(layers: Sequence[Facts]) -> dict[str, Any]:
    """The measurements of the layer with the largest effect, and how many layers were measured."""
    measured = [facts for facts in layers if "error" not in facts]
    if not measured:
        return {}
    largest = {name: value for name, value in max(measured, key=_effect).items() if name != "fallback"}
    if isinstance(weight := largest.get("new_batch_weight"), (int, float)):
        largest["expected_ratio"] = plain(expected_ratio(weight))
        largest["effective_batches"] = plain(effective_batches(weight))
    return largest if len(layers) == 1 else {**largest, "layers_measured": len(measured)}


def _others(verdict: Verdict, alike: int, total: int) -> str:
    if total == 1:
        return ""
    if verdict is Verdict.REFUTED:
        return f" (the same holds for all {total} layers)"
    return f" ({alike} of {total} layers {verdict.value})"


def _effect(facts: Facts) -> float:
    """By which layers are compared: the first of these numbers that was measured."""
    for name in (
        "gap",
        "ratio",
        "gap_eval",
        "statistics_change_training_true",
        "output_change_training_true",
    ):
        if isinstance(facts.get(name), (int, float)):
            return float(facts[name])
    return -1.0


def _judge_layer(kind: str, facts: Facts) -> Judgement:
    if "error" in facts:
        return Verdict.INCONCLUSIVE, str(facts["error"])
    judgement = _JUDGES[kind](facts)
    # A number that is not finite is carried as None, and compares with nothing.
    return judgement or (Verdict.INCONCLUSIVE, "the measurement gave no finite number")


def _mode_gap(facts: Facts) -> Judgement | None:
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
    effect = f"train mode's output is {_percent(gap)} away from eval mode's"
    if "p" in facts:
        return Verdict.CONFIRMED, effect
    if not str(facts["layer"]).startswith("InstanceNorm"):
        if dependence is None:
            return None
        if dependence <= DEPENDENCE_CONFIRMED:
            return Verdict.INCONCLUSIVE, f"{effect}, but does not depend on the batch"
        effect += " and depends on the rest of the batch"
    if facts.get("statistics_drift"):
        effect += "; each call moves the running statistics"
    return Verdict.CONFIRMED, effect


def _inference_gap(facts: Facts) -> Judgement | None:
    gap, identity = facts["gap"], facts["identity_gap"]
    if gap is None:
        return None
    if gap <= GAP_REFUTED:
        cause = "the layer is not trainable: " if facts.get("trainable") is False else ""
        return Verdict.REFUTED, f"{cause}the output is the same with training=True"
    if gap <= GAP_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap to training=True, {gap:.1g}, decides nothing"
    reason = f"without training= the output is {_percent(gap)} away from that with training=True"
    if identity is not None and identity <= GAP_CONFIRMED:
        reason += "; it is the input itself" + (f" to {identity:.1g}" if identity else "")
    return Verdict.CONFIRMED, reason


def _tape_step(facts: Facts) -> Judgement | None:
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
        f"nothing is dropped; with training=True the output changes by {_percent(training)}",
    )


def _momentum_memory(facts: Facts) -> Judgement | None:
    if facts.get("tracks_running_stats") is False:
        return Verdict.REFUTED, "no running statistics: momentum is never used"
    ratio, weight = facts["ratio"], facts["new_batch_weight"]
    if ratio is None:
        return None
    if ratio == 0:
        why = "the layer is frozen" if facts.get("trainable") is False else "their new-batch weight is 0"
        return Verdict.REFUTED, f"the running statistics never move ({why}), so they remember no single batch"
    share = f"the running mean carries {_percent(ratio)} of one batch's noise"
    theory = expected_ratio(weight) if weight is not None else None
    if theory is not None:
        share += f" (theory {_percent(theory)})"
    if ratio <= MEMORY_REFUTED:
        return Verdict.REFUTED, f"{share}: it averages many batches"
    if ratio < MEMORY_CONFIRMED or weight is None:
        return Verdict.INCONCLUSIVE, share
    batches = effective_batches(weight)
    remembered = (
        "" if batches is None else f", as if it remembered {batches:.3g} batch{'es' * (batches != 1)}"
    )
    error, converted = facts["eval_error"], facts.get("eval_error_converted")
    harm = (
        ""
        if error is None or converted is None
        else f"; eval mode errs by {_percent(error)}, with 1 - momentum by {_percent(converted)}"
    )
    return Verdict.CONFIRMED, share + remembered + harm


def _eps_gap(facts: Facts) -> Judgement | None:
    gap = facts["gap_eval"]
    if gap is None:
        return None
    effect = f"at variance 1 eps={facts['eps']:g} changes the output by {_percent(gap)}"
    if gap <= EPS_REFUTED:
        return Verdict.REFUTED, f"eps={facts['eps']:g} computes the same as the default 1e-05 (gap {gap:.1g})"
    if gap <= EPS_CONFIRMED:
        return Verdict.INCONCLUSIVE, effect
    return Verdict.CONFIRMED, f"{effect} (scale {facts['scale']:.3g} instead of 1)"


_JUDGES: dict[str, Callable[[Facts], Judgement | None]] = {
    "mode-gap": _mode_gap,
    "inference-gap": _inference_gap,
    "tape-step": _tape_step,
    "momentum-memory": _momentum_memory,
    "eps-gap": _eps_gap,
}


def expected_ratio(weight: float) -> float | None:
    """Noise of the running mean over that of a batch mean, for the new-batch weight; None outside 0 … 1."""
    return math.sqrt(weight / (2 - weight)) if 0 <= weight <= 1 else None


def effective_batches(weight: float) -> float | None:
    """How many batches a plain average would need to be as steady; None outside 0 … 1."""
    return (2 - weight) / weight if 0 < weight <= 1 else None


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
