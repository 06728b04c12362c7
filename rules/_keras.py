"""What the rules about Keras share."""

from __future__ import annotations

from bnlint.rules import _support as support

from bnlint.assumptions import Assumptions
from bnlint.frameworks.functions import FUNCTIONAL_LITERALS_IGNORED
from bnlint.semantics.events import Forward, GraphCall, Layer, is_exactly
from bnlint.semantics.values import NOTHING, Function, Instance


def is_live(layer: Layer) -> bool:
    """Whether the layer surely is there, and is not and may not be frozen."""
    return layer.certain and not layer.frozen and support.is_mode_dependent(layer.instance)


def called_layer(call: Forward | GraphCall) -> Layer | None:
    """The layer that is itself what is called, if it is live."""
    target = call.target
    if not isinstance(target, Instance) or not support.is_layer(target):
        return None
    return next((layer for layer in call.layers if layer.instance is target and is_live(layer)), None)


def gets_constant(call: Forward | GraphCall, flag: bool) -> bool:
    """Whether ``training`` is surely this constant, as a truth value or as a number."""
    return is_exactly(call.training, flag) or is_exactly(call.training, int(flag))


def is_in_call_with_training(forward: Forward) -> bool:
    """Whether this stands in a ``call`` that has a parameter ``training``."""
    where = forward.where
    if where.functions[-1:] != ("call",) or not where.classes:
        return False
    call = where.classes[-1].attributes.get("call", NOTHING)
    return any(
        isinstance(atom, Function) and any(param.name == "training" for param in atom.node.params) for atom in call
    )


def assumed(assumptions: Assumptions) -> str:
    """From where it is known that this is Keras 3, or that it is not known."""
    source = assumptions.keras.source
    if assumptions.keras.at_least(3):
        return f"Keras 3 as of {source}"
    return "if this runs on Keras 3, which comes with TensorFlow 2.16 and later"


def ignores_literals(assumptions: Assumptions) -> bool:
    """Whether ``fit`` and ``predict`` surely override a ``training`` written into a functional model."""
    since, until = FUNCTIONAL_LITERALS_IGNORED
    return assumptions.keras.at_least(*since) is True and assumptions.keras.at_least(*until) is False
