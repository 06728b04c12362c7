"""What the rules about Keras share."""

from __future__ import annotations

from bnlint.rules import _support as support

from bnlint.assumptions import Assumptions
from bnlint.semantics.events import Layer


def is_live(layer: Layer) -> bool:
    """Whether the layer surely is there, and is not and may not be frozen."""
    return layer.certain and not layer.frozen and support.is_mode_dependent(layer.instance)


def assumed(assumptions: Assumptions) -> str:
    """From where it is known that this is Keras 3, or that it is not known."""
    source = assumptions.keras.source
    if assumptions.keras.at_least(3):
        return f"Keras 3 as of {source}"
    return "if this runs on Keras 3, which comes with TensorFlow 2.16 and later"
