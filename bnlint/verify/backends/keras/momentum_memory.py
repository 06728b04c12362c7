"""``momentum-memory``: how much of a batch's noise stays in the running mean; the mathematics are as for torch.

Keras's momentum is the weight of the old value, so a = 1 - momentum.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Array, Rebuilt, call, converged, normal, np, numpy, relative
from bnlint.verify.fixture import plain

#: A call costs over a millisecond, so there are fewer batches than for torch, and more channels instead.
MEMORY_BATCHES = 200
MEMORY_BURN_IN = 60
MEMORY_CHANNELS = 4 * fixture.MEMORY_CHANNELS


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    wide = _wide(rebuilt)
    test = wide.input()
    rng = np.random.default_rng(fixture.SEED + 1)
    layer = converged(wide.fresh())
    momentum = float(layer.momentum)
    # With momentum 0 the converted layer would stay at the true statistics that it is given here.
    converted = converged(wide.fresh(momentum=1 - momentum)) if momentum else None
    ideal = call(converged(wide.fresh()), test, training=False)
    others = tuple(axis for axis in range(test.ndim) if axis != wide.axis % test.ndim)
    means, batch_means, errors, converted_errors = [], [], [], []
    for index in range(MEMORY_BATCHES):
        batch = normal(rng, wide.shape)
        layer(batch, training=True)
        if converted is not None:
            converted(batch, training=True)
        if index < MEMORY_BURN_IN:
            continue
        means.append(numpy(layer.moving_mean))
        batch_means.append(batch.mean(others))
        if index % 20 == 0:
            errors.append(relative(call(layer, test, training=False), ideal))
            if converted is not None:
                converted_errors.append(relative(call(converted, test, training=False), ideal))
    facts = {
        **wide.facts(test),
        "batches": MEMORY_BATCHES,
        "momentum": plain(momentum),
        "new_batch_weight": plain(1 - momentum),
        "ratio": plain(_noise(means) / _noise(batch_means)),
        "eval_error": plain(sum(errors) / len(errors)),
    }
    if converted_errors:
        facts["eval_error_converted"] = plain(sum(converted_errors) / len(converted_errors))
    return facts


def _wide(rebuilt: Rebuilt) -> Rebuilt:
    """The same layer with many channels and one value per sample and channel."""
    wide = Rebuilt(rebuilt.spec, features=MEMORY_CHANNELS)
    wide.shape = wide.shape_of(MEMORY_CHANNELS, 1)
    return wide


def _noise(samples: list[Array]) -> float:
    """Standard deviation around the true mean, over batches and channels."""
    return float(np.sqrt(np.mean((np.stack(samples) - fixture.INPUT_MEAN) ** 2)))
