"""Measurements -> verdict and reason, over all layers of an experiment; pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnlint.finding import Verdict
from bnlint.verify.fixture import plain
from bnlint.verify.judges import (
    averaging,
    exporting,
    fitting,
    graphs,
    hyperparameters,
    modes,
    neighbours,
    porting,
    reach,
    training,
    updates,
)
from bnlint.verify.judges.common import GAP_TOLERANCE, MODES_TOLERANCE, Facts, Judgement


@dataclass(frozen=True)
class Kind:
    """How a kind of experiment is judged, and its thresholds in words, which go with the measurements."""

    judge: Callable[[Facts], Judgement | None]
    tolerance: str = GAP_TOLERANCE


KINDS: dict[str, Kind] = {
    "mode-gap": Kind(modes.mode_gap, MODES_TOLERANCE),
    "eval-dependence": Kind(modes.eval_dependence, modes.DEPENDENCE_TOLERANCE),
    "batch-of-one": Kind(modes.batch_of_one, modes.SINGLE_TOLERANCE),
    "inference-gap": Kind(modes.inference_gap, MODES_TOLERANCE),
    "tape-step": Kind(modes.tape_step, modes.CHANGE_TOLERANCE),
    "fit-epoch": Kind(fitting.fit_epoch, fitting.FIT_TOLERANCE),
    "training-literal": Kind(fitting.training_literal, fitting.LITERAL_TOLERANCE),
    "momentum-memory": Kind(hyperparameters.momentum_memory, hyperparameters.MEMORY_TOLERANCE),
    "degenerate-momentum": Kind(hyperparameters.degenerate_momentum, hyperparameters.DEGENERATE_TOLERANCE),
    "half-statistics": Kind(hyperparameters.half_statistics, hyperparameters.ROUNDED_TOLERANCE),
    "eps-gap": Kind(hyperparameters.eps_gap, hyperparameters.EPS_TOLERANCE),
    "eps-carried": Kind(porting.eps_carried, porting.CARRIED_TOLERANCE),
    "weights-order": Kind(porting.weights_order),
    "second-epoch": Kind(training.second_epoch, training.STILL_TOLERANCE),
    "mode-in-forward": Kind(training.mode_in_forward, training.STILL_TOLERANCE),
    "freeze-drift": Kind(training.freeze_drift, training.DRIFT_TOLERANCE),
    "mc-dropout": Kind(training.mc_dropout),
    "fresh-layer": Kind(reach.fresh_layer),
    "functional-flag": Kind(reach.functional_flag),
    "container-reach": Kind(reach.container_reach),
    "training-flag": Kind(reach.training_flag),
    "mode-override": Kind(reach.mode_override, "exact: exceptions, return values and flags"),
    "trace-parity": Kind(exporting.trace_parity),
    "export-parity": Kind(exporting.export_parity),
    "ema-buffers": Kind(averaging.ema_buffers),
    "checkpoint-updates": Kind(updates.checkpoint_updates, updates.UPDATES_TOLERANCE),
    "noise-run": Kind(updates.noise_run),
    "shared-statistics": Kind(updates.shared_statistics),
    "stats-dropped": Kind(updates.stats_dropped),
    "always-training": Kind(graphs.always_training),
    "update-ops": Kind(graphs.update_ops),
    "swa-buffers": Kind(averaging.swa_buffers, averaging.SWA_TOLERANCE),
    "axis-layout": Kind(neighbours.axis_layout, neighbours.EXACT),
    "bias-gradient": Kind(neighbours.bias_gradient, neighbours.GRADIENT_TOLERANCE),
    "dropout-shift": Kind(neighbours.dropout_shift, neighbours.SHIFT_TOLERANCE),
    "norm-fit": Kind(neighbours.norm_fit, neighbours.RAISES),
}


def judge(kind: str, layers: Sequence[Facts]) -> Judgement:
    """One verdict over all layers: confirmed if one is, refuted only if every one is."""
    judged = [(_judge_layer(kind, facts), facts) for facts in layers]
    for verdict in (Verdict.CONFIRMED, Verdict.INCONCLUSIVE, Verdict.REFUTED):
        alike = [(reason, facts) for (its, reason), facts in judged if its is verdict]
        if alike:
            reason, facts = max(alike, key=lambda pair: _effect(pair[1]))
            return verdict, f"{facts['layer']}: {reason}{_others(verdict, len(alike), len(judged))}"
    return Verdict.INCONCLUSIVE, "nothing was measured"


def reported(kind: str, layers: Sequence[Facts]) -> dict[str, Any]:
    """The measurements of the layer that the verdict speaks of, and how many layers were measured."""
    measured = [facts for facts in layers if "error" not in facts]
    if not measured:
        return {}
    verdict, _ = judge(kind, layers)
    telling = [facts for facts in measured if _judge_layer(kind, facts)[0] is verdict] or measured
    largest = {name: value for name, value in max(telling, key=_effect).items() if name != "fallback"}
    if isinstance(weight := largest.get("new_batch_weight"), (int, float)):
        largest["expected_ratio"] = plain(hyperparameters.expected_ratio(weight))
        largest["effective_batches"] = plain(hyperparameters.effective_batches(weight))
    largest["tolerance"] = KINDS[kind].tolerance
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
        "gap_to_mended",
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
    # A number that is not finite is carried as None, and compares with nothing.
    return KINDS[kind].judge(facts) or (Verdict.INCONCLUSIVE, "the measurement gave no finite number")
