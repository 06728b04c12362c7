"""Pictures of what an experiment is about: curves that a report shows beside the numbers.

The running mean beside the true mean, batch by batch; the outputs' distribution in both modes; how far the running
statistics move while nothing but validation batches come by.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.finding import Curve, Plot
from bnlint.verify import fixture
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, relative, seeded, statistics, torch
from bnlint.verify.fixture import plain

#: Kinds of experiment that turn on what train and eval mode make of the layer.
TWO_MODES = (
    "mode-gap",
    "second-epoch",
    "mode-in-forward",
    "freeze-drift",
    "fresh-layer",
    "container-reach",
    "training-flag",
    "mode-override",
    "mc-dropout",
    "trace-parity",
    "export-parity",
)
MEMORY_BATCHES = 60
DRIFT_BATCHES = 30
BINS = 40
#: Fewer channels than a measurement takes: a curve has no use for more.
CHANNELS = 64


def plots(kind: str, spec: LayerSpec, device: str) -> list[Plot]:
    if kind == "momentum-memory":
        return _memory(Rebuilt(spec, device, features=CHANNELS))
    rebuilt = Rebuilt(spec, device)
    if kind == "eps-gap":
        return [_scaled(rebuilt)]
    if kind not in TWO_MODES:
        return []
    return [_distribution(rebuilt), *_drift(rebuilt)]


def _memory(rebuilt: Rebuilt) -> list[Plot]:
    """The first channel's running mean over batches, for the momentum in the source and for one minus that.

    It begins at the true mean, so that its noise is seen and not its way from 0.
    """
    if rebuilt.fresh().running_mean is None:
        return []
    rebuilt.spatial = (1,) * len(rebuilt.spatial)
    momentum = rebuilt.fresh().momentum
    layers = {f"momentum={momentum}, as written": rebuilt.fresh()}
    if momentum is not None and 0 < momentum < 1:
        layers[f"momentum={plain(1 - momentum):g}"] = rebuilt.fresh(momentum=1 - momentum)
    curves = []
    for name, layer in layers.items():
        layer.running_mean.fill_(fixture.INPUT_MEAN)
        means = []
        for batch in rebuilt.batches(MEMORY_BATCHES):
            layer(batch)
            means.append(plain(float(layer.running_mean[0])))
        curves.append(Curve(name, tuple(means)))
    true = Curve("true mean", (fixture.INPUT_MEAN,))
    numbers = tuple(float(number) for number in range(1, MEMORY_BATCHES + 1))
    return [
        Plot(
            "Running mean of one channel, begun at the true mean",
            "batch",
            "running mean",
            numbers,
            tuple(curves),
            reference=true,
        )
    ]


def _distribution(rebuilt: Rebuilt) -> Plot:
    x = rebuilt.input()
    outputs = {"train mode": seeded(rebuilt.used(), x), "eval mode": seeded(rebuilt.used().eval(), x)}
    return _histogram("Output for one and the same batch", outputs)


def _scaled(rebuilt: Rebuilt) -> Plot:
    x = rebuilt.input(mean=0.0, sd=1.0)
    written = rebuilt.fresh()
    outputs = {f"eps={written.eps:g}, as written": written.eval()(x), "eps=1e-05": rebuilt.fresh(eps=1e-5).eval()(x)}
    return _histogram("Output where mean is 0 and variance 1", outputs)


def _histogram(title: str, outputs: dict[str, Tensor]) -> Plot:
    flat = {name: output.cpu().double().flatten() for name, output in outputs.items()}
    low = min(float(values.min()) for values in flat.values())
    high = max(float(values.max()) for values in flat.values())
    high = high if high > low else low + 1.0
    curves = tuple(
        Curve(name, tuple(float(count) for count in torch.histc(values, BINS, low, high) / values.numel()))
        for name, values in flat.items()
    )
    limits = tuple(low + (high - low) * number / BINS for number in range(BINS + 1))
    return Plot(title, "output", "share of the values", limits, curves, bins=True)


def _drift(rebuilt: Rebuilt) -> list[Plot]:
    if not rebuilt.normalises or statistics(rebuilt.used()) is None:
        return []
    curves = (
        Curve("train mode", _distances(rebuilt, rebuilt.used())),
        Curve("eval mode", _distances(rebuilt, rebuilt.used().eval())),
    )
    numbers = tuple(float(number) for number in range(DRIFT_BATCHES + 1))
    title = "Running statistics over validation batches"
    return [Plot(title, "batch", "distance moved", numbers, curves)]


def _distances(rebuilt: Rebuilt, layer: Module) -> tuple[float | None, ...]:
    before = statistics(layer)
    distances: list[float | None] = [0.0]
    for batch in rebuilt.batches(DRIFT_BATCHES):
        layer(batch)
        distances.append(plain(relative(statistics(layer), before)))
    return tuple(distances)
