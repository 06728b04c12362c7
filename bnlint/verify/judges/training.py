"""``second-epoch``, ``mode-in-forward``, ``freeze-drift`` and ``mc-dropout``: which batches move the statistics?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import (
    GAP_REFUTED,
    GAP_TOLERANCE,
    Facts,
    Judgement,
    gap_undecided,
    is_instance_norm,
    percent,
    without_effect,
)

# Change of the running statistics over a whole training, relative to their norm: 1.2 at the default momentum and
# 0.02 at 0.0003, the smallest in use (MNASNet's); a frozen layer leaves them exactly as they are.
DRIFT_CONFIRMED = 1e-3
DRIFT_TOLERANCE = (
    f"relative_drift: confirmed above {DRIFT_CONFIRMED:g}, refuted at 0 with a gap_to_mended up to {GAP_REFUTED:g}"
)
STILL_TOLERANCE = f"{GAP_TOLERANCE}; statistics that stay are to do so exactly"


def second_epoch(facts: Facts) -> Judgement | None:
    same = "with train() before the second epoch it computes the same"
    return _trained_in_eval_mode(facts, "in the second epoch", "with train() before it", same)


def mode_in_forward(facts: Facts) -> Judgement | None:
    same = f"without {facts['method']}() in forward it computes the same"
    if facts["method"] == "eval":
        return _trained_in_eval_mode(facts, "in training", "without eval() in forward", same)
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, same):
        return undecided
    gap = percent(facts["gap_to_mended"])
    effect = f"evaluated in eval mode its output is {gap} away from that without train() in forward"
    if "p" in facts:
        return Verdict.CONFIRMED, f"{effect}: it drops values"
    return Verdict.CONFIRMED, f"{effect}{_moved(facts, 'as_written', '; the running statistics move by')}"


def _trained_in_eval_mode(facts: Facts, when: str, mended: str, same: str) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, same):
        return undecided
    apart = f"its output is {percent(facts['gap_to_mended'])} away from train mode's"
    if "p" in facts:
        change = facts["output_change_as_written"]
        if change is None:
            return None
        if change > GAP_REFUTED:
            return Verdict.REFUTED, f"{when} it does drop values"
        return Verdict.CONFIRMED, f"{when} it drops nothing; {apart}"
    moved = facts["statistics_moved_as_written"]
    if moved is None:
        return None
    if moved > 0:
        return Verdict.REFUTED, f"{when} the running statistics do move (by {moved:.2g})"
    counted = facts.get("batches_counted_as_written")
    of_all = "" if counted is None else f"{counted} of {facts['batches']} batches are counted and "
    return Verdict.CONFIRMED, (
        f"{when} {of_all}the running statistics stay as they are"
        f"{_moved(facts, 'mended', f'; {mended} they move by')}; {apart}"
    )


def freeze_drift(facts: Facts) -> Judgement | None:
    if facts.get("tracks_running_stats") is not True:
        besides = "; that it drops values again is another matter" if facts["gap_to_mended"] else ""
        return Verdict.REFUTED, f"no running statistics, so none that could drift{besides}"
    drift, gap = facts["relative_drift_as_written"], facts["gap_to_mended"]
    if drift is None or gap is None:
        return None
    if drift > DRIFT_CONFIRMED:
        return Verdict.CONFIRMED, (
            f"{_cause(facts)}: over {facts['batches']} batches its running statistics drift by {percent(drift)}, and "
            f"its output is {percent(gap)} away from that of the frozen layer"
        )
    if drift == 0 and gap <= GAP_REFUTED:
        return Verdict.REFUTED, f"frozen, its running statistics stay as they are over {facts['batches']} batches"
    if drift == 0:
        return Verdict.INCONCLUSIVE, (
            f"its running statistics never move, but its output is {percent(gap)} away from that of the frozen layer"
        )
    return Verdict.INCONCLUSIVE, f"its running statistics drift by only {drift:.1g}"


def _cause(facts: Facts) -> str:
    if facts["how"] == "requires-grad":
        return "requires_grad = False leaves it in train mode"
    return "train() puts it in train mode again" if facts["how"] == "eval-then-train" else "it is not frozen"


def mc_dropout(facts: Facts) -> Judgement | None:
    if "p" in facts:
        return Verdict.REFUTED, "no batch statistics: train() makes it drop values, as is meant"
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, "it computes the same in both modes"):
        return undecided
    effect = f"with all dropout at p = 0 its output is {percent(facts['gap_to_mended'])} away from eval mode's"
    if not is_instance_norm(facts):
        if nothing := without_effect(facts):
            return nothing
        effect += " and depends on the rest of the batch"
    return Verdict.CONFIRMED, f"{effect}{_moved(facts, 'as_written', '; sampling moves the running statistics by')}"


def _moved(facts: Facts, side: str, words: str) -> str:
    moved = facts.get(f"statistics_moved_{side}")
    return f"{words} {moved:.2g}" if moved else ""
