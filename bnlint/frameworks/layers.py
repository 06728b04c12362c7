"""The layers whose behaviour depends on the mode, and the momentum conventions.

Signatures and defaults: PyTorch 2.13 (``torch/nn/modules/batchnorm.py``, ``dropout.py``), Keras 2.15 and 3.x
(``layers/normalization/batch_normalization.py``), TensorFlow 1.15 (``tf.layers``, ``tf.contrib.layers``).

The *new-batch weight* ``a`` puts the conventions on one scale: the running statistics are updated as
``(1 - a) * running + a * batch``. PyTorch's momentum is ``a``; Keras's is ``1 - a``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class LayerFacts:
    """A mode-dependent layer.

    ``kind`` is ``batchnorm``, ``instancenorm`` or ``dropout``. ``parameters`` are the positional parameters in
    order; ``momentum`` and ``eps`` name the parameters of that meaning. ``rebuild_as`` is the layer that the
    verifier builds in its place, where that is another one; both have the same momentum convention.
    """

    name: str
    framework: str
    kind: str
    parameters: tuple[str, ...]
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    momentum: str = ""
    eps: str = ""
    rebuild_as: str = ""

    def new_batch_weight(self, momentum: float) -> float:
        """The weight ``a`` of the new batch in the running statistics, for this layer's convention."""
        return momentum if self.framework == "torch" else 1 - momentum

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]


_TORCH_NORM = ("eps", "momentum", "affine", "track_running_stats", "device", "dtype")
_TORCH_BN = ("num_features", *_TORCH_NORM)
_TORCH_BN_DEFAULTS = {"eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True}
_TORCH_IN_DEFAULTS = {**_TORCH_BN_DEFAULTS, "affine": False, "track_running_stats": False}
_KERAS_BN = ("axis", "momentum", "epsilon", "center", "scale")
_KERAS_BN_DEFAULTS = {"axis": -1, "momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True}
_KERAS_BATCHNORM = "keras.layers.BatchNormalization"


def _torch_norm(name: str, kind: str, parameters: tuple[str, ...], defaults: Mapping[str, Scalar]) -> LayerFacts:
    return LayerFacts(f"torch.nn.{name}", "torch", kind, parameters, defaults, "momentum", "eps")


def _dropout(name: str, parameters: tuple[str, ...], defaults: Mapping[str, Scalar]) -> LayerFacts:
    return LayerFacts(name, name.split(".", 1)[0], "dropout", parameters, defaults)


_ALL = (
    *(_torch_norm(f"BatchNorm{n}d", "batchnorm", _TORCH_BN, _TORCH_BN_DEFAULTS) for n in (1, 2, 3)),
    *(_torch_norm(f"LazyBatchNorm{n}d", "batchnorm", _TORCH_NORM, _TORCH_BN_DEFAULTS) for n in (1, 2, 3)),
    LayerFacts(
        "torch.nn.SyncBatchNorm",
        "torch",
        "batchnorm",
        ("num_features", "eps", "momentum", "affine", "track_running_stats", "process_group", "device", "dtype"),
        _TORCH_BN_DEFAULTS,
        "momentum",
        "eps",
        rebuild_as="torch.nn.BatchNorm2d",  # the same arithmetic on one device, without a process group
    ),
    *(_torch_norm(f"InstanceNorm{n}d", "instancenorm", _TORCH_BN, _TORCH_IN_DEFAULTS) for n in (1, 2, 3)),
    *(
        _dropout(f"torch.nn.{name}", ("p", "inplace"), {"p": 0.5, "inplace": False})
        for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
    ),
    LayerFacts(
        _KERAS_BATCHNORM, "keras", "batchnorm", _KERAS_BN, _KERAS_BN_DEFAULTS, "momentum", "epsilon"
    ),
    LayerFacts(
        "keras.layers.SyncBatchNormalization", "keras", "batchnorm", _KERAS_BN, _KERAS_BN_DEFAULTS, "momentum",
        "epsilon", rebuild_as=_KERAS_BATCHNORM,
    ),
    _dropout("keras.layers.Dropout", ("rate", "noise_shape", "seed"), {"rate": 0.5}),
    *(_dropout(f"keras.layers.SpatialDropout{n}D", ("rate",), {"rate": 0.5}) for n in (1, 2, 3)),
    _dropout("keras.layers.GaussianDropout", ("rate",), {"rate": 0.5}),
    LayerFacts(
        "tf1.layers.batch_normalization", "keras", "batchnorm", ("inputs", *_KERAS_BN), _KERAS_BN_DEFAULTS,
        "momentum", "epsilon", rebuild_as=_KERAS_BATCHNORM,
    ),
    LayerFacts(
        "tf1.contrib.batch_norm",
        "keras",
        "batchnorm",
        ("inputs", "decay", "center", "scale", "epsilon"),
        {"decay": 0.999, "center": True, "scale": False, "epsilon": 1e-3},
        momentum="decay",
        eps="epsilon",
        rebuild_as=_KERAS_BATCHNORM,
    ),
)  # fmt: skip

#: What the weights of a BatchNorm layer are called, in the order of Keras's ``get_weights`` and ``set_weights``.
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "torch": ("weight", "bias", "running_mean", "running_var"),
    "keras": ("gamma", "beta", "moving_mean", "moving_variance"),
}

#: By canonical name.
LAYERS: Mapping[str, LayerFacts] = {facts.name: facts for facts in _ALL}


def effective_batches(new_batch_weight: float) -> float:
    """How many batches the running statistics remember: ``(2 - a) / a``.

    The exponential average with weight ``a`` has the variance of a plain mean over that many independent
    batches (variance ``a / (2 - a)`` of a batch's; Lucas and Saccucci 1990, "Exponentially weighted moving
    average control schemes", eq. 2 in the limit).
    """
    return (2 - new_batch_weight) / new_batch_weight
