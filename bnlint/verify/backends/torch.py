"""PyTorch: rebuild one ``torch.nn`` layer and measure it."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from bnlint.experiment import CHOSEN_FEATURES, InputSpec, LayerSpec, Scalar
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

#: Batches fed to a layer whose memory is measured, and how many pass before anything is recorded.
MEMORY_BATCHES = 500
MEMORY_BURN_IN = 100

DEFAULT_EPS = 1e-5


class TorchBackend:
    def __init__(self, device: str) -> None:
        self.device = device
        self.versions = {"torch": str(torch.__version__)}

    def measure(self, kind: str, layer: LayerSpec, device: str) -> Facts:
        if kind not in EXPERIMENTS:
            raise CannotMeasure(f"there is no experiment of kind {kind!r} for torch")
        with torch.no_grad():
            return EXPERIMENTS[kind](layer, device)

    def outputs(self, kind: str, layer: LayerSpec, source: InputSpec, device: str) -> Facts:
        if kind != "mode-gap":
            return {}
        named = layer.arguments.get("num_features")
        if max(math.prod(source.shape), named if isinstance(named, int) else 0) > fixture.MAX_ELEMENTS:
            raise CannotMeasure(
                f"the source's input {fixture.shape_text(source.shape)} is too large to be run here"
            )
        x = torch.full(source.shape, source.fill, dtype=torch.float32, device=device)
        facts: Facts = {"source_input": f"{fixture.shape_text(source.shape)} filled with {source.fill:g}"}
        with torch.no_grad():
            for mode, training in (("train", True), ("eval", False)):
                output = _seeded(Rebuilt(layer, device, like=x).fresh().train(training), x).double()
                facts[f"output_{mode}"] = plain(output.mean().item())
                spread = (output.max() - output.min()).item()
                if spread > 1e-6 * max(1.0, output.abs().max().item()):
                    facts[f"output_{mode}_spread"] = plain(spread)
        return facts

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error)


def open_backend(device: str) -> TorchBackend:
    return TorchBackend(pick_device(device))


def pick_device(asked: str) -> str:
    """The device to measure on; ``auto`` takes the first that works. Raises ``CannotMeasure``."""
    if asked == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if not _hindrance(device))
    if hindrance := _hindrance(asked):
        raise CannotMeasure(f"device {asked} was asked for, but torch {torch.__version__} {hindrance}")
    return asked


def _hindrance(device: str) -> str:
    """Why this device cannot be used, or ''."""
    if device == "cpu":
        return ""
    is_there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not is_there:
        return "finds none here"
    try:
        # A card that this build of torch has no code for is found, but fails at the first computation.
        float(torch.ones(1, device=device) + 1)
    except RuntimeError as error:
        return f"cannot use it: {fixture.one_line(error)}"
    return ""


class Rebuilt:
    """A layer as the source builds it, as often as fresh copies of it are needed."""

    def __init__(
        self, spec: LayerSpec, device: str, features: int | None = None, like: Tensor | None = None
    ) -> None:
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
        self.like = torch.zeros(self.shape(2), device=device) if like is None else like

    @property
    def normalises(self) -> bool:
        return "Norm" in self.name

    def shape(self, batch: int) -> tuple[int, ...]:
        return (batch, self.features, *self.spatial)

    def fresh(self, **changes: Scalar) -> Module:
        """A new layer in train mode with its initial statistics."""
        layer = getattr(torch.nn, self.name)(**{**self.arguments, **changes}).to(self.device)
        if self.is_lazy:
            layer.eval()(self.like)  # gives it its size; in eval mode that leaves the statistics alone
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
        return _normal(self.shape(fixture.BATCH), mean, sd).to(self.device)

    def facts(self, x: Tensor) -> Facts:
        return {
            "dtype": "float32",
            "seed": fixture.SEED,
            "chosen": self.chosen,
            "input": f"{fixture.shape_text(tuple(x.shape))}, normal, mean {x.mean():.2g}, sd {x.std():.2g}",
        }


def _mode_gap(spec: LayerSpec, device: str) -> Facts:
    """Train against eval mode, a sample's dependence on its batch-mates, and what one forward leaves behind."""
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    train = _seeded(rebuilt.used(), x)
    evaluated = _seeded(rebuilt.used().eval(), x)
    facts = {**rebuilt.facts(x), "gap": plain(relative(train, evaluated))}
    if not rebuilt.normalises:
        return {**facts, "p": plain(float(rebuilt.fresh().p))}
    part = x[: fixture.SUBSET]
    facts["batch_dependence_train"] = plain(_dependence(train, _seeded(rebuilt.used(), part)))
    facts["batch_dependence_eval"] = plain(_dependence(evaluated, _seeded(rebuilt.used().eval(), part)))
    layer, untouched = rebuilt.used(), rebuilt.used()
    layer(x)
    facts["tracks_running_stats"] = layer.running_mean is not None
    if facts["tracks_running_stats"]:
        moved = [layer.running_mean - untouched.running_mean, layer.running_var - untouched.running_var]
        facts["statistics_drift"] = plain(max(change.abs().max().item() for change in moved))
        facts["num_batches_tracked"] = int(layer.num_batches_tracked - untouched.num_batches_tracked)
    return facts


def _momentum_memory(spec: LayerSpec, device: str) -> Facts:
    """How much of a batch's noise stays in the running mean.

    With new-batch weight a, the running mean over many batches has the variance a / (2 - a) of one batch's
    mean, as if (2 - a) / a batches were averaged. The layer starts from the true statistics, so that what is
    seen is its memory and not the way from its initial 0 and 1.
    """
    rebuilt = Rebuilt(spec, device, features=fixture.MEMORY_CHANNELS)
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    if not rebuilt.name.startswith("Instance"):
        rebuilt.spatial = (1,) * len(rebuilt.spatial)
    test = rebuilt.input()
    generator = torch.Generator().manual_seed(fixture.SEED + 1)
    momentum = rebuilt.fresh().momentum
    layer, ideal = _converged(rebuilt.fresh()), _converged(rebuilt.fresh()).eval()(test)
    # With momentum 1 the converted layer would stay at the true statistics that it is given here.
    converted = None if momentum in (None, 1) else _converged(rebuilt.fresh(momentum=1 - momentum))
    tracks = layer.running_mean is not None
    weight = None if momentum is None else plain(float(momentum))
    means, batch_means, errors, converted_errors = [], [], [], []
    for index in range(MEMORY_BATCHES):
        batch = _normal(tuple(test.shape), fixture.INPUT_MEAN, fixture.INPUT_SD, generator).to(device)
        layer(batch)
        if converted is not None:
            converted(batch)
        if index < MEMORY_BURN_IN or not tracks:
            continue
        means.append(layer.running_mean.clone())
        batch_means.append(batch.transpose(0, 1).flatten(1).mean(1))
        if index % 20 == 0:
            errors.append(relative(_evaluate(layer, test), ideal))
            if converted is not None:
                converted_errors.append(relative(_evaluate(converted, test), ideal))
    facts = {**rebuilt.facts(test), "tracks_running_stats": tracks, "momentum": weight}
    if converted is not None:
        difference = relative(_evaluate(layer, test), _evaluate(converted, test))
        facts["difference_from_converted"] = plain(difference)
    if tracks:
        facts["batches"] = MEMORY_BATCHES
        facts["new_batch_weight"] = weight
        facts["ratio"] = plain(_noise(means) / _noise(batch_means))
        facts["eval_error"] = plain(sum(errors) / len(errors))
        if converted_errors:
            facts["eval_error_converted"] = plain(sum(converted_errors) / len(converted_errors))
    return facts


def _eps_gap(spec: LayerSpec, device: str) -> Facts:
    """The layer against itself with the default eps, where running and batch variance are 1."""
    rebuilt = Rebuilt(spec, device)
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no eps")
    x = rebuilt.input(mean=0.0, sd=1.0)
    evaluated = rebuilt.fresh().eval()(x)
    return {
        **rebuilt.facts(x),
        "eps": plain(float(rebuilt.fresh().eps)),
        "gap_eval": plain(relative(evaluated, rebuilt.fresh(eps=DEFAULT_EPS).eval()(x))),
        "gap_train": plain(relative(rebuilt.fresh()(x), rebuilt.fresh(eps=DEFAULT_EPS)(x))),
        "scale": plain((evaluated.cpu().double().norm() / x.cpu().double().norm()).item()),
    }


EXPERIMENTS: dict[str, Callable[[LayerSpec, str], Facts]] = {
    "mode-gap": _mode_gap,
    "momentum-memory": _momentum_memory,
    "eps-gap": _eps_gap,
}


def _normal(shape: tuple[int, ...], mean: float, sd: float, generator: Any = None) -> Tensor:
    """Normal values drawn on the CPU, so that every device is given the same."""
    generator = generator or torch.Generator().manual_seed(fixture.SEED)
    return mean + sd * torch.randn(shape, generator=generator)


def _seeded(layer: Module, x: Tensor) -> Tensor:
    torch.manual_seed(fixture.SEED)  # for what Dropout draws
    return layer(x).cpu()


def _evaluate(layer: Module, x: Tensor) -> Tensor:
    output = layer.eval()(x)
    layer.train()
    return output


def _converged(layer: Module) -> Module:
    if layer.running_mean is not None:
        layer.running_mean.fill_(fixture.INPUT_MEAN)
        layer.running_var.fill_(fixture.INPUT_SD**2)
    return layer


def _noise(samples: list[Tensor]) -> float:
    """Standard deviation around the true mean, over batches and channels."""
    return float((torch.stack(samples).cpu().double() - fixture.INPUT_MEAN).square().mean().sqrt())


def relative(actual: Tensor, reference: Tensor) -> float:
    """L2 norm of the difference over that of the reference."""
    actual, reference = actual.cpu().double(), reference.cpu().double()
    difference, norm = (actual - reference).norm().item(), reference.norm().item()
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def _dependence(whole: Tensor, part: Tensor) -> float:
    """How far the first samples move, relative to the largest output, when the rest of the batch is absent."""
    return float((whole[: part.shape[0]] - part).abs().max() / whole.abs().max())
