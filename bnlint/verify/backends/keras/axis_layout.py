"""``axis-layout``: has the norm behind a convolution one gamma and beta for each filter?

Exact: the convolution tells the shape of its output, and the norm is built on it, as written and on the axis of the
channels. The sides of the image differ from each other and from the number of filters. The gap is between what the two
norms make of the same numbers in training.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Layer, Rebuilt, call, keras, normal, np, relative
from bnlint.verify.fixture import plain, shape_text

_INPUTS = 3
#: Sides of the image that the convolution takes.
_SIDES = (7, 8, 9)
_KERNEL = 3
#: More filters than this are more work and teach nothing.
_MOST_FILTERS = 256


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} does not normalise")
    conv, shape = conv_before(options, int(options["filters"] or 0))
    sides = len(shape) - 2
    output = tuple(int(size) for size in conv.compute_output_shape((fixture.BATCH, *shape[1:]))[1:])
    output = (fixture.BATCH, *output)
    channels = 1 if options["data_format"] == "channels_first" else sides + 1
    chosen = list(rebuilt.spec.chosen)
    filters = output[channels]
    if filters > _MOST_FILTERS or filters in output[1:channels] + output[channels + 1 :]:
        filters = fixture.BATCH + 1
        output = (*output[:channels], filters, *output[channels + 1 :])
        chosen.append(f"filters={filters}")
    rebuilt.shape = output
    x = normal(np.random.default_rng(fixture.SEED), output)
    # Each channel has a mean of its own, as behind a convolution.
    along = [1] * len(output)
    along[channels] = filters
    x = x + np.linspace(*fixture.RUNNING_MEAN, filters, dtype="float32").reshape(along)
    written = rebuilt.fresh()
    mended = rebuilt.fresh(axis=channels)
    return {
        **rebuilt.facts(x),
        "chosen": chosen,
        "input": shape_text(output),
        "before": str(options["before"]),
        "data_format": str(options["data_format"]),
        "filters": filters,
        "values_as_written": int(np.prod(written.moving_mean.shape)),
        "values_mended": int(np.prod(mended.moving_mean.shape)),
        "mended_by": f"axis={channels}",
        "gap_to_mended": plain(relative(call(written, x, training=True), call(mended, x, training=True))),
    }


def conv_before(options: Options, filters: int) -> tuple[Layer, tuple[int, ...]]:
    """The convolution, of the layout that the source has, and the shape of its input."""
    name, layout = str(options["before"]).replace("Convolution", "Conv"), str(options["data_format"])
    sides = int(name[name.index("D") - 1]) if name[0] != "D" else int(name.removesuffix("D")[-1])
    arguments = {"kernel_size": _KERNEL, "data_format": layout}
    if not name.startswith("Depthwise"):
        arguments["filters"] = filters
    image = _SIDES[:sides]
    shape = (_INPUTS, *image) if layout == "channels_first" else (*image, _INPUTS)
    return getattr(keras.layers, name)(**arguments), (fixture.BATCH, *shape)
