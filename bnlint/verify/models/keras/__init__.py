"""Models of Keras: what the process needs, and what is measured."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from bnlint.verify.backends.keras import open_backend
from bnlint.verify.backends.keras.rebuilt import keras
from bnlint.verify.models.keras.measure import measure

__all__ = ["measure", "open_framework", "versions"]


def open_framework(device: str) -> str:
    """The device to measure on. Files of weights are not read from here on.

    Raises ``CannotMeasure`` where the device is missing.
    """
    _leave_weights_alone()
    return open_backend(device).device


def versions() -> dict[str, str]:
    return open_backend("cpu").versions


def _leave_weights_alone() -> None:
    def nothing(*arguments: Any, **more: Any) -> str:
        return ""

    keras.Model.load_weights = nothing
    # Where the models of keras.applications get what they download.
    with suppress(ImportError):
        downloading: Any = import_module("keras.src.utils.file_utils")
        downloading.get_file = nothing
