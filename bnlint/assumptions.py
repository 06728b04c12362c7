"""What is taken for granted about a project beside its code: which versions of the frameworks it runs on."""

from __future__ import annotations

from typing import NamedTuple

Version = tuple[int, ...]


class Versions(NamedTuple):
    """The versions of a framework that a project may run on: from ``lowest`` on, and those before ``below``.

    Either is None where nothing tells. ``source`` says what told, for messages (``the setting keras-version``,
    ``requirements.txt``); it is empty where nothing did.
    """

    lowest: Version | None = None
    below: Version | None = None
    source: str = ""

    def at_least(self, *version: int) -> bool | None:
        """Whether it is this version or a later one; None where it may be or not."""
        if self.lowest is not None and self.lowest >= version:
            return True
        if self.below is not None and self.below <= version:
            return False
        return None


class Assumptions(NamedTuple):
    """``keras_backend`` is ``tensorflow``, ``torch`` or ``jax``; empty where it is not known."""

    torch: Versions = Versions()
    keras: Versions = Versions()
    keras_backend: str = ""


NOTHING_ASSUMED = Assumptions()
