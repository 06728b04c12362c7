"""Layers that stand before a BatchNorm, and what they do to a tensor as far as that matters to it.

They compute the same in both modes, so that ``LAYERS`` does not hold them. Signatures: PyTorch 2.13
(``torch/nn/modules``), Keras 1.2, 2.15 and 3.x (``layers``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Neighbour:
    """A layer, by its canonical name and what it does.

    ``what`` is ``conv`` (a weighted sum over channels, plus a bias), ``depthwise`` (the same, channel by channel),
    ``linear``, ``activation``, ``pool`` (keeps the channels and the number of dimensions), ``resize`` (pads, crops or
    enlarges and keeps these too), ``flatten``, ``reshape``, ``identity`` or ``input``. ``rank`` is the number of
    dimensions of what it takes, 0 where that is left open. ``parameters`` are the positional parameters in order;
    ``bias`` and ``features`` name those of that meaning.
    """

    name: str
    framework: str
    what: str
    parameters: tuple[str, ...] = ()
    rank: int = 0
    bias: str = ""
    features: str = ""

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]


_TORCH_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias",
               "padding_mode", "device", "dtype")  # fmt: skip
_TORCH_TRANSPOSED = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "groups",
                     "bias", "dilation", "padding_mode", "device", "dtype")  # fmt: skip
_KERAS_CONV = ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate")


def _torch(what: str, *names: str, parameters: tuple[str, ...] = (), rank: int = 0) -> list[Neighbour]:
    return [Neighbour(f"torch.nn.{name}", "torch", what, parameters, rank) for name in names]


def _keras(what: str, *names: str, parameters: tuple[str, ...] = (), rank: int = 0) -> list[Neighbour]:
    return [Neighbour(f"keras.layers.{name}", "keras", what, parameters, rank) for name in names]


def _torch_convs(n: int) -> list[Neighbour]:
    made = []
    for stem, parameters in (("Conv", _TORCH_CONV), ("ConvTranspose", _TORCH_TRANSPOSED)):
        name, rank = f"torch.nn.{stem}{n}d", n + 2
        made.append(Neighbour(name, "torch", "conv", parameters, rank, "bias", "out_channels"))
        name = f"torch.nn.Lazy{stem}{n}d"
        made.append(Neighbour(name, "torch", "conv", parameters[1:], rank, "bias", "out_channels"))
    return made


def _keras_convs(n: int) -> list[Neighbour]:
    names = (f"Conv{n}D", f"Convolution{n}D", f"Conv{n}DTranspose", f"SeparableConv{n}D", f"SeparableConvolution{n}D")
    convs = [
        Neighbour(f"keras.layers.{name}", "keras", "conv", _KERAS_CONV, n + 2, "use_bias", "filters") for name in names
    ]
    depthwise = Neighbour(
        f"keras.layers.DepthwiseConv{n}D", "keras", "depthwise",
        ("kernel_size", "strides", "padding", "depth_multiplier", "data_format"), n + 2, "use_bias",
    )  # fmt: skip
    return [*convs, depthwise]


_ALL = (
    *(conv for n in (1, 2, 3) for conv in (*_torch_convs(n), *_keras_convs(n))),
    Neighbour("torch.nn.Linear", "torch", "linear", ("in_features", "out_features", "bias"), 0, "bias", "out_features"),
    Neighbour("torch.nn.LazyLinear", "torch", "linear", ("out_features", "bias"), 0, "bias", "out_features"),
    Neighbour("keras.layers.Dense", "keras", "linear", ("units", "activation", "use_bias"), 0, "use_bias", "units"),
    *_torch(
        "activation", "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid",
        "Tanh", "Softplus", "Hardswish", "Hardsigmoid", "Hardtanh", "RReLU", "LogSigmoid", "Softsign", "Threshold",
    ),
    *_keras("activation", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU"),
    *(
        pool
        for n in (1, 2, 3)
        for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
        for pool in _torch("pool", f"{kind}{n}d", parameters=("kernel_size", "stride", "padding"), rank=n + 2)
    ),
    *(
        pool
        for n in (1, 2, 3)
        for pool in _keras(
            "pool", *(f"{kind}{n}D" for kind in ("MaxPooling", "MaxPool", "AveragePooling", "AvgPool")), rank=n + 2
        )
    ),
    *(pad for n in (1, 2, 3) for pad in _torch("resize", f"ZeroPad{n}d", f"ReflectionPad{n}d", rank=n + 2)),
    *_torch("resize", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"),
    *(
        resize
        for n in (1, 2, 3)
        for resize in _keras("resize", *(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling")))
    ),
    *_torch("flatten", "Flatten", parameters=("start_dim", "end_dim")),
    *_keras("flatten", "Flatten"),
    *_torch("identity", "Identity"),
    *_keras("identity", "InputLayer", "GaussianNoise", "ActivityRegularization", "Identity"),
    Neighbour("keras.Input", "keras", "input", ("shape", "batch_size")),
    *_keras("reshape", "Reshape", parameters=("target_shape",)),
)  # fmt: skip

#: By canonical name.
NEIGHBOURS: Mapping[str, Neighbour] = {neighbour.name: neighbour for neighbour in _ALL}

_FUNCTIONAL = {
    "relu": "ReLU", "relu_": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU", "leaky_relu_": "LeakyReLU",
    "elu": "ELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU", "mish": "Mish", "softplus": "Softplus",
    "hardswish": "Hardswish", "prelu": "PReLU", "sigmoid": "Sigmoid", "tanh": "Tanh",
    **{f"{kind}_pool{n}d": f"{layer}Pool{n}d" for n in (1, 2, 3) for kind, layer in (
        ("max", "Max"), ("avg", "Avg"), ("adaptive_avg", "AdaptiveAvg"), ("adaptive_max", "AdaptiveMax"))},
    "dropout": "Dropout", "dropout1d": "Dropout1d", "dropout2d": "Dropout2d", "dropout3d": "Dropout3d",
}  # fmt: skip
#: Functions that do to their first argument what a layer does: the name of that layer.
FUNCTIONS: Mapping[str, str] = {
    **{f"torch.nn.functional.{name}": f"torch.nn.{layer}" for name, layer in _FUNCTIONAL.items()},
    **{f"torch.{name}": f"torch.nn.{_FUNCTIONAL[name]}" for name in ("relu", "relu_", "selu", "sigmoid", "tanh")},
    **{
        f"{root}.{name}": f"keras.layers.{layer}"
        for root in ("tensorflow.nn", "keras.activations", "keras.backend", "keras.ops")
        for name, layer in (("relu", "ReLU"), ("leaky_relu", "LeakyReLU"), ("elu", "ELU"), ("tanh", "Activation"))
    },
}
#: The parameters of the functional dropouts after their first.
FUNCTION_PARAMETERS = ("p", "training", "inplace")
#: Containers that run what is in them one after another.
SEQUENTIAL = frozenset({"torch.nn.Sequential", "keras.Sequential"})
#: What sets the layout that convolutions of Keras take where they are told none; ``th`` and ``tf`` are Keras 1's words.
SETS_DATA_FORMAT = frozenset({"keras.backend.set_image_data_format", "keras.backend.set_image_dim_ordering",
                              "keras.config.set_image_data_format", "keras.utils.set_image_data_format"})  # fmt: skip
GETS_DATA_FORMAT = frozenset({"keras.backend.image_data_format", "keras.config.image_data_format",
                              "keras.backend.image_dim_ordering"})  # fmt: skip
DATA_FORMATS = {"channels_first": "channels_first", "channels_last": "channels_last", "th": "channels_first",
                "tf": "channels_last"}  # fmt: skip
