"""``trace-parity`` and ``export-parity``: is what was made of the module what eval mode computes?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import (
    Facts,
    Judgement,
    gap_undecided,
    is_instance_norm,
    percent,
    without_effect,
)


def trace_parity(facts: Facts) -> Judgement | None:
    if refused := _refused(facts, "torch.jit.trace"):
        return refused
    judgement = _compared(
        facts, "traced in train mode and then put in eval mode", "the trace computes what eval mode does"
    )
    moved = facts.get("statistics_moved_by_tracing")
    if judgement is None or judgement[0] is not Verdict.CONFIRMED or not moved:
        return judgement
    return Verdict.CONFIRMED, f"{judgement[1]}; tracing alone moves the running statistics by {moved:.2g}"


def export_parity(facts: Facts) -> Judgement | None:
    name = facts["exporter"]
    if refused := _refused(facts, name):
        return refused
    same = f"what {name} makes of it in train mode computes what eval mode does"
    judgement = _compared(facts, f"exported in train mode by {name}", same)
    if judgement is None or judgement[0] is not Verdict.CONFIRMED or "eval_afterwards" not in facts:
        return judgement
    return Verdict.CONFIRMED, f"{judgement[1]}; eval() on the result raises {facts['eval_afterwards']}"


def _refused(facts: Facts, name: str) -> Judgement | None:
    if "raises_mended" in facts:
        return Verdict.INCONCLUSIVE, f"{name} cannot take it in eval mode either: {facts['raises_mended']}"
    if "raises" in facts:
        return Verdict.CONFIRMED, f"{name} raises in train mode, and not in eval mode: {facts['raises']}"
    return None


def _compared(facts: Facts, made: str, same: str) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, same):
        return undecided
    effect = f"{made}, its output is {percent(facts['gap_to_mended'])} away from eval mode's"
    if "p" in facts:
        return Verdict.CONFIRMED, f"{effect}: it still drops values"
    if is_instance_norm(facts):
        return Verdict.CONFIRMED, effect
    return without_effect(facts) or (Verdict.CONFIRMED, f"{effect} and depends on the rest of the batch")
