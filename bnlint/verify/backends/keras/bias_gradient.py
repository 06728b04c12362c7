"""``bias-gradient``: as for torch: what the bias of a layer before a BatchNormalization learns, in double precision.

The layers are built for channels_last, since TensorFlow convolves no other on a CPU; a bias does not care.
"""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Array, Layer, Rebuilt, keras, normal, np, numpy, tf
from bnlint.verify.fixture import plain

_INPUTS = 3
_EXTENT = 6
_KERNEL = 3


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} does not normalise")
    if tf is None:
        raise CannotMeasure("gradients are measured on TensorFlow only")
    keras.utils.set_random_seed(fixture.SEED)
    name = str(options["before"]).replace("Convolution", "Conv")
    before, shape = _layer_before(name)
    arguments = {**rebuilt.arguments, "dtype": "float64", "axis": -1}
    layers = [before, keras.layers.BatchNormalization(**arguments)]
    if options.get("between"):
        layers.insert(1, keras.layers.Activation(str(options["between"])))
    x = normal(np.random.default_rng(fixture.SEED), shape).astype("float64")
    gradients = _gradients(layers, x)
    return {
        **rebuilt.facts(x),
        "dtype": "float64",
        "before": name,
        "bias_gradient": plain(gradients["bias"]),
        "weight_gradient": plain(gradients["kernel"]),
        "gradient_ratio": plain(gradients["bias"] / gradients["kernel"]) if gradients["kernel"] else None,
    }


def _gradients(layers: list[Layer], x: Array) -> dict[str, float]:
    """The norms of the gradients of the first layer's bias and kernel."""
    rng = np.random.default_rng(fixture.SEED + 1)
    with tf.GradientTape() as tape:
        output = layers[0](x)
        for layer in layers[1:]:
            output = layer(output, training=True)
        loss = tf.reduce_sum(output * rng.normal(size=tuple(output.shape)))
    weights = layers[0].trainable_variables
    bias = layers[0].bias
    found = {"bias": 0.0, "kernel": 0.0}
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        key = "bias" if weight is bias else "kernel"
        found[key] = float(np.hypot(found[key], np.linalg.norm(numpy(gradient))))
    return found


def _layer_before(name: str) -> tuple[Layer, tuple[int, ...]]:
    if name == "Dense":
        return keras.layers.Dense(2 * _INPUTS, dtype="float64"), (fixture.BATCH, _INPUTS)
    sides = next(int(letter) for letter in name if letter.isdigit())
    arguments = {} if name.startswith("Depthwise") else {"filters": 2 * _INPUTS}
    layer = getattr(keras.layers, name)(kernel_size=_KERNEL, dtype="float64", **arguments)
    return layer, (fixture.BATCH, *[_EXTENT] * sides, _INPUTS)
