"""``fit-epoch`` and ``training-literal``: what ``fit``, and a ``training`` written into a call, make of a layer."""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import (
    CHANGE_CONFIRMED,
    GAP_TOLERANCE,
    Facts,
    Judgement,
    gap_undecided,
    percent,
    without_effect,
)

FIT_TOLERANCE = f"the larger change: confirmed above {CHANGE_CONFIRMED:g}; the smaller is to be exactly 0"
LITERAL_TOLERANCE = GAP_TOLERANCE

# What is wrong here is that the layer learns; elsewhere that it does not.
_MOVES = frozenset({"graph-literal-false", "frozen-after-fit"})


def fit_epoch(facts: Facts) -> Judgement | None:
    name = "statistics_moved" if "statistics_moved_mended" in facts else "output_change"
    written, mended = facts[f"{name}_as_written"], facts[f"{name}_mended"]
    if written is None or mended is None:
        return None
    normalises = name == "statistics_moved"
    still = "the moving statistics stay where they are" if normalises else "nothing is dropped"
    moved = "the moving statistics move by" if normalises else "the output is off by"
    wrong, right = (written, mended) if facts["how"] in _MOVES else (mended, written)
    cause = "the layer is not trainable: " if facts.get("trainable") is False else ""
    if right > 0 or wrong == 0:
        if written == 0:
            return Verdict.REFUTED, f"{cause}in fit {still}, and with {facts['mended_by']} too"
        return Verdict.REFUTED, f"in fit {moved} {written:.2g}, and with {facts['mended_by']} {mended:.2g}"
    if wrong <= CHANGE_CONFIRMED:
        return Verdict.INCONCLUSIVE, f"a change of only {wrong:.1g} decides nothing"
    if facts["how"] in _MOVES:
        return Verdict.CONFIRMED, f"in fit {moved} {written:.2g}; with {facts['mended_by']} they stay where they are"
    return Verdict.CONFIRMED, f"in fit {still}; with {facts['mended_by']} {moved} {mended:.2g}"


def training_literal(facts: Facts) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, "the output is the same with training=False"):
        return undecided
    effect = f"with training=True the output is {percent(facts['gap_to_mended'])} away from that with training=False"
    if "batch_dependence_as_written" not in facts:
        return Verdict.CONFIRMED, f"{effect}: it drops values"
    if undecided := without_effect(facts):
        return undecided
    moved = facts["statistics_moved_as_written"]
    drift = f"; each call moves the moving statistics by {moved:.2g}" if moved else ""
    return Verdict.CONFIRMED, f"{effect} and depends on the rest of the batch{drift}"
