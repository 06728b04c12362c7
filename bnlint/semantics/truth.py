"""What is true of constants, and of tests whose parts are not all known."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "is": operator.is_,
    "is not": operator.is_not,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compared(left: Any, op: str, right: Any) -> bool | None:
    """The outcome of comparing two constants; None where they cannot be, or the operator is another."""
    try:
        return bool(_COMPARISONS[op](left, right)) if op in _COMPARISONS else None
    except TypeError:
        return None


def any_of(truths: Iterable[bool | None]) -> bool | None:
    """Whether one of them holds; None where that depends on those that are not known (Kleene's strong logic)."""
    found = set(truths)
    return True if True in found else None if None in found else False


def all_of(truths: Iterable[bool | None]) -> bool | None:
    """Whether all of them hold; None where that depends on those that are not known."""
    return negated(any_of(map(negated, truths)))


def negated(truth: bool | None) -> bool | None:
    return None if truth is None else not truth
