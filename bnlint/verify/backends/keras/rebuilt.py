"""A layer as the source builds it, the input it is run on, and how outputs are compared."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

from bnlint.experiment import CHOSEN_FEATURES, LayerSpec, Scalar
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts

keras: Any = import_module("keras")
np: Any = import_module("numpy")
Array = Any
Layer = Any

BACKEND: str = keras.backend.backend()
#: None on the torch backend.
tf: Any = import_module("tensorflow") if BACKEND == "tensorflow" else None

#: Dimensions of the layer's input, batch and channels included.
RANK = {
    "BatchNormalization": 4,
    "Dropout": 4,
    "GaussianDropout": 4,
    "SpatialDropout1D": 3,
    "SpatialDropout2D": 4,
    "SpatialDropout3D": 5,
}
EXTENT = 4


class Rebuilt:
    """A layer as the source builds it, as often as fresh copies of it are needed.

    ``shape`` is the source's own input shape; without it one is chosen, with ``features`` channels and ``extent``
    values along all other axes.
    """

    def __init__(
        self,
        spec: LayerSpec,
        shape: tuple[int, ...] = (),
        features: int = CHOSEN_FEATURES,
        extent: int = EXTENT,
    ) -> None:
        self.spec = spec
        self.name = spec.kind.removeprefix("keras.layers.")
        if self.name not in RANK or not spec.kind.startswith("keras.layers."):
            raise CannotMeasure(f"{spec.kind} is no layer that can be rebuilt")
        self.arguments = dict(spec.arguments)
        self.chosen = [*spec.chosen, *([] if shape else [f"channels={features}"])]
        self.axis = self._axis()
        self.shape = shape or self.shape_of(features, extent)

    @property
    def normalises(self) -> bool:
        return self.name == "BatchNormalization"

    def fresh(self, **changes: Scalar) -> Layer:
        """A new layer with its initial statistics."""
        keras.utils.set_random_seed(fixture.SEED)  # for what Dropout draws
        layer = self.unbuilt(**changes)
        layer.build(self.shape)
        return layer

    def unbuilt(self, **changes: Scalar) -> Layer:
        """A new layer without weights, which cost most of what a layer costs."""
        return getattr(keras.layers, self.name)(**{**self.arguments, **changes})

    def input(self) -> Array:
        return normal(np.random.default_rng(fixture.SEED), self.shape)

    def facts(self, x: Array) -> Facts:
        return {
            "dtype": "float32",
            "seed": fixture.SEED,
            "chosen": self.chosen,
            "input": f"{fixture.shape_text(x.shape)}, normal, mean {x.mean():.2g}, sd {x.std():.2g}",
            "trainable": bool(self.unbuilt().trainable),
        }

    def facts_of_each(self) -> list[Facts]:
        """The conditions for each of the layers that this one stands for: itself alone, unless it is a ``Stack``."""
        return [self.facts(self.input())]

    def each(self, values: Array, axis: int | None = None) -> list[Array]:
        """The part of each of these layers in an output, or in what has its channels along ``axis``."""
        return [values]

    def channel_means(self, x: Array) -> Array:
        others = tuple(axis for axis in range(x.ndim) if axis != self.axis % x.ndim)
        return x.mean(others)

    def movements(self, before: Array, layer: Layer) -> list[float]:
        """The largest change of a moving statistic since ``before``, for each of these layers."""
        sides = (self.each(values, axis=-1) for values in (before, statistics(layer)))
        return [movement(was, now) for was, now in zip(*sides, strict=True)]

    def _axis(self) -> int:
        axis = self.arguments.get("axis", -1)
        # What is no axis at all is left to Keras to reject.
        return axis if isinstance(axis, int) and axis != 0 and abs(axis) <= 8 else -1

    def shape_of(self, features: int, extent: int) -> tuple[int, ...]:
        rank = max(RANK[self.name], self.axis + 1, 1 - self.axis)
        shape = [fixture.BATCH, *[extent] * (rank - 1)]
        shape[self.axis] = features
        return tuple(shape)


def call(layer: Layer, x: Array, **arguments: bool) -> Array:
    return numpy(layer(x, **arguments))


def numpy(value: Any) -> Array:
    array = keras.ops.convert_to_numpy(value) if hasattr(keras, "ops") else value.numpy()
    return array.astype("float64")


def statistics(layer: Layer) -> Array:
    return np.stack([numpy(layer.moving_mean), numpy(layer.moving_variance)])


def movement(before: Array, after: Array) -> float:
    """The largest change of a moving statistic."""
    return float(np.abs(after - before).max())


def dependence(whole: Array, part: Array) -> float:
    """How far the first samples move, relative to the largest output, when the rest of the batch is absent."""
    return float(np.abs(whole[: len(part)] - part).max() / np.abs(whole).max())


def normal(rng: Any, shape: tuple[int, ...]) -> Array:
    return rng.normal(fixture.INPUT_MEAN, fixture.INPUT_SD, shape).astype("float32")


def relative(actual: Array, reference: Array) -> float:
    """L2 norm of the difference over that of the reference."""
    difference = float(np.linalg.norm((actual - reference).ravel()))
    norm = float(np.linalg.norm(reference.ravel()))
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def converged(layer: Layer) -> Layer:
    """The layer with statistics that fit the data it is given here."""
    layer.moving_mean.assign(np.full(layer.moving_mean.shape, fixture.INPUT_MEAN, "float32"))
    layer.moving_variance.assign(np.full(layer.moving_variance.shape, fixture.INPUT_SD**2, "float32"))
    return layer
