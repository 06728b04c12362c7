"""BatchNorm layers of frameworks whose momentum alone is looked at: Paddle, MindSpore, Flax, Haiku, MXNet, OneFlow.

They stand apart from ``LAYERS``, so that no rule about PyTorch or Keras ever takes one of them for its own. Names are
their documented ones; ``other_layer`` knows the other spellings. Signatures and defaults: Paddle 2.6
(``paddle/nn/layer/norm.py``), MindSpore 2.x (``mindspore/nn/layer/normalization.py``), Flax 0.12 (``linen`` and
``nnx``), Haiku 0.0.17, MXNet 1.9 (``gluon/nn/basic_layers.py``, the operator ``BatchNorm``), OneFlow 0.9
(``oneflow/nn/modules/batchnorm.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from bnlint.frameworks.layers import NEW_BATCH, OLD_STATISTICS, LayerFacts, Scalar

#: How a framework is written, by the name it has in ``LayerFacts``.
DISPLAYED = {
    "torch": "PyTorch", "keras": "Keras", "paddle": "Paddle", "mindspore": "MindSpore", "flax": "Flax",
    "haiku": "Haiku", "mxnet": "MXNet", "oneflow": "OneFlow",
}  # fmt: skip
#: Frameworks that announce the other convention for a later version, and the last version that this table holds for.
HOLDS_UNTIL = {"mindspore": "2.9"}

_TORCH_BATCHNORM = "torch.nn.BatchNorm2d"
_PADDLE = ("num_features", "momentum", "epsilon", "weight_attr", "bias_attr", "data_format", "use_global_stats", "name")
_PADDLE_OLD = ("num_channels", "act", "is_test", "momentum", "epsilon", "param_attr", "bias_attr", "dtype",
               "data_layout", "in_place", "moving_mean_name", "moving_variance_name",
               "do_model_average_for_mean_and_var", "use_global_stats", "trainable_statistics")  # fmt: skip
_MINDSPORE = ("num_features", "eps", "momentum", "affine", "gamma_init", "beta_init", "moving_mean_init",
              "moving_var_init", "use_batch_statistics")  # fmt: skip
_LINEN = ("use_running_average", "axis", "momentum", "epsilon", "dtype", "param_dtype", "use_bias", "use_scale")
_HAIKU = ("create_scale", "create_offset", "decay_rate", "eps", "scale_init", "offset_init", "axis")
_GLUON = ("axis", "momentum", "epsilon", "center", "scale", "use_global_stats")
_MXNET_OPERATOR = ("data", "gamma", "beta", "moving_mean", "moving_var", "eps", "momentum", "fix_gamma",
                   "use_global_stats")  # fmt: skip
_ONEFLOW = ("num_features", "eps", "momentum", "affine", "track_running_stats")


def _norm(
    name: str,
    parameters: tuple[str, ...],
    default: float | None,
    eps: str = "epsilon",
    *,
    eps_default: float = 1e-5,
    momentum: str = "momentum",
    convention: str = OLD_STATISTICS,
    unused: Mapping[str, tuple[Scalar, ...]] | None = None,
) -> LayerFacts:
    framework = name.split(".", 1)[0]
    defaults = {eps: eps_default} if default is None else {momentum: default, eps: eps_default}
    return LayerFacts(
        name, framework, "batchnorm", parameters, defaults, momentum, eps,
        rebuild_as=_TORCH_BATCHNORM, convention=convention, unused=unused or {},
    )  # fmt: skip


_GLOBAL = {"use_global_stats": (True,)}
_ALL = (
    *(_norm(f"paddle.nn.{name}", _PADDLE, 0.9, unused=_GLOBAL)
      for name in ("BatchNorm1D", "BatchNorm2D", "BatchNorm3D", "SyncBatchNorm")),
    _norm("paddle.nn.BatchNorm", _PADDLE_OLD, 0.9, unused={**_GLOBAL, "is_test": (True,)}),
    *(_norm(f"mindspore.nn.{name}", _MINDSPORE, 0.9, "eps", unused={"use_batch_statistics": (True, False)})
      for name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")),
    _norm("flax.linen.BatchNorm", _LINEN, 0.99, unused={"use_running_average": (True,)}),
    _norm("flax.nnx.BatchNorm", ("num_features", *_LINEN), 0.99, unused={"use_running_average": (True,)}),
    _norm("haiku.BatchNorm", _HAIKU, None, "eps", momentum="decay_rate"),
    _norm("mxnet.gluon.nn.BatchNorm", _GLUON, 0.9, unused=_GLOBAL),
    _norm("mxnet.gluon.nn.SyncBatchNorm", ("in_channels", "num_devices", "momentum", "epsilon"), 0.9, unused=_GLOBAL),
    *(_norm(f"mxnet.{where}.{name}", _MXNET_OPERATOR, 0.9, "eps", eps_default=1e-3, unused=_GLOBAL)
      for where in ("symbol", "ndarray") for name in ("BatchNorm", "BatchNorm_v1")),
    *(_norm(f"oneflow.nn.{name}", _ONEFLOW, 0.1, "eps", convention=NEW_BATCH, unused={"track_running_stats": (False,)})
      for name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")),
)  # fmt: skip

#: By canonical name.
OTHER_LAYERS: Mapping[str, LayerFacts] = {facts.name: facts for facts in _ALL}
OTHER_FRAMEWORKS = frozenset(facts.framework for facts in _ALL)

_CANONICAL = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"paddle\.(?:nn(?:\.layer)?(?:\.norm)?|fluid\.dygraph(?:\.nn)?)\.(\w+)", r"paddle.nn.\1"),
        (r"mindspore\.nn(?:\.layer)?(?:\.normalization)?\.(\w+)", r"mindspore.nn.\1"),
        (r"flax\.linen(?:\.normalization)?\.(\w+)", r"flax.linen.\1"),
        (r"flax\.nnx(?:\.nn)?(?:\.normalization)?\.(\w+)", r"flax.nnx.\1"),
        (r"haiku(?:\._src)?(?:\.batch_norm)?\.(\w+)", r"haiku.\1"),
        (r"mxnet\.gluon\.(?:nn(?:\.basic_layers)?|contrib\.nn(?:\.basic_layers)?)\.(\w+)", r"mxnet.gluon.nn.\1"),
        (r"mxnet\.(?:sym|symbol)\.(\w+)", r"mxnet.symbol.\1"),
        (r"mxnet\.(?:nd|ndarray)\.(\w+)", r"mxnet.ndarray.\1"),
        (r"oneflow\.nn(?:\.modules\.batchnorm)?\.(\w+)", r"oneflow.nn.\1"),
    )
)


@cache
def other_layer(name: str) -> LayerFacts | None:
    """The layer of another framework that a qualified name stands for, in whichever spelling."""
    if name.split(".", 1)[0] not in OTHER_FRAMEWORKS:
        return None
    for pattern, into in _CANONICAL:
        if match := pattern.fullmatch(name):
            return OTHER_LAYERS.get(match.expand(into))
    return None
