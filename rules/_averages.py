"""What the rules on averaged copies of a model have in common: whether anything renews their running statistics."""

from __future__ import annotations

from bnlint.rules import _support as support

from bnlint.semantics.events import FileFacts, Layer
from bnlint.semantics.intent import words

#: What renews the statistics of a copy, for the text of statements.
RENEWING_MARKS = (
    r"(?i:(?:\b|_)(?:bn|batch_?norm)s?_?(?:update|stats)|"
    r"(?:update|reset|refresh|recompute|recalibrate|re_?estimate|precise|calibrate|adapt)_?"
    r"(?:(?:bn|batch_?norm)|running_|stats\b|statistics\b))|running_(?:mean|var)\b"
)
_NORMS = frozenset({"bn", "bns", "batchnorm", "norm", "norms"})
_RENEWING = frozenset(
    {"update", "reset", "refresh", "recompute", "recalibrate", "reestimate", "estimate", "precise", "calibrate",
     "adapt", "stats", "statistics"}
)  # fmt: skip


def renews_statistics(file: FileFacts) -> bool:
    """Whether the program calls ``update_bn`` or its kin, or handles running statistics by name."""
    if {"running_mean", "running_var"} & file.named:
        return True
    return any(words(name) & _NORMS and words(name) & _RENEWING for name in file.named)


def batch_norms(layers: list[Layer]) -> list[Layer]:
    """The layers that have running statistics."""
    return [
        layer for layer in layers if support.is_batchnorm(layer.instance) and support.is_mode_dependent(layer.instance)
    ]
