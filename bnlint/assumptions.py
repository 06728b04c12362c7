"""What is taken for granted about a project beside its code: which versions of the frameworks it runs on, and what it
tells bnlint of its own functions and classes.
"""

from __future__ import annotations

from typing import NamedTuple

Version = tuple[int, ...]

#: What a source begins with that is one of bnlint's own settings.
SETTING = "the setting"


class Versions(NamedTuple):
    """The versions of a framework that a project may run on: from ``lowest`` on, and those before ``below``.

    Either is None where nothing tells. ``source`` says what told, for messages (``the setting keras-version``,
    ``requirements.txt``); it is empty where nothing did.
    """

    lowest: Version | None = None
    below: Version | None = None
    source: str = ""

    @property
    def is_set(self) -> bool:
        """Whether the user says so, who knows best."""
        return self.source.startswith(SETTING)

    def at_least(self, *version: int) -> bool | None:
        """Whether it is this version or a later one; None where it may be or not."""
        if self.lowest is not None and self.lowest >= version:
            return True
        if self.below is not None and self.below <= version:
            return False
        return None


class Teaching(NamedTuple):
    """What a project tells of its own code, by names: bare, or with as much of the dotted name as tells them apart.

    ``mode_managers`` are functions, decorators and context managers after which the modes of what they are given are
    not for bnlint to judge. ``managed_classes`` are base classes whose methods a framework runs in the right mode.
    ``batchnorm_classes`` are BatchNorm layers with the framework (``torch``, ``keras``) whose arguments and convention
    of momentum they have. ``model_factories`` build models, with the layers that these own, by their canonical names.
    """

    mode_managers: tuple[str, ...] = ()
    managed_classes: tuple[str, ...] = ()
    batchnorm_classes: tuple[tuple[str, str], ...] = ()
    model_factories: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def names_batchnorm(self, text: str) -> bool:
        """Whether a file may build one of the ``batchnorm_classes``, which rules cannot know by their text."""
        return any(name.rpartition(".")[2] in text for name, _ in self.batchnorm_classes)


NOTHING_TAUGHT = Teaching()


class Assumptions(NamedTuple):
    """``keras_backend`` is ``tensorflow``, ``torch`` or ``jax``; empty where it is not known."""

    torch: Versions = Versions()
    keras: Versions = Versions()
    keras_backend: str = ""
    teaching: Teaching = NOTHING_TAUGHT


NOTHING_ASSUMED = Assumptions()
