"""What a file means: names, values, modes, and the events that rules read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnlint.semantics.analysis import analyse
    from bnlint.semantics.events import FileFacts

__all__ = ["FileFacts", "analyse"]


def __getattr__(name: str) -> object:
    """The interpreter takes a while to import, and rules need only the events."""
    if name == "analyse":
        from bnlint.semantics.analysis import analyse

        return analyse
    if name == "FileFacts":
        from bnlint.semantics.events import FileFacts

        return FileFacts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
