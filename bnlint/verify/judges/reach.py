"""``fresh-layer``, ``functional-flag``, ``container-reach``, ``training-flag``, ``mode-override``: what does
``eval()`` not get to?"""

from __future__ import annotations

from bnlint.finding import Verdict
from bnlint.verify.judges.common import (
    GAP_CONFIRMED,
    Facts,
    Judgement,
    gap_undecided,
    is_instance_norm,
    percent,
    without_effect,
)


def fresh_layer(facts: Facts) -> Judgement | None:
    judgement = _left_in_train_mode(
        facts, "after eval()", "that of a layer built in __init__", "a layer built in __init__ computes the same"
    )
    return _with_losses(facts, judgement, "a layer built in __init__")


def functional_flag(facts: Facts) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, f"with {facts['mended_by']} it computes the same"):
        return undecided
    gap = percent(facts["gap_to_mended"])
    effect = f"in {facts['mode']} mode its output is {gap} away from that with {facts['mended_by']}"
    if "p" in facts:
        drops = "it still drops values" if facts["mode"] == "eval" else "it drops nothing"
        return Verdict.CONFIRMED, f"{effect}: {drops}"
    moved, mended = facts.get("statistics_moved_as_written"), facts.get("statistics_moved_mended")
    if moved or not mended:
        return Verdict.INCONCLUSIVE, f"{effect}, but the running statistics do not tell why"
    return Verdict.CONFIRMED, f"{effect}: the running statistics stay as they are, and would move by {mended:.2g}"


def container_reach(facts: Facts) -> Judgement | None:
    container = facts["container"]
    if facts["is_registered"]:
        same = f"eval() reaches what is in a {container}"
    else:
        same = f"eval() does not reach what is in a {container}, but the layer computes the same in both modes"
    judgement = _left_in_train_mode(facts, f"kept in a {container}, after eval()", "eval mode's", same)
    return _with_losses(facts, judgement, "one in a ModuleList")


def training_flag(facts: Facts) -> Judgement | None:
    if facts["on_layer"]:
        same = "the flag is the layer's own, and does what eval() does"
    else:
        same = "the layer computes the same in both modes"
    return _left_in_train_mode(facts, "after training = False on the module around it", "eval mode's", same)


def _left_in_train_mode(facts: Facts, when: str, reference: str, same: str) -> Judgement | None:
    if facts["gap_to_mended"] is None:
        return None
    if undecided := gap_undecided(facts, same):
        return undecided
    effect = f"{when} its output is {percent(facts['gap_to_mended'])} away from {reference}"
    if "p" in facts:
        return Verdict.CONFIRMED, f"{effect}: it still drops values"
    if is_instance_norm(facts):
        return Verdict.CONFIRMED, effect
    return without_effect(facts) or (Verdict.CONFIRMED, f"{effect} and depends on the rest of the batch")


def _with_losses(facts: Facts, judgement: Judgement | None, other: str) -> Judgement | None:
    """What is in no ``state_dict`` and no ``parameters()`` is neither saved nor learned, whatever the mode."""
    lost = facts["state_entries_mended"] - facts["state_entries_as_written"]
    if judgement is None or not lost:
        return judgement
    verdict, reason = judgement
    loss = f"state_dict lacks its {lost} entries"
    if verdict is Verdict.CONFIRMED:
        return verdict, f"{reason}; {loss}"
    if verdict is Verdict.REFUTED:
        return Verdict.CONFIRMED, f"its output is that of {other}, but {loss}, so what they learn is lost"
    return judgement


def mode_override(facts: Facts) -> Judgement | None:
    broken = [*_broken(facts, "eval", False), *_broken(facts, "train", True)]
    if not broken:
        return Verdict.REFUTED, "eval() and train() set the mode of all parts and return the module"
    gap = facts.get("gap_to_mended")
    if gap is not None and gap > GAP_CONFIRMED:
        broken.append(f"the output after eval() is {percent(gap)} away from eval mode's")
    return Verdict.CONFIRMED, "; ".join(broken)


def _broken(facts: Facts, method: str, training: bool) -> list[str]:
    """The parts of the contract that the call does not keep."""
    if raises := facts.get(f"{method}_raises"):
        return [f"{method}() raises {raises}"]
    names = {"parent": "the module", "layer": "the layer in it"}
    stale = [name for part, name in names.items() if facts[f"{part}_training_after_{method}"] is not training]
    broken = [] if facts[f"{method}_returns_self"] else [f"{method}() does not return the module"]
    if stale:
        mode = "eval" if training else "train"
        broken.append(f"after {method}() {' and '.join(stale)} {'is' if len(stale) == 1 else 'are'} in {mode} mode")
    return broken
