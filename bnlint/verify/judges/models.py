"""A whole model: do its two modes compute different things, and which of them does a call of Keras mean?"""

from __future__ import annotations

from collections.abc import Callable

from bnlint.finding import Verdict
from bnlint.verify.judges.common import DEPENDENCE_CONFIRMED, GAP_CONFIRMED, GAP_REFUTED, Facts, Judgement, percent


def judge_model(kind: str, how: str, facts: Facts) -> Judgement:
    """The verdict on the model; ``how`` is that of ``fit-epoch``."""
    judged = _KINDS[kind](facts) if kind in _KINDS else _fitted(how, facts)
    return judged or (Verdict.INCONCLUSIVE, "the measurement gave no finite number")


def _modes(facts: Facts) -> Judgement | None:
    gap, dependence, dropped = facts["gap"], facts["batch_dependence_train"], facts.get("dropout_gap")
    if gap is None or dependence is None:
        return None
    if gap <= GAP_REFUTED and dependence <= DEPENDENCE_CONFIRMED:
        if dropped is not None and dropped > GAP_CONFIRMED:
            return (
                Verdict.CONFIRMED,
                f"the model drops values in train mode: two passes over the same batch are {percent(dropped)} apart",
            )
        return Verdict.REFUTED, f"the model computes the same in both modes: {_why_same(facts)}"
    if gap <= GAP_CONFIRMED or dependence <= DEPENDENCE_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap between the modes of the model, {gap:.1g}, decides nothing"
    return (
        Verdict.CONFIRMED,
        f"the model's output in train mode is {percent(gap)} away from eval mode's, and a sample's changes by "
        f"{percent(dependence)} with its batch-mates{_drift(facts, 'batches of a validation move the running mean')}",
    )


def _as_called(facts: Facts) -> Judgement | None:
    """The claim: without ``training`` the model infers, and learns no statistics."""
    gap, dropped = facts["gap_to_training_true"], facts.get("dropout_gap_training_true")
    if gap is None:
        return None
    if facts["layers_moved_as_called"]:
        moved = f"those of {facts['layers_moved_as_called']} of its {facts['norm_layers']} BatchNormalization layers"
        return Verdict.REFUTED, f"called without training=, the model does move moving statistics: {moved}"
    if gap <= GAP_REFUTED:
        if dropped is not None and dropped > GAP_CONFIRMED and (facts["dropout_gap_as_called"] or 0) <= GAP_REFUTED:
            return Verdict.CONFIRMED, (
                f"called without training=, the model drops nothing; with training=True two calls are "
                f"{percent(dropped)} apart"
            )
        return Verdict.REFUTED, f"the model computes the same with training=True: {_why_same(facts)}"
    if gap <= GAP_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"the gap of the model to training=True, {gap:.1g}, decides nothing"
    return Verdict.CONFIRMED, (
        f"called without training=, the model's output is {percent(gap)} away from that with training=True, and no "
        f"moving statistics move{_drift(facts, 'batches with training=True move the moving mean')}"
    )


def _literal(facts: Facts) -> Judgement | None:
    """The claim: the model depends on the batch where it infers."""
    dependence = facts["batch_dependence"]
    if dependence is None:
        return None
    if dependence <= DEPENDENCE_CONFIRMED:
        return Verdict.REFUTED, f"called to infer, no sample depends on its batch-mates ({dependence:.1g})"
    return Verdict.CONFIRMED, (
        f"called to infer, the model changes a sample's output by {percent(dependence)} with its batch-mates"
        f"{_drift(facts, 'batches of a validation move the moving mean')}"
    )


def _fitted(how: str, facts: Facts) -> Judgement:
    """The claim: ``fit`` leaves moving statistics where they are, or, where the graph says ``training=False``, does
    not."""
    of_all, moved, still = facts["norm_layers"], facts["layers_moved_in_fit"], facts["layers_still_in_fit"]
    if not of_all:
        return Verdict.INCONCLUSIVE, "the model has no BatchNormalization that fit could move"
    if how == "graph-literal-false":
        if moved == of_all:
            return Verdict.CONFIRMED, f"in fit the moving statistics of all {of_all} layers of the model move"
        if not moved:
            return Verdict.REFUTED, f"in fit the moving statistics of all {of_all} layers of the model stay"
        return Verdict.INCONCLUSIVE, f"in fit the moving statistics of {moved} of {of_all} layers of the model move"
    if not still:
        return Verdict.REFUTED, "in fit the moving statistics of all trainable layers of the model move"
    named = ", ".join(still[:3]) + (", …" if len(still) > 3 else "")
    return Verdict.CONFIRMED, (
        f"in fit the moving statistics of {len(still)} of the model's {facts['trainable_norm_layers']} trainable "
        f"layers stay where they are: {named}"
    )


def _drift(facts: Facts, what: str) -> str:
    if not (drift := facts.get("largest_drift")):
        return ""
    return (
        f"; {facts['validation_batches']} {what} in {facts['largest_drift_in']} by {drift:.2g} of its standard "
        f"deviations, and those of {facts['layers_moved']} layers in all"
    )


def _why_same(facts: Facts) -> str:
    if facts["norm_layers"] == 0 and facts["dropout_layers"] == 0:
        return f"none of its {facts['modules']} modules has running statistics or drops anything"
    return "what it has of BatchNorm and Dropout does not show in its output"


_KINDS: dict[str, Callable[[Facts], Judgement | None]] = {
    "mode-gap": _modes,
    "inference-gap": _as_called,
    "tape-step": _as_called,
    "training-literal": _literal,
}
