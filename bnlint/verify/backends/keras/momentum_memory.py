"""``momentum-memory``: how much of a batch's noise stays in the running mean; the mathematics are as for torch.

Keras's momentum is the weight of the old value, so a = 1 - momentum.

A stack of layers is measured as for torch: a layer with momentum 0 shows each batch's statistics, and the recursion
moving <- momentum moving + (1 - momentum) batch takes those of all layers through them at once.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts
from bnlint.verify.backends.keras.rebuilt import (
    Array,
    Rebuilt,
    call,
    converged,
    normal,
    np,
    numpy,
    relative,
    statistics,
)
from bnlint.verify.backends.keras.stack import Stack
from bnlint.verify.fixture import plain

#: A call costs over a millisecond, so there are fewer batches than for torch, and more channels instead.
MEMORY_BATCHES = 200
MEMORY_BURN_IN = 60
#: How often eval mode is looked at, in batches.
EVERY = 20
MEMORY_CHANNELS = 4 * fixture.MEMORY_CHANNELS


def measure_each(rebuilt: Rebuilt) -> list[Facts]:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    return _of_stack(rebuilt) if isinstance(rebuilt, Stack) else [_of_layer(rebuilt)]


def _of_layer(rebuilt: Rebuilt) -> Facts:
    wide = Rebuilt(rebuilt.spec, features=MEMORY_CHANNELS, extent=1)  # one value per sample and channel
    test = wide.input()
    rng = np.random.default_rng(fixture.SEED + 1)
    layer = converged(wide.fresh())
    momentum = float(layer.momentum)
    # With momentum 0 the converted layer would stay at the true statistics that it is given here.
    converted = converged(wide.fresh(momentum=1 - momentum)) if momentum else None
    ideal = call(converged(wide.fresh()), test, training=False)
    means, batch_means, errors, converted_errors = [], [], [], []
    for index in range(MEMORY_BATCHES):
        batch = normal(rng, wide.shape)
        layer(batch, training=True)
        if converted is not None:
            converted(batch, training=True)
        if index < MEMORY_BURN_IN:
            continue
        means.append(numpy(layer.moving_mean))
        batch_means.append(wide.channel_means(batch))
        if index % EVERY == 0:
            errors.append(relative(call(layer, test, training=False), ideal))
            if converted is not None:
                converted_errors.append(relative(call(converted, test, training=False), ideal))
    converted_error = sum(converted_errors) / len(converted_errors) if converted_errors else None
    ratio = _noise(means) / _noise(batch_means)
    return _facts(wide.facts(test), momentum, ratio, sum(errors) / len(errors), converted_error)


def _of_stack(stack: Stack) -> list[Facts]:
    wide = Stack([rebuilt.spec for rebuilt in stack.alone], features=MEMORY_CHANNELS, extent=1)
    one = wide.alone[0]
    test = wide.input()
    rng = np.random.default_rng(fixture.SEED + 1)
    probe, momenta = one.fresh(momentum=0.0), wide.hyperparameters[0]
    # As written, and with 1 - momentum; in single precision and in this order, as the layers do it.
    old = np.concatenate([momenta, 1 - momenta])[:, None]
    weights = old.astype("float32"), (1 - old).astype("float32")
    moving = np.full((2, len(old), MEMORY_CHANNELS), fixture.INPUT_MEAN, "float32")
    moving[1] = fixture.INPUT_SD**2
    layer = converged(wide.fresh())

    def evaluate(means: Array, variances: Array) -> list[Array]:
        layer.moving_mean.assign(means.ravel())
        layer.moving_variance.assign(variances.ravel())
        return wide.each(call(layer, test, training=False))

    ideal = wide.each(call(layer, test, training=False))
    squares, batch_means, errors = np.zeros(len(momenta)), [], []
    for index in range(MEMORY_BATCHES):
        batch = normal(rng, one.shape)
        probe(batch, training=True)
        moving *= weights[0]
        moving += statistics(probe)[:, None].astype("float32") * weights[1]
        if index < MEMORY_BURN_IN:
            continue
        squares += np.square(moving[0, : len(momenta)].astype("float64") - fixture.INPUT_MEAN).mean(1)
        batch_means.append(one.channel_means(batch))
        if index % EVERY == 0:
            outputs = [output for side in np.split(moving, 2, axis=1) for output in evaluate(*side)]
            errors.append([relative(output, right) for output, right in zip(outputs, ideal * 2, strict=True)])
    ratios = np.sqrt(squares / len(batch_means)) / _noise(batch_means)
    written, converted = np.split(np.mean(errors, axis=0), 2)
    numbers = zip(wide.facts_of_each(), momenta, ratios, written, converted, strict=True)
    return [_facts(*its) for its in numbers]


def _facts(conditions: Facts, momentum: float, ratio: float, error: float, converted_error: float | None) -> Facts:
    facts = {
        **conditions,
        "batches": MEMORY_BATCHES,
        "momentum": plain(momentum),
        "new_batch_weight": plain(1 - momentum),
        "ratio": plain(ratio),
        "eval_error": plain(error),
    }
    return facts if converted_error is None else {**facts, "eval_error_converted": plain(converted_error)}


def _noise(samples: list[Array]) -> float:
    """Standard deviation around the true mean, over batches and channels."""
    return float(np.sqrt(np.mean((np.stack(samples) - fixture.INPUT_MEAN) ** 2)))
