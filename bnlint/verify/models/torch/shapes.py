"""Which input a model takes: told from its first layer, the rest by trying.

The first layer with parameters tells the rank and the channels of the input, or that it is made of indices. How large
it must be, layers further on decide; sizes are tried, those that models are most often made for first, until a forward
pass in eval mode succeeds.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure
from bnlint.verify.fixture import one_line

#: Sides of images, lengths of sequences, and extents of volumes, in the order in which they are tried.
_SIDES = (32, 64, 28, 224, 96, 128, 256, 299, 48, 16, 8)
_LENGTHS = (64, 16, 256, 1024, 100, 784, 4096, 16000)
_EXTENTS = (16, 32, 8)
_DIMENSIONS = {1: _LENGTHS, 2: _SIDES, 3: _EXTENTS}
#: Values of one input beyond which it is not tried: a batch of it would not fit, or take too long.
_MOST = 1_000_000


def find_input(model: Any, device: str) -> list[Any]:
    """A batch of ``fixture.BATCH`` samples that the model takes, normal with mean 0 and sd 1, for each of its inputs.

    Several inputs are tried with one shape for all. Raises ``CannotMeasure`` where none is found.
    """
    needed = _inputs(model)
    if not needed:
        raise CannotMeasure("its forward() takes no input")
    of_all = f", of {needed} inputs with one shape," if needed > 1 else ""
    model.eval()
    failure = "it has no layer with parameters"
    for shape, vocabulary in _candidates(model):
        generator = torch.Generator().manual_seed(fixture.SEED)
        whole = (fixture.BATCH, *shape)
        batch = [
            torch.randint(0, vocabulary, whole, generator=generator)
            if vocabulary
            else torch.randn(whole, generator=generator)
            for _ in range(needed)
        ]
        try:
            with torch.no_grad():
                outputs(model(*(each[:2].to(device) for each in batch)))
        except CannotMeasure as error:
            failure = str(error)
        except Exception as error:  # this shape is not the one
            failure = one_line(error)
        else:
            return [each.to(device) for each in batch]
    raise CannotMeasure(f"no input was found that it takes{of_all} (the last try: {failure})")


def outputs(result: Any) -> Any:
    """What a model returns as one matrix: a row for each sample. Raises ``CannotMeasure``."""
    found = [tensor.reshape(len(tensor), -1).float() for tensor in _tensors(result) if tensor.dim() and len(tensor)]
    rows = {len(tensor) for tensor in found}
    if not found or len(rows) > 1:
        raise CannotMeasure("its output has no row for each sample")
    return torch.cat(found, 1)


def _tensors(result: Any) -> Iterator[Any]:
    if isinstance(result, torch.Tensor):
        if result.is_floating_point():
            yield result
    elif isinstance(result, dict):
        for value in result.values():
            yield from _tensors(value)
    elif isinstance(result, (list, tuple)):
        for value in result:
            yield from _tensors(value)


def _inputs(model: Any) -> int:
    """How many inputs ``forward`` needs."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(needed) or min(1, len(parameters))


def _candidates(model: Any) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shapes of one sample, and how many indices there are where it is made of those."""
    for layer in model.modules():
        if list(layer.children()):
            continue
        if isinstance(layer, torch.nn.Embedding):
            yield from (((length,), layer.num_embeddings) for length in (16, 64, 128))
            return
        channels = getattr(layer, "in_channels", None) or getattr(layer, "num_features", None)
        rank = next((rank for rank in _DIMENSIONS if type(layer).__name__.endswith(f"{rank}d")), 0)
        if rank and channels:
            if isinstance(layer, torch.nn.BatchNorm1d):
                yield (channels,), 0
            for size in _DIMENSIONS[rank]:
                if channels * size**rank <= _MOST:
                    yield (channels, *([size] * rank)), 0
            return
        if isinstance(layer, torch.nn.Linear):
            yield (layer.in_features,), 0
            yield (16, layer.in_features), 0
            side = int((layer.in_features / 3) ** 0.5), int(layer.in_features**0.5)
            if 3 * side[0] ** 2 == layer.in_features:
                yield (3, side[0], side[0]), 0
            if side[1] ** 2 == layer.in_features:
                yield (1, side[1], side[1]), 0
            return
        if isinstance(layer, torch.nn.RNNBase):
            yield (16, layer.input_size), 0
            return
