"""What a whole Keras model computes, and learns, as it is called.

``WARM_UP`` batches with ``training=True`` give the moving statistics something of the values that the model's own
layers make of normal data. Then, each from there and with Dropout at rate 0:

- the gaps ‖a − b‖ / ‖b‖ between the outputs of a call without ``training``, and of calls with True and with False,
- the largest change of the first samples' outputs when their batch-mates are taken away, relative to the largest
  output, in a call without ``training`` and in one with False,
- how far the moving mean of each BatchNormalization moves in ``VALIDATION`` batches of other data (mean ½), in its own
  moving standard deviations: in calls without ``training`` where that is what infers, else with True,
- for ``fit-epoch``, which layers' moving statistics move in ``fit`` on as many batches, at learning rate 0.

Dropout is judged by itself: the gap between two calls, with its rates as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts
from bnlint.verify.backends.keras import scope
from bnlint.verify.backends.keras.rebuilt import Array, dependence, keras, np, numpy, relative
from bnlint.verify.fixture import plain
from bnlint.verify.models.keras.shapes import Inputs, find_input, leaves, outputs

WARM_UP = 10
VALIDATION = 8


def measure(build: Callable[[], Any], name: str, kind: str, device: str) -> Facts:
    """The numbers for a model. Raises ``CannotMeasure``."""
    with scope(device):
        return _Model(*find_input(lambda: _built(build, name))).facts(kind)


def _built(build: Callable[[], Any], name: str) -> Any:
    keras.utils.clear_session()  # so that names do not count how often it was built
    keras.utils.set_random_seed(fixture.SEED)
    model = build()
    if not isinstance(model, keras.layers.Layer):
        raise CannotMeasure(f"{name} is no model or layer of Keras")
    return model


def _drops(layer: Any) -> bool:
    return "Dropout" in type(layer).__name__ and bool(getattr(layer, "rate", 0))


class _Model:
    """A model that knows the shape of its input, after its warm-up."""

    def __init__(self, model: Any, inputs: Inputs) -> None:
        self.model = model
        self.inputs = inputs
        layers = leaves(model)
        self.norms = {
            getattr(layer, "path", layer.name): layer
            for layer in layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.built
        }
        self.rates = [(layer, layer.rate) for layer in layers if _drops(layer)]
        self._set_rates(0.0)
        for number in range(WARM_UP):
            self._call(inputs.draw(1 + number), True)
        self.weights = model.get_weights()

    def facts(self, kind: str) -> Facts:
        facts: Facts = {
            "input": self.inputs.described(),
            "dtype": "float32",
            "seed": fixture.SEED,
            "modules": len(self.model._flatten_layers()),
            "parameters": int(self.model.count_params()),
            "norm_layers": len(self.norms),
            "trainable_norm_layers": len(self._trainable()),
            "dropout_layers": len(self.rates),
        }
        batch = self.inputs.draw(100)
        part = [array[: fixture.SUBSET] for array in batch]
        default, inference, training = (self._fresh(batch, flag) for flag in (None, False, True))
        facts |= {
            "gap_to_training_true": plain(relative(training, default)),
            "gap_to_training_false": plain(relative(default, inference)),
            "batch_dependence": plain(dependence(default, self._fresh(part, None))),
            "batch_dependence_training_false": plain(dependence(inference, self._fresh(part, False))),
        }
        if self.rates:
            facts |= self._dropped(batch)
        facts["layers_moved_as_called"] = sum(drift > 0 for drift in self._drifts(None, 1).values())
        facts |= self._drifted(None if kind == "training-literal" else True)
        if kind == "fit-epoch":
            facts |= self._fitted()
        return facts

    def _call(self, batch: list[Array], training: bool | None) -> Array:
        told = {} if training is None else {"training": training}
        return outputs(self.model(*self.inputs.given(batch), **told))

    def _fresh(self, batch: list[Array], training: bool | None) -> Array:
        self.model.set_weights(self.weights)
        return self._call(batch, training)

    def _trainable(self) -> list[str]:
        return [name for name, layer in self.norms.items() if layer.trainable]

    def _set_rates(self, rate: float | None) -> None:
        for layer, own in self.rates:
            layer.rate = own if rate is None else rate

    def _dropped(self, batch: list[Array]) -> Facts:
        """The gap between two calls without ``training``, and between two with True."""
        self._set_rates(None)
        gaps = [relative(self._fresh(batch, flag), self._fresh(batch, flag)) for flag in (None, True)]
        self._set_rates(0.0)
        return {"dropout_gap_as_called": plain(gaps[0]), "dropout_gap_training_true": plain(gaps[1])}

    def _drifts(self, training: bool | None, batches: int) -> dict[str, float]:
        self.model.set_weights(self.weights)
        before = self._means()
        for number in range(batches):
            self._call(self.inputs.draw(200 + number, mean=0.5), training)
        return self._moved(before)

    def _drifted(self, training: bool | None) -> Facts:
        drifts = self._drifts(training, VALIDATION)
        if not drifts:
            return {}
        farthest = max(drifts, key=lambda name: drifts[name])
        return {
            "layers_moved": sum(drift > 0 for drift in drifts.values()),
            "largest_drift": plain(drifts[farthest]),
            "largest_drift_in": farthest,
            "drift_by_layer": [[name, plain(drift)] for name, drift in drifts.items()],
            "validation_batches": VALIDATION,
        }

    def _fitted(self) -> Facts:
        if not isinstance(self.model, keras.Model):
            raise CannotMeasure("it is a layer, and only models are fitted")
        if len(self.inputs.shapes) > 1 and not self.inputs.listed:
            raise CannotMeasure("its call() takes several inputs, and fit gives one")
        self.model.set_weights(self.weights)
        batches = [self.inputs.draw(200 + number, mean=0.5) for number in range(VALIDATION)]
        data = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
        targets = keras.tree.map_structure(
            lambda tensor: np.zeros((len(data[0]), *tensor.shape[1:]), "float32"),
            self.model(*self.inputs.given(batches[0]), training=False),
        )
        before = self._means()
        self.model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
        self.model.fit(data if self.inputs.listed else data[0], targets, batch_size=fixture.BATCH, verbose=0)
        moved = self._moved(before)
        still = [name for name in self._trainable() if moved[name] == 0]
        return {"layers_moved_in_fit": sum(drift > 0 for drift in moved.values()), "layers_still_in_fit": still}

    def _means(self) -> dict[str, Array]:
        return {name: numpy(layer.moving_mean) for name, layer in self.norms.items()}

    def _moved(self, before: dict[str, Array]) -> dict[str, float]:
        """How far the moving mean of each layer is from what it was, in its own moving standard deviations."""
        moved = {}
        for name, layer in self.norms.items():
            sd = np.sqrt(numpy(layer.moving_variance) + layer.epsilon)
            moved[name] = float((np.abs(numpy(layer.moving_mean) - before[name]) / sd).max())
        return moved
