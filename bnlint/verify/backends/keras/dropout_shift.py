"""``dropout-shift``: as for torch: the variance behind Dropout and BatchNormalization, in inference and in training."""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Rebuilt, call, keras, np
from bnlint.verify.fixture import plain

#: Keras's default momentum of 0.99 leaves 1.8 % of the initial variance after as many.
BATCHES = 400
MEAN = SD = 1.0
_EXTENTS = {"SpatialDropout1D": (4,), "SpatialDropout2D": (4, 4), "SpatialDropout3D": (2, 2, 2)}


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} does not normalise")
    name, rate = str(options["dropout"]), options["rate"]
    shape = (fixture.BATCH, *_EXTENTS.get(name, ()), fixture.MEMORY_CHANNELS)
    keras.utils.set_random_seed(fixture.SEED)
    dropout = getattr(keras.layers, name)(rate)
    norm = keras.layers.BatchNormalization(**{**rebuilt.arguments, "axis": -1})
    rng = np.random.default_rng(fixture.SEED)
    for _ in range(BATCHES):
        x = rng.normal(MEAN, SD, shape).astype("float32")
        trained = call(norm, dropout(x, training=True), training=True)
    x = rng.normal(MEAN, SD, shape).astype("float32")
    return {
        **rebuilt.facts(x),
        "input": f"{fixture.shape_text(shape)}, normal, mean {MEAN:g}, sd {SD:g}",
        "batches": BATCHES,
        "dropout": name,
        "rate": plain(float(rate or 0)),
        "variance_train": plain(float(trained.var())),
        "variance_eval": plain(float(call(norm, dropout(x, training=False), training=False).var())),
    }
