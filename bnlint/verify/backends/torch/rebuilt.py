"""A layer as the source builds it, the input it is run on, and how outputs are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

from bnlint.experiment import CHOSEN_FEATURES, LayerSpec, Scalar
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts
from bnlint.verify.fixture import plain

torch: Any = import_module("torch")
Tensor = Any
Module = Any

#: Extent of the input beyond (batch, channels), per layer; at least two values, so that a channel's batch
#: statistics are not one value per sample.
SPATIAL: dict[str, tuple[int, ...]] = {
    "BatchNorm1d": (4,),
    "BatchNorm2d": (4, 4),
    "BatchNorm3d": (2, 2, 2),
    "SyncBatchNorm": (4, 4),
    "LazyBatchNorm1d": (4,),
    "LazyBatchNorm2d": (4, 4),
    "LazyBatchNorm3d": (2, 2, 2),
    "InstanceNorm1d": (4,),
    "InstanceNorm2d": (4, 4),
    "InstanceNorm3d": (2, 2, 2),
    "Dropout": (4, 4),
    "Dropout1d": (4,),
    "Dropout2d": (4, 4),
    "Dropout3d": (2, 2, 2),
    "AlphaDropout": (4, 4),
    "FeatureAlphaDropout": (4, 4),
}


#: Values of input that are kept for who asks for the same again (16 MiB).
_KEPT = 2**22


class Rebuilt:
    """A layer as the source builds it, as often as fresh copies of it are needed."""

    def __init__(self, spec: LayerSpec, device: str, features: int | None = None, like: Tensor | None = None) -> None:
        self.name = spec.kind.removeprefix("torch.nn.")
        if self.name not in SPATIAL or not spec.kind.startswith("torch.nn."):
            raise CannotMeasure(f"{spec.kind} is no layer that can be rebuilt")
        self.device = device
        # The verifier chooses the device; `cuda` in the source must not fail where there is none.
        self.arguments: dict[str, Scalar] = {k: v for k, v in spec.arguments.items() if k != "device"}
        self.chosen = list(spec.chosen)
        self.spatial = SPATIAL[self.name]
        self.is_lazy = self.name.startswith("Lazy")
        named = self.arguments.get("num_features")
        if like is not None:
            self.features = 0
        elif isinstance(named, int) and features is None and named <= fixture.MAX_FEATURES:
            self.features = named
        else:
            self.features = features or (CHOSEN_FEATURES if named is None else fixture.MAX_FEATURES)
            self.chosen.append(f"channels={self.features}")
            # Only a size that torch would accept is replaced, so that it can reject the others itself.
            if isinstance(named, int) and named > 0:
                self.arguments["num_features"] = self.features
        self._traits: Facts = {}
        self.like = like

    @property
    def normalises(self) -> bool:
        return "Norm" in self.name

    @property
    def counts(self) -> bool:
        """Whether it counts the batches it sees in train mode; InstanceNorm has the counter and never uses it."""
        return "BatchNorm" in self.name and self.traits()["tracks_running_stats"] is True

    def shape(self, batch: int) -> tuple[int, ...]:
        return (batch, self.features, *self.spatial)

    def fresh(self, **changes: Scalar) -> Module:
        """A new layer in train mode with its initial statistics."""
        layer = getattr(torch.nn, self.name)(**{**self.arguments, **changes})
        if self.device != "cpu":
            layer.to(self.device)
        if self.is_lazy:
            like = torch.zeros(self.shape(2), device=self.device) if self.like is None else self.like
            layer.eval()(like)  # gives it its size; in eval mode that leaves the statistics alone
        return layer.train()

    def used(self, **changes: Scalar) -> Module:
        """A new layer with running statistics as after some training."""
        layer = self.fresh(**changes)
        if getattr(layer, "running_mean", None) is not None:
            size = layer.running_mean.shape[0]
            layer.running_mean.copy_(torch.linspace(*fixture.RUNNING_MEAN, size))
            # In the opposite order, so that mean and variance are not one quantity seen twice.
            layer.running_var.copy_(torch.linspace(*fixture.RUNNING_VAR, size).flip(0))
        return layer

    def input(self, mean: float = fixture.INPUT_MEAN, sd: float = fixture.INPUT_SD) -> Tensor:
        (drawn,) = _drawn(self.shape(fixture.BATCH), mean, sd, fixture.SEED, 1)
        return drawn.to(self.device, copy=True)

    def batches(self, count: int, epoch: int = 1, mean: float = fixture.INPUT_MEAN) -> Iterator[Tensor]:
        """Batches of the input's distribution, the same ones whenever this epoch's are asked for."""
        for batch in _drawn(self.shape(fixture.BATCH), mean, fixture.INPUT_SD, fixture.SEED + epoch, count):
            yield batch.to(self.device, copy=True)

    def facts(self, x: Tensor) -> Facts:
        return {
            "dtype": "float32",
            "seed": fixture.SEED,
            "chosen": self.chosen,
            "input": f"{fixture.shape_text(tuple(x.shape))}, normal, mean {x.mean():.2g}, sd {x.std():.2g}",
        }

    def traits(self) -> Facts:
        """What can make both modes agree: a probability of 0, or no running statistics."""
        if not self._traits:
            layer = self.fresh()
            if self.normalises:
                self._traits = {"tracks_running_stats": layer.running_mean is not None}
            else:
                self._traits = {"p": plain(float(layer.p))}
        return dict(self._traits)


def normal(shape: tuple[int, ...], mean: float, sd: float, generator: Any = None) -> Tensor:
    """Normal values drawn on the CPU, so that every device is given the same."""
    generator = generator or torch.Generator().manual_seed(fixture.SEED)
    return mean + sd * torch.randn(shape, generator=generator)


def _drawn(shape: tuple[int, ...], mean: float, sd: float, seed: int, count: int) -> Iterable[Tensor]:
    """So many batches, kept for the next who asks where they are not too large."""
    if math.prod(shape) * count > _KEPT:
        return _draw(shape, mean, sd, seed, count)
    return _draw_once(shape, mean, sd, seed, count)


def _draw(shape: tuple[int, ...], mean: float, sd: float, seed: int, count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield normal(shape, mean, sd, generator)


@lru_cache(maxsize=8)
def _draw_once(shape: tuple[int, ...], mean: float, sd: float, seed: int, count: int) -> tuple[Tensor, ...]:
    """To draw takes longer than to normalise, and both sides of a pair get the same, as do many experiments."""
    return tuple(_draw(shape, mean, sd, seed, count))


def seed(device: str) -> None:
    """For what Dropout draws on this device."""
    if device == "cpu":
        # torch.manual_seed would also note a stack trace for each kind of device that has not been used yet.
        torch.default_generator.manual_seed(fixture.SEED)
    else:
        torch.manual_seed(fixture.SEED)


def seeded(layer: Module, x: Tensor) -> Tensor:
    seed(x.device.type)
    return layer(x).cpu()


def statistics(layer: Module) -> Tensor:
    """Running mean and variance as they are now, or None."""
    if getattr(layer, "running_mean", None) is None:
        return None
    return torch.stack([layer.running_mean, layer.running_var]).cpu().double()


def counted(layer: Module) -> int | None:
    """Batches that the layer says it has seen in train mode."""
    tracked = getattr(layer, "num_batches_tracked", None)
    return None if tracked is None else int(tracked)


def movement(before: Tensor, after: Tensor) -> float:
    """The largest change of a running statistic."""
    return float((after - before).abs().max())


def relative(actual: Tensor, reference: Tensor) -> float:
    """L2 norm of the difference over that of the reference."""
    actual, reference = actual.cpu().double(), reference.cpu().double()
    difference, norm = (actual - reference).norm().item(), reference.norm().item()
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def dependence(whole: Tensor, part: Tensor) -> float:
    """How far the first samples move, relative to the largest output, when the rest of the batch is absent."""
    return float((whole[: part.shape[0]] - part).abs().max() / whole.abs().max())
