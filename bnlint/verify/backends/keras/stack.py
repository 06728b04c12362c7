"""Many layers that differ in their momentum and epsilon alone, measured at once.

BatchNorm treats each channel by itself, and Keras multiplies and adds momentum and epsilon to values that it has for
each channel. So one layer with the channels of all of them, and with their momenta and epsilons in place of its own,
does to the input of each what that layer does. That this Keras, on this engine, does it that way is not taken for
granted: the layer in the middle of a stack is measured by itself too, and where it gets other numbers so is everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

from bnlint.experiment import CHOSEN_FEATURES, LayerSpec, Scalar
from bnlint.verify.backends import Facts
from bnlint.verify.backends.keras.rebuilt import EXTENT, Array, Layer, Rebuilt, keras, np, tf

#: Layers in one stack at most: what they need of memory grows with them.
MOST = 1024
#: How far, relative to the number, what the layer in the middle gets by itself may be from what it gets there.
CLOSE = 1e-5
#: Numbers below this one may be as far apart as this one may: what is left of them is rounding in single precision.
_SMALL = 1e-3
_VARYING = ("momentum", "epsilon")


class Stack(Rebuilt):
    """The layers side by side along the channels. ``alone`` are the layers themselves."""

    def __init__(self, specs: Sequence[LayerSpec], features: int = CHOSEN_FEATURES, extent: int = EXTENT) -> None:
        super().__init__(specs[0], features=features, extent=extent)
        self.alone = [Rebuilt(spec, features=features, extent=extent) for spec in specs]
        self._features = features
        self.shape = self.shape_of(features * len(specs), extent)

    @cached_property
    def hyperparameters(self) -> tuple[Array, Array]:
        """The momenta and epsilons that the layers themselves have."""
        layers = [rebuilt.unbuilt() for rebuilt in self.alone]
        return np.array([float(layer.momentum) for layer in layers]), np.array([float(its.epsilon) for its in layers])

    def fresh(self, **changes: Scalar) -> Layer:
        layer = super().fresh(**changes)
        along = [1] * len(self.shape)
        along[self.axis] = -1
        momenta, epsilons = (np.repeat(values, self._features) for values in self.hyperparameters)
        layer.momentum, layer.epsilon = _operand(momenta), _operand(epsilons.reshape(along).astype("float32"))
        return layer

    def input(self) -> Array:
        return np.concatenate([self.alone[0].input()] * len(self.alone), self.axis)

    def facts_of_each(self) -> list[Facts]:
        conditions = self.alone[0].facts(self.alone[0].input())
        return [{**conditions, "chosen": rebuilt.chosen} for rebuilt in self.alone]

    def each(self, values: Array, axis: int | None = None) -> list[Array]:
        return list(np.split(values, len(self.alone), self.axis if axis is None else axis))


def measure_together(specs: Sequence[LayerSpec], measure_each: Callable[[Rebuilt], list[Facts]]) -> list[Facts | None]:
    """The facts for each of the layers; None for one that has to be measured by itself."""
    facts: list[Facts | None] = [None] * len(specs)
    for numbers in _alike(specs):
        # Whatever is wrong with these layers is met again by one of them alone.
        with suppress(Exception):
            measured = measure_each(Stack([specs[number] for number in numbers]))
            middle = len(numbers) // 2
            (alone,) = measure_each(Rebuilt(specs[numbers[middle]]))
            if _agree(measured[middle], alone):
                for number, its in zip(numbers, measured, strict=True):
                    facts[number] = its
    return facts


def _alike(specs: Sequence[LayerSpec]) -> Iterator[list[int]]:
    """The places of those that can be stacked, two at least in each lot."""
    alike: dict[str, list[int]] = {}
    for number, spec in enumerate(specs):
        momentum, epsilon = spec.arguments.get("momentum", 0.5), spec.arguments.get("epsilon", 0.5)
        is_sound = isinstance(momentum, float) and 0 < momentum < 1 and isinstance(epsilon, float) and epsilon > 0
        if spec.kind == "keras.layers.BatchNormalization" and is_sound:
            others = {name: value for name, value in spec.arguments.items() if name not in _VARYING}
            alike.setdefault(repr(sorted(others.items())), []).append(number)
    for numbers in alike.values():
        for start in range(0, len(numbers), MOST):
            if len(some := numbers[start : start + MOST]) > 1:
                yield some


def _operand(values: Array) -> Array:
    """What a layer can compute with in place of a Python number: momenta are rounded after ``1 - momentum`` only."""
    return values if tf is not None else keras.ops.convert_to_tensor(values)


def _agree(one: Facts, other: Facts) -> bool:
    return one.keys() == other.keys() and all(_is_close(value, other[name]) for name, value in one.items())


def _is_close(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= CLOSE * max(abs(one), abs(other), _SMALL)
    return one == other
