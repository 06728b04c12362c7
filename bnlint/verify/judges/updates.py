"""``checkpoint-updates``, ``noise-run``, ``shared-statistics`` and ``stats-dropped``: how often are running statistics
updated, with which data, and what is left of them?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import Facts, Judgement, gap_undecided, percent

# How much further the statistics move than with the layer run once: 1.9 times at the default momentum, and 2 - m times
# in general; a layer that is run once moves exactly as far.
FURTHER_CONFIRMED = 1.01
UPDATES_TOLERANCE = f"statistics_moved: confirmed above {FURTHER_CONFIRMED:g} times that of one update, refuted at it"


def checkpoint_updates(facts: Facts) -> Judgement | None:
    if facts.get("tracks_running_stats") is not True:
        return Verdict.REFUTED, "no running statistics, so none that could be updated twice"
    written, mended = facts["statistics_moved_as_written"], facts["statistics_moved_mended"]
    if written is None or mended is None:
        return None
    if written <= mended:
        return Verdict.REFUTED, "the running statistics move no further than without the checkpoint"
    if written <= FURTHER_CONFIRMED * mended:
        return Verdict.INCONCLUSIVE, f"the running statistics move only {written / mended:.4g} times as far"
    counted = facts.get("batches_counted_as_written")
    counts = "" if counted is None else f"one step counts {counted} batches, and "
    return Verdict.CONFIRMED, (
        f"{counts}moves the running statistics by {written:.3g} instead of {mended:.3g} without the checkpoint"
    )


def shared_statistics(facts: Facts) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, "a layer for each input computes the same"):
        return undecided
    effect = f"its output in eval mode is {percent(facts['gap_to_mended'])} away from that of a layer of its own"
    written, mended = facts["gap_to_train_mode_as_written"], facts["gap_to_train_mode_mended"]
    if written is None or mended is None:
        return None
    if written <= mended:
        return Verdict.INCONCLUSIVE, f"{effect}, but as near to train mode's"
    return Verdict.CONFIRMED, f"{effect}; it is {percent(written)} away from train mode's, instead of {percent(mended)}"


def noise_run(facts: Facts) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, "a run in train mode leaves no trace in eval mode"):
        return undecided
    gap = percent(facts["gap_to_mended"])
    return Verdict.CONFIRMED, f"after one batch of noise its output in eval mode is {gap} away from what it was"


def stats_dropped(facts: Facts) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, "a layer that is given the whole state computes the same"):
        return undecided
    return Verdict.CONFIRMED, (
        f"its output in eval mode is {percent(facts['gap_to_mended'])} away from that of a layer with its statistics"
    )
