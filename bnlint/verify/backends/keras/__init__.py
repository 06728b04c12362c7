"""Keras: rebuild one ``keras.layers`` layer and measure it, on TensorFlow or on Keras's torch backend.

Which of the two is decided by ``KERAS_BACKEND``, set by the parent; their numbers agree. Each kind of experiment is
a module of its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from bnlint.experiment import Experiment, InputSpec, LayerSpec
from bnlint.finding import Plot
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options, says_out_of_memory
from bnlint.verify.backends.keras import (
    always_training,
    axis_layout,
    bias_gradient,
    degenerate_momentum,
    dropout_shift,
    fit_epoch,
    inference_gap,
    momentum_memory,
    plots,
    tape_step,
    training_literal,
    update_ops,
    weights_order,
)
from bnlint.verify.backends.keras.rebuilt import BACKEND, Rebuilt, call, keras, np, tf
from bnlint.verify.backends.keras.stack import measure_together
from bnlint.verify.fixture import plain

#: The kinds of experiment that are measured layer by layer, each ``measure(rebuilt, options)``.
EXPERIMENTS: dict[str, Callable[[Rebuilt, Options], Facts]] = {
    "axis-layout": axis_layout.measure,
    "bias-gradient": bias_gradient.measure,
    "dropout-shift": dropout_shift.measure,
    "fit-epoch": fit_epoch.measure,
    "degenerate-momentum": degenerate_momentum.measure,
    "weights-order": weights_order.measure,
    "update-ops": update_ops.measure,
}

#: Those that can be measured for many layers at once, each ``measure_each(rebuilt)``.
TOGETHER: dict[str, Callable[[Rebuilt], list[Facts]]] = {
    "inference-gap": inference_gap.measure_each,
    "tape-step": tape_step.measure_each,
    "training-literal": training_literal.measure_each,
    "momentum-memory": momentum_memory.measure_each,
    "always-training": always_training.measure_each,
}


class KerasBackend:
    def __init__(self, device: str, fallback: str = "") -> None:
        self.device = device
        self.fallback = fallback
        engine: Any = tf if tf is not None else import_module(BACKEND)
        self.versions = {"keras": str(keras.__version__), BACKEND: str(engine.__version__)}

    def measure(self, experiment: Experiment, layer: LayerSpec, device: str) -> Facts:
        if experiment.kind not in EXPERIMENTS and experiment.kind not in TOGETHER:
            raise CannotMeasure(f"there is no experiment of kind {experiment.kind!r} for keras")
        with scope(device):
            if experiment.kind in TOGETHER:
                return TOGETHER[experiment.kind](Rebuilt(layer))[0]
            return EXPERIMENTS[experiment.kind](Rebuilt(layer), experiment.options)

    def measure_together(self, kind: str, layers: Sequence[LayerSpec], device: str) -> list[Facts | None]:
        if kind not in TOGETHER:
            return [None] * len(layers)
        with scope(device):
            return measure_together(layers, TOGETHER[kind])

    def outputs(self, kind: str, layer: LayerSpec, source: InputSpec, device: str) -> Facts:
        if kind != "inference-gap":
            return {}
        if math.prod(source.shape) > fixture.MAX_ELEMENTS:
            raise CannotMeasure(f"the source's input {fixture.shape_text(source.shape)} is too large to be run here")
        x = np.full(source.shape, source.fill, dtype="float32")
        facts: Facts = {"source_input": f"{fixture.shape_text(source.shape)} filled with {source.fill:g}"}
        rebuilt = Rebuilt(layer, source.shape)
        calls: dict[str, dict[str, bool]] = {"default": {}, "training_true": {"training": True}}
        with scope(device):
            for name, arguments in calls.items():
                output = call(rebuilt.fresh(), x, **arguments)
                facts[f"output_{name}"] = plain(float(output.mean()))
                spread = float(output.max() - output.min())
                if spread > 1e-6 * max(1.0, float(np.abs(output).max())):
                    facts[f"output_{name}_spread"] = plain(spread)
        return facts

    def plots(self, experiment: Experiment, layer: LayerSpec, device: str) -> list[Plot]:
        with scope(device):
            return plots.plots(experiment.kind, layer)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return type(error).__name__ == "ResourceExhaustedError" or says_out_of_memory(error)


def open_backend(device: str) -> KerasBackend:
    if tf is None:
        from bnlint.verify.backends.torch.device import passed_over, pick_device

        picked = pick_device(device)
        return KerasBackend(picked, passed_over(device, picked))
    accelerators = tf.config.list_physical_devices("GPU")
    accelerator = "mps" if sys.platform == "darwin" else "cuda"
    for found in accelerators:
        tf.config.experimental.set_memory_growth(found, True)
    if device == "auto":
        return KerasBackend(accelerator if accelerators else "cpu")
    if device != "cpu" and not (accelerators and device == accelerator):
        raise CannotMeasure(f"device {device} was asked for, but tensorflow {tf.__version__} finds none here")
    return KerasBackend(device)


def scope(device: str) -> Any:
    """Within it, what is computed is computed there."""
    if tf is not None:
        return tf.device("/CPU:0" if device == "cpu" else "/GPU:0")
    return keras.device(device)
