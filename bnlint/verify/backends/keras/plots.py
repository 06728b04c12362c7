"""Pictures of what an experiment is about, as for PyTorch: curves that a report shows beside the numbers."""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.finding import Curve, Plot
from bnlint.verify import fixture
from bnlint.verify.backends.keras.rebuilt import Array, Rebuilt, call, normal, np, numpy, relative, statistics
from bnlint.verify.fixture import plain

#: Kinds of experiment that turn on what a call makes of the layer with and without ``training=True``.
TWO_MODES = ("inference-gap", "tape-step")
CALLS: dict[str, dict[str, bool]] = {"as called": {}, "training=True": {"training": True}}
BATCHES = 40
BINS = 40


def plots(kind: str, spec: LayerSpec) -> list[Plot]:
    rebuilt = Rebuilt(spec)
    if kind == "momentum-memory" and rebuilt.normalises:
        return [_memory(rebuilt)]
    if kind not in TWO_MODES:
        return []
    return [_distribution(rebuilt), *([_statistics(rebuilt)] if rebuilt.normalises else [])]


def _memory(rebuilt: Rebuilt) -> Plot:
    """The first channel's moving mean over batches, for the momentum in the source and for one minus that."""
    momentum = float(rebuilt.fresh().momentum)
    layers = {f"momentum={momentum:g}, as written": rebuilt.fresh()}
    if 0 < momentum < 1:
        layers[f"momentum={plain(1 - momentum):g}"] = rebuilt.fresh(momentum=1 - momentum)
    shape = rebuilt.shape_of(rebuilt.shape[rebuilt.axis], 1)
    curves = []
    for name, layer in layers.items():
        rng = np.random.default_rng(fixture.SEED + 1)
        layer.moving_mean.assign(np.full(layer.moving_mean.shape, fixture.INPUT_MEAN, "float32"))
        means = []
        for _ in range(BATCHES):
            layer(normal(rng, shape), training=True)
            means.append(plain(float(numpy(layer.moving_mean)[0])))
        curves.append(Curve(name, tuple(means)))
    true = Curve("true mean", (fixture.INPUT_MEAN,))
    numbers = tuple(float(number) for number in range(1, BATCHES + 1))
    title = "Moving mean of one channel, begun at the true mean"
    return Plot(title, "batch", "moving mean", numbers, tuple(curves), reference=true)


def _distribution(rebuilt: Rebuilt) -> Plot:
    x = rebuilt.input()
    outputs = {name: call(rebuilt.fresh(), x, **arguments) for name, arguments in CALLS.items()}
    low = min(float(output.min()) for output in outputs.values())
    high = max(float(output.max()) for output in outputs.values())
    limits = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    curves = tuple(Curve(name, _shares(output, limits)) for name, output in outputs.items())
    title = "Output of a new layer for one and the same batch"
    return Plot(title, "output", "share of the values", tuple(map(float, limits)), curves, bins=True)


def _shares(output: Array, limits: Array) -> tuple[float | None, ...]:
    counts, _ = np.histogram(output, limits)
    return tuple(float(count) / output.size for count in counts)


def _statistics(rebuilt: Rebuilt) -> Plot:
    curves = []
    for name, arguments in CALLS.items():
        rng = np.random.default_rng(fixture.SEED + 1)
        layer = rebuilt.fresh()
        before = statistics(layer)
        distances: list[float | None] = [0.0]
        for _ in range(BATCHES):
            layer(normal(rng, rebuilt.shape), **arguments)
            distances.append(plain(relative(statistics(layer), before)))
        curves.append(Curve(name, tuple(distances)))
    numbers = tuple(float(number) for number in range(BATCHES + 1))
    title = "Moving statistics over batches"
    return Plot(title, "batch", "distance moved", numbers, tuple(curves))
