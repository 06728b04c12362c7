"""Keras: rebuild one ``keras.layers`` layer and measure it, on TensorFlow or on Keras's torch backend.

Which of the two is decided by ``KERAS_BACKEND``, set by the parent; their numbers agree.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from bnlint.experiment import CHOSEN_FEATURES, Experiment, InputSpec, LayerSpec, Scalar
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, keras_graphs
from bnlint.verify.fixture import plain

keras: Any = import_module("keras")
np: Any = import_module("numpy")
Array = Any
Layer = Any

BACKEND: str = keras.backend.backend()
#: None on the torch backend.
tf: Any = import_module("tensorflow") if BACKEND == "tensorflow" else None

#: Dimensions of the layer's input, batch and channels included.
RANK = {
    "BatchNormalization": 4,
    "Dropout": 4,
    "GaussianDropout": 4,
    "SpatialDropout1D": 3,
    "SpatialDropout2D": 4,
    "SpatialDropout3D": 5,
}
EXTENT = 4

#: A call costs over a millisecond, so there are fewer batches than for torch, and more channels instead.
MEMORY_BATCHES = 200
MEMORY_BURN_IN = 60
MEMORY_CHANNELS = 4 * fixture.MEMORY_CHANNELS


class KerasBackend:
    def __init__(self, device: str) -> None:
        self.device = device
        engine: Any = tf if tf is not None else import_module(BACKEND)
        self.versions = {"keras": str(keras.__version__), BACKEND: str(engine.__version__)}

    def measure(self, experiment: Experiment, layer: LayerSpec, device: str) -> Facts:
        if experiment.kind not in EXPERIMENTS:
            raise CannotMeasure(f"there is no experiment of kind {experiment.kind!r} for keras")
        with _scope(device):
            return EXPERIMENTS[experiment.kind](Rebuilt(layer))

    def outputs(self, kind: str, layer: LayerSpec, source: InputSpec, device: str) -> Facts:
        if kind != "inference-gap":
            return {}
        if math.prod(source.shape) > fixture.MAX_ELEMENTS:
            raise CannotMeasure(f"the source's input {fixture.shape_text(source.shape)} is too large to be run here")
        x = np.full(source.shape, source.fill, dtype="float32")
        facts: Facts = {"source_input": f"{fixture.shape_text(source.shape)} filled with {source.fill:g}"}
        rebuilt = Rebuilt(layer, source.shape)
        calls: dict[str, dict[str, bool]] = {"default": {}, "training_true": {"training": True}}
        with _scope(device):
            for name, arguments in calls.items():
                output = _call(rebuilt.fresh(), x, **arguments)
                facts[f"output_{name}"] = plain(float(output.mean()))
                spread = float(output.max() - output.min())
                if spread > 1e-6 * max(1.0, float(np.abs(output).max())):
                    facts[f"output_{name}_spread"] = plain(spread)
        return facts

    def is_out_of_memory(self, error: BaseException) -> bool:
        text = str(error)
        return type(error).__name__ == "ResourceExhaustedError" or "out of memory" in text or "OOM" in text


def open_backend(device: str) -> KerasBackend:
    if tf is None:
        from bnlint.verify.backends.torch.device import pick_device

        return KerasBackend(pick_device(device))
    accelerators = tf.config.list_physical_devices("GPU")
    accelerator = "mps" if sys.platform == "darwin" else "cuda"
    for found in accelerators:
        tf.config.experimental.set_memory_growth(found, True)
    if device == "auto":
        return KerasBackend(accelerator if accelerators else "cpu")
    if device != "cpu" and not (accelerators and device == accelerator):
        raise CannotMeasure(f"device {device} was asked for, but tensorflow {tf.__version__} finds none here")
    return KerasBackend(device)


def _scope(device: str) -> Any:
    if tf is not None:
        return tf.device("/CPU:0" if device == "cpu" else "/GPU:0")
    return keras.device(device)


class Rebuilt:
    """A layer as the source builds it, as often as fresh copies of it are needed.

    ``shape`` is the source's own input shape; without it one is chosen, with ``features`` channels.
    """

    def __init__(self, spec: LayerSpec, shape: tuple[int, ...] = (), features: int = CHOSEN_FEATURES) -> None:
        self.spec = spec
        self.name = spec.kind.removeprefix("keras.layers.")
        if self.name not in RANK or not spec.kind.startswith("keras.layers."):
            raise CannotMeasure(f"{spec.kind} is no layer that can be rebuilt")
        self.arguments = dict(spec.arguments)
        self.chosen = [*spec.chosen, *([] if shape else [f"channels={features}"])]
        self.axis = self._axis()
        self.shape = shape or self._shape(features, EXTENT)

    @property
    def normalises(self) -> bool:
        return self.name == "BatchNormalization"

    def for_memory(self) -> Rebuilt:
        """The same layer with many channels and one value per sample and channel."""
        wide = Rebuilt(self.spec, features=MEMORY_CHANNELS)
        wide.shape = wide._shape(MEMORY_CHANNELS, 1)
        return wide

    def fresh(self, **changes: Scalar) -> Layer:
        """A new layer with its initial statistics."""
        keras.utils.set_random_seed(fixture.SEED)  # for what Dropout draws
        layer = getattr(keras.layers, self.name)(**{**self.arguments, **changes})
        layer.build(self.shape)
        return layer

    def input(self) -> Array:
        return _normal(np.random.default_rng(fixture.SEED), self.shape)

    def facts(self, x: Array) -> Facts:
        return {
            "dtype": "float32",
            "seed": fixture.SEED,
            "chosen": self.chosen,
            "input": f"{fixture.shape_text(x.shape)}, normal, mean {x.mean():.2g}, sd {x.std():.2g}",
            "trainable": bool(self.fresh().trainable),
        }

    def _axis(self) -> int:
        axis = self.arguments.get("axis", -1)
        # What is no axis at all is left to Keras to reject.
        return axis if isinstance(axis, int) and axis != 0 and abs(axis) <= 8 else -1

    def _shape(self, features: int, extent: int) -> tuple[int, ...]:
        rank = max(RANK[self.name], self.axis + 1, 1 - self.axis)
        shape = [fixture.BATCH, *[extent] * (rank - 1)]
        shape[self.axis] = features
        return tuple(shape)


def _inference_gap(rebuilt: Rebuilt) -> Facts:
    """A call without ``training=`` against one with ``training=True``, and against the input itself."""
    x = rebuilt.input()
    default = _call(rebuilt.fresh(), x)
    return {
        **rebuilt.facts(x),
        "gap": plain(relative(_call(rebuilt.fresh(), x, training=True), default)),
        "identity_gap": plain(relative(default, x)),
    }


def _tape_step(rebuilt: Rebuilt) -> Facts:
    """What one training step does, as the source writes it and with ``training=True``."""
    x = rebuilt.input()
    facts = rebuilt.facts(x)
    calls: dict[str, dict[str, bool]] = {"default": {}, "training_true": {"training": True}}
    for name, arguments in calls.items():
        layer = rebuilt.fresh()
        before = _statistics(layer) if rebuilt.normalises else None
        output = _train_step(layer, x, **arguments)
        if before is None:
            facts[f"output_change_{name}"] = plain(relative(output, x))
        else:
            facts[f"statistics_change_{name}"] = plain(float(np.abs(_statistics(layer) - before).max()))
    return facts


def _momentum_memory(rebuilt: Rebuilt) -> Facts:
    """As for torch; Keras's momentum is the weight of the old value, so a = 1 - momentum."""
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no momentum")
    wide = rebuilt.for_memory()
    test = wide.input()
    rng = np.random.default_rng(fixture.SEED + 1)
    layer = _converged(wide.fresh())
    momentum = float(layer.momentum)
    # With momentum 0 the converted layer would stay at the true statistics that it is given here.
    converted = _converged(wide.fresh(momentum=1 - momentum)) if momentum else None
    ideal = _call(_converged(wide.fresh()), test, training=False)
    others = tuple(axis for axis in range(test.ndim) if axis != wide.axis % test.ndim)
    means, batch_means, errors, converted_errors = [], [], [], []
    for index in range(MEMORY_BATCHES):
        batch = _normal(rng, wide.shape)
        layer(batch, training=True)
        if converted is not None:
            converted(batch, training=True)
        if index < MEMORY_BURN_IN:
            continue
        means.append(_numpy(layer.moving_mean))
        batch_means.append(batch.mean(others))
        if index % 20 == 0:
            errors.append(relative(_call(layer, test, training=False), ideal))
            if converted is not None:
                converted_errors.append(relative(_call(converted, test, training=False), ideal))
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


EXPERIMENTS: dict[str, Callable[[Rebuilt], Facts]] = {
    "inference-gap": _inference_gap,
    "tape-step": _tape_step,
    "momentum-memory": _momentum_memory,
    "always-training": keras_graphs.always_training,
    "update-ops": keras_graphs.update_ops,
}


def _train_step(layer: Layer, x: Array, **arguments: bool) -> Array:
    """One forward and, on TensorFlow, the rest of the step: gradients from a tape and SGD."""
    if tf is None:
        return _call(layer, x, **arguments)
    with tf.GradientTape() as tape:
        output = layer(x, **arguments)
        loss = tf.reduce_mean(tf.square(output))
    if weights := layer.trainable_variables:
        keras.optimizers.SGD().apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    return _numpy(output)


def _call(layer: Layer, x: Array, **arguments: bool) -> Array:
    return _numpy(layer(x, **arguments))


def _numpy(value: Any) -> Array:
    array = keras.ops.convert_to_numpy(value) if hasattr(keras, "ops") else value.numpy()
    return array.astype("float64")


def _statistics(layer: Layer) -> Array:
    return np.stack([_numpy(layer.moving_mean), _numpy(layer.moving_variance)])


def _converged(layer: Layer) -> Layer:
    layer.moving_mean.assign(np.full(layer.moving_mean.shape, fixture.INPUT_MEAN, "float32"))
    layer.moving_variance.assign(np.full(layer.moving_variance.shape, fixture.INPUT_SD**2, "float32"))
    return layer


def _normal(rng: Any, shape: tuple[int, ...]) -> Array:
    return rng.normal(fixture.INPUT_MEAN, fixture.INPUT_SD, shape).astype("float32")


def _noise(samples: list[Array]) -> float:
    """Standard deviation around the true mean, over batches and channels."""
    return float(np.sqrt(np.mean((np.stack(samples) - fixture.INPUT_MEAN) ** 2)))


def relative(actual: Array, reference: Array) -> float:
    """L2 norm of the difference over that of the reference."""
    difference = float(np.linalg.norm((actual - reference).ravel()))
    norm = float(np.linalg.norm(reference.ravel()))
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)
