"""Which input a Keras model takes: told by the model where it has inputs of its own, else by its first layers.

Layers of Keras take as many channels as they are given when they are first called, and keep to that. So each shape is
tried on a model of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure
from bnlint.verify.backends.keras.rebuilt import Array, keras, np, numpy
from bnlint.verify.fixture import one_line, shape_text

#: Sides of images, lengths of sequences and extents of volumes, in the order in which they are tried.
_SIDES = (32, 64, 28, 224, 96, 128, 256, 299, 16, 8)
_LENGTHS = (16, 64, 128, 256, 1024)
_EXTENTS = (16, 32, 8)
_CHANNELS = (3, 1, 16)
_FEATURES = (16, 64, 128, 784)
#: By how the names of layers end, the shapes of one sample that they may take.
_OF_RANK: dict[str, list[tuple[int, ...]]] = {
    "1D": [(length, _CHANNELS[2]) for length in _LENGTHS],
    "2D": [(side, side, channels) for channels in _CHANNELS[:2] for side in _SIDES],
    "3D": [(extent, extent, extent, channels) for channels in _CHANNELS[:2] for extent in _EXTENTS],
}
_ALL: list[tuple[int, ...]] = [
    *((features,) for features in _FEATURES),
    *_OF_RANK["2D"][:4],
    *_OF_RANK["1D"][:2],
    (28, 28),
]


@dataclass(frozen=True)
class Inputs:
    """What a model is called on: the shape of one sample of each input, and how many indices there are where it is
    made of those (else 0). ``listed`` says that several inputs are one argument."""

    shapes: tuple[tuple[int, ...], ...]
    vocabulary: int
    listed: bool

    def draw(self, seed: int, mean: float = 0.0, count: int = fixture.BATCH) -> list[Array]:
        """Samples, normal with this mean and sd 1, or random indices."""
        rng = np.random.default_rng(fixture.SEED + seed)
        if self.vocabulary:
            return [rng.integers(0, self.vocabulary, (count, *shape)) for shape in self.shapes]
        return [rng.normal(mean, 1.0, (count, *shape)).astype("float32") for shape in self.shapes]

    def given(self, batch: list[Array]) -> tuple[Any, ...]:
        """The arguments of a call."""
        return (batch,) if self.listed else tuple(batch)

    def described(self) -> str:
        content = "random indices" if self.vocabulary else "normal, mean 0, sd 1"
        return " and ".join(f"{shape_text((fixture.BATCH, *shape))}, {content}" for shape in self.shapes)


def find_input(build: Callable[[], Any]) -> tuple[Any, Inputs]:
    """A model that has been called, and the inputs that it took. Raises ``CannotMeasure`` where none is found."""
    model = build()
    failure = "it has no layers"
    for inputs in _candidates(model):
        try:
            outputs(model(*inputs.given(inputs.draw(0, count=2)), training=False))
        except CannotMeasure as error:
            failure = str(error)
        except Exception as error:  # this shape is not the one
            failure = one_line(error)
        else:
            return model, inputs
        model = build()
    raise CannotMeasure(f"no input was found that it takes (the last try: {failure})")


def outputs(result: Any) -> Array:
    """What a model returns as one matrix: a row for each sample. Raises ``CannotMeasure``."""
    found = [numpy(tensor) for tensor in keras.tree.flatten(result) if tensor is not None]
    rows = {len(array) if array.ndim else 0 for array in found}
    if len(rows) != 1 or 0 in rows:
        raise CannotMeasure("its output has no row for each sample")
    return np.concatenate([array.reshape(len(array), -1) for array in found], 1)


def leaves(model: Any) -> list[Any]:
    """The layers that are made of no other layers."""
    return [layer for layer in model._flatten_layers() if not list(layer._flatten_layers(include_self=False))]


def _candidates(model: Any) -> Iterator[Inputs]:
    layers = leaves(model)
    vocabulary = min((layer.input_dim for layer in layers if type(layer).__name__ == "Embedding"), default=0)
    if getattr(model, "inputs", None):
        yield from _told(model.inputs, vocabulary)
        return
    needed = _needed(model)
    if vocabulary:
        shapes: list[tuple[int, ...]] = [(length,) for length in _LENGTHS]
    else:
        shapes = next((_OF_RANK[rank] for layer in layers if (rank := _rank(layer)) in _OF_RANK), _ALL)
    yield from (Inputs((shape,) * needed, vocabulary, False) for shape in shapes)


def _told(tensors: list[Any], vocabulary: int) -> Iterator[Inputs]:
    """The inputs that a model was built on, sizes that it leaves open being tried."""
    shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
    is_open = any(size is None for shape in shapes for size in shape)
    for chosen in _SIDES if is_open else (0,):
        closed = tuple(tuple(chosen if size is None else int(size) for size in shape) for shape in shapes)
        yield Inputs(closed, vocabulary, len(shapes) > 1)


def _rank(layer: Any) -> str:
    """1D, 2D or 3D where a layer takes nothing but signals, images or volumes."""
    name = type(layer).__name__
    return "1D" if isinstance(layer, keras.layers.RNN) else name[-2:] if name[-2:] in _OF_RANK else ""


def _needed(model: Any) -> int:
    """How many inputs ``call`` needs."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p for p in inspect.signature(model.call).parameters.values() if p.name not in ("training", "mask")]
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return max(1, len(needed))
