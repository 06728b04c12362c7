"""Experiments are measured in a few shared children: starting a framework is what costs time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec

import pytest

from bnlint.experiment import Experiment, InputSpec, LayerSpec, Scalar
from bnlint.finding import Confidence, Finding, Location, Severity, Verification
from bnlint.verify import TIME_LIMIT, runner, verify


def layer(kind: str, *chosen: str, **arguments: Scalar) -> LayerSpec:
    return LayerSpec(kind, arguments, chosen)


def batch_norm(**arguments: Scalar) -> LayerSpec:
    return layer("torch.nn.BatchNorm2d", **{"num_features": 100, **arguments})


def keras_batch_norm(**arguments: Scalar) -> LayerSpec:
    return layer("keras.layers.BatchNormalization", **arguments)


def experiment(kind: str, *layers: LayerSpec, source: InputSpec | None = None, **options: Scalar) -> Experiment:
    return Experiment(kind, layers[0].kind.partition(".")[0], layers, source, options=options)


def finding(its: Experiment | None, path: str = "model.py") -> Finding:
    where = Location(path, 1, 1, 1, 2)
    return Finding(where, "BNL001", "test", "message", Severity.WARNING, Confidence.CERTAIN, experiment=its)


def answers(
    experiments: Sequence[Experiment], device: str = "cpu", time_limit: float = TIME_LIMIT
) -> list[Verification]:
    verified = verify([finding(one) for one in experiments], device, time_limit)
    return [one.verification for one in verified if one.verification is not None]


TORCH: Mapping[str, Experiment] = {
    "seed": experiment("mode-gap", batch_norm(), source=InputSpec((20, 100, 35, 45), 1.0)),
    "untracked": experiment("mode-gap", batch_norm(track_running_stats=False)),
    "dropout": experiment("mode-gap", layer("torch.nn.Dropout", p=0.5)),
    "dropout p=0": experiment("mode-gap", layer("torch.nn.Dropout", p=0)),
    "mixed": experiment("mode-gap", batch_norm(track_running_stats=False), batch_norm(momentum=0.3)),
    "mixed with unknown": experiment("mode-gap", batch_norm(track_running_stats=False), layer("torch.nn.Mystery")),
    "all refuted": experiment("mode-gap", layer("torch.nn.Dropout", p=0), batch_norm(track_running_stats=False)),
    **{
        name: experiment("mode-gap", layer(f"torch.nn.{name}", num_features=8))
        for name in ("BatchNorm1d", "BatchNorm3d", "SyncBatchNorm")
    },
    **{
        name: experiment("mode-gap", layer(f"torch.nn.{name}"))
        for name in (
            "LazyBatchNorm1d",
            "LazyBatchNorm2d",
            "LazyBatchNorm3d",
            "Dropout1d",
            "Dropout2d",
            "Dropout3d",
            "AlphaDropout",
            "FeatureAlphaDropout",
        )
    },
    **{
        f"{name} tracked={tracked}": experiment(
            "mode-gap", layer(f"torch.nn.{name}", num_features=8, track_running_stats=tracked)
        )
        for name in ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
        for tracked in (True, False)
    },
    "rejected": experiment("mode-gap", batch_norm(no_such_argument=3)),
    "negative": experiment("mode-gap", batch_norm(num_features=-1)),
    "unknown layer": experiment("mode-gap", layer("torch.nn.Conv2d")),
    "not a layer of torch": experiment("mode-gap", layer("torch.load")),
    "huge": experiment("mode-gap", batch_norm(num_features=10**9)),
    "chosen": experiment("mode-gap", layer("torch.nn.BatchNorm2d", "num_features", num_features=16)),
    "source does not fit": experiment("mode-gap", batch_norm(), source=InputSpec((20, 10, 4, 4), 1.0)),
    "source too large": experiment("mode-gap", batch_norm(), source=InputSpec((10**6, 100, 9, 9), 1.0)),
    "on a device": experiment("mode-gap", batch_norm(device="cuda")),
    **{
        f"momentum {momentum}": experiment("momentum-memory", batch_norm(momentum=momentum))
        for momentum in (0.9, 0.99, 0.1, 0.5, 0, 1.0, None, 5.0, float("inf"))
    },
    "momentum untracked": experiment("momentum-memory", batch_norm(momentum=0.9, track_running_stats=False)),
    "momentum of dropout": experiment("momentum-memory", layer("torch.nn.Dropout")),
    **{f"eps {eps}": experiment("eps-gap", batch_norm(eps=eps)) for eps in (0.8, 1e-5, 1e-3)},
    "unknown kind": experiment("phase-of-the-moon", batch_norm()),
}

BATCH_NORMS = (
    *(layer(f"torch.nn.{name}", num_features=8) for name in ("BatchNorm1d", "BatchNorm3d", "SyncBatchNorm")),
    batch_norm(),
    layer("torch.nn.LazyBatchNorm2d"),
)
INSTANCE_NORM = layer("torch.nn.InstanceNorm2d", num_features=8, track_running_stats=True)
DROPOUTS = (layer("torch.nn.Dropout"), layer("torch.nn.AlphaDropout", p=0.2))
WITH_STATISTICS = (*BATCH_NORMS, INSTANCE_NORM)
TWO_MODES = (*WITH_STATISTICS, *DROPOUTS)
ONE_MODE = (
    batch_norm(track_running_stats=False, affine=False),
    layer("torch.nn.InstanceNorm2d", num_features=8),
    layer("torch.nn.Dropout", p=0.0),
)


def each(kind: str, layers: Iterable[LayerSpec], **options: Scalar) -> dict[str, Experiment]:
    """An experiment for each layer, by its name: ``kind option … Layer argument …``."""
    experiments = {}
    for spec in layers:
        named = [kind, *options.values(), spec.kind.rpartition(".")[2], *spec.arguments.values()]
        name = " ".join(str(part).removeprefix("torch.") for part in named)
        experiments[name] = Experiment(kind, "torch", (spec,), options=options)
    return experiments


PLAIN = ("list", "tuple", "dict")
REGISTERING = ("ModuleList", "ModuleDict", "Sequential")
FUSERS = (
    "torch.ao.quantization.fuse_modules",
    "torch.quantization.fuse_modules",
    "torch.ao.quantization.quantize_fx.fuse_fx",
    "torch.ao.quantization.quantize_fx.prepare_fx",
    "torch.nn.utils.fusion.fuse_conv_bn_eval",
    "torch.nn.utils.fuse_linear_bn_eval",
    "torch.fx.experimental.optimization.fuse",
)
OVERRIDES = {
    "train": ("no-mode-parameter", "returns-none", "ignores-mode", "no-super", "shadowed"),
    "eval": ("returns-none", "no-super", "shadowed"),
}

#: Layers in the situations that the rules speak of: each must be confirmed.
MISTAKES: Mapping[str, Experiment] = {
    **each("second-epoch", TWO_MODES),
    **each("mode-in-forward", TWO_MODES, method="eval"),
    **each("mode-in-forward", TWO_MODES, method="train"),
    **each("freeze-drift", WITH_STATISTICS, how="eval-then-train"),
    **each("freeze-drift", WITH_STATISTICS, how="requires-grad"),
    **each("freeze-drift", [batch_norm(momentum=m) for m in (0.0003, None)], how="requires-grad"),
    **each("fresh-layer", [*TWO_MODES, batch_norm(track_running_stats=False)]),
    **{k: v for kept_in in PLAIN for k, v in each("container-reach", TWO_MODES, container=kept_in).items()},
    **each("training-flag", TWO_MODES),
    **each("mc-dropout", WITH_STATISTICS),
    **each("trace-parity", TWO_MODES),
    **each("trace-parity", [batch_norm(momentum=None)]),
    **each("export-parity", TWO_MODES, exporter="torch.export.export"),
    **each("export-parity", [batch_norm(), DROPOUTS[0]], exporter="torch.jit.freeze"),
    **{k: v for name in FUSERS for k, v in each("export-parity", [batch_norm()], exporter=name).items()},
    **each("ema-buffers", WITH_STATISTICS, buffers="ignored"),
    **each("swa-buffers", BATCH_NORMS),
    **each("swa-buffers", [batch_norm(momentum=m) for m in (0.01, 0.9, None)]),
    **{
        k: v
        for method, faults in OVERRIDES.items()
        for fault in faults
        for k, v in each("mode-override", [batch_norm(), DROPOUTS[0]], method=method, fault=fault).items()
    },
}

#: The same layers where the mistake is not made, and layers for which it makes no difference: each must be refuted.
NULLS: Mapping[str, Experiment] = {
    **each("second-epoch", ONE_MODE),
    **each("mode-in-forward", ONE_MODE, method="eval"),
    **each("mode-in-forward", ONE_MODE, method="train"),
    **each("freeze-drift", TWO_MODES, how="refrozen"),
    **each("freeze-drift", TWO_MODES, how="eval-only"),
    **each("freeze-drift", [*ONE_MODE, *DROPOUTS], how="eval-then-train"),
    **each("fresh-layer", ONE_MODE),
    **{k: v for kept_in in REGISTERING for k, v in each("container-reach", TWO_MODES, container=kept_in).items()},
    **each("container-reach", ONE_MODE, container="list"),
    **each("training-flag", TWO_MODES, on_layer=True),
    **each("training-flag", ONE_MODE, on_layer=False),
    **each("mc-dropout", [*ONE_MODE, *DROPOUTS]),
    **each("trace-parity", ONE_MODE),
    **each("export-parity", ONE_MODE, exporter="torch.export.export"),
    # This one puts the module in eval mode by itself.
    **each("export-parity", [batch_norm(), DROPOUTS[0]], exporter="torch.jit.optimize_for_inference"),
    **each("ema-buffers", TWO_MODES, buffers="copied"),
    **each("ema-buffers", [*ONE_MODE, *DROPOUTS], buffers="ignored"),
    **each("swa-buffers", BATCH_NORMS, update_bn=True),
    **each("swa-buffers", [*ONE_MODE, *DROPOUTS, INSTANCE_NORM]),
    **each("mode-override", TWO_MODES, method="train", fault="none"),
    **each("mode-override", TWO_MODES, method="eval", fault="none"),
}

UNDECIDED: Mapping[str, Experiment] = {
    "freeze-drift no momentum": experiment("freeze-drift", batch_norm(momentum=0.0), how="requires-grad"),
    "freeze-drift without how": experiment("freeze-drift", batch_norm()),
    "container-reach set": experiment("container-reach", batch_norm(), container="set"),
    "mode-override odd": experiment("mode-override", batch_norm(), method="eval", fault="ignores-mode"),
    "export-parity unknown": experiment("export-parity", batch_norm(), exporter="torch.save"),
    "export-parity unfusable": experiment("export-parity", INSTANCE_NORM, exporter=FUSERS[0]),
    "onnx BatchNorm": experiment("export-parity", batch_norm(), exporter="torch.onnx.export", dynamo=None),
    "onnx Dropout": experiment("export-parity", DROPOUTS[0], exporter="torch.onnx.export", dynamo=True),
    "onnx old Dropout": experiment("export-parity", DROPOUTS[0], exporter="torch.onnx.export", dynamo=False),
}

KERAS: Mapping[str, Experiment] = {
    "seed": experiment("inference-gap", keras_batch_norm(), source=InputSpec((20, 35, 45, 100), 1.0)),
    "frozen": experiment("inference-gap", keras_batch_norm(trainable=False)),
    **{
        f"{name} {rate}": experiment("inference-gap", layer(f"keras.layers.{name}", rate=rate))
        for name in ("Dropout", "GaussianDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
        for rate in (0.5, 0)
    },
    "axis": experiment("inference-gap", keras_batch_norm(axis=1)),
    "rejected": experiment("inference-gap", keras_batch_norm(no_such_argument=True)),
    "unknown layer": experiment("inference-gap", layer("keras.layers.Dense", units=3)),
    "tape": experiment("tape-step", keras_batch_norm()),
    "tape without weights": experiment("tape-step", keras_batch_norm(scale=False, center=False)),
    "tape frozen": experiment("tape-step", keras_batch_norm(trainable=False)),
    "tape dropout": experiment("tape-step", layer("keras.layers.Dropout", rate=0.5)),
    "fit no parameter": experiment("fit-epoch", keras_batch_norm(), how="no-training-parameter"),
    "fit hard-coded": experiment("fit-epoch", keras_batch_norm(), how="hard-coded-false"),
    "fit frozen": experiment("fit-epoch", keras_batch_norm(trainable=False), how="no-training-parameter"),
    "fit in a graph": experiment("fit-epoch", keras_batch_norm(), how="graph-literal-false"),
    "fit dropout": experiment("fit-epoch", layer("keras.layers.Dropout", rate=0.5), how="no-training-parameter"),
    "literal": experiment("training-literal", keras_batch_norm()),
    "literal frozen": experiment("training-literal", keras_batch_norm(trainable=False)),
    "tape dropout 0": experiment("tape-step", layer("keras.layers.Dropout", rate=0)),
    **{
        f"momentum {momentum}": experiment("momentum-memory", keras_batch_norm(momentum=momentum))
        for momentum in (0.1, 0.9, 0.5, 0.0)
    },
    "momentum frozen": experiment("momentum-memory", keras_batch_norm(momentum=0.1, trainable=False)),
}

Answers = Mapping[str, Verification]


def _need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="session")
def on_torch() -> Answers:
    _need("torch")
    return dict(zip(TORCH, answers(list(TORCH.values())), strict=True))


@pytest.fixture(scope="session")
def on_tensorflow() -> Answers:
    _need("keras", "tensorflow")
    return dict(zip(KERAS, answers(list(KERAS.values())), strict=True))


@pytest.fixture(scope="session")
def on_keras_with_torch() -> Answers:
    """The Keras experiments as they come out where TensorFlow is not installed."""
    _need("keras", "torch")
    with pytest.MonkeyPatch.context() as patch:
        is_installed = runner._is_installed
        patch.setattr(runner, "_is_installed", lambda name, path: name != "tensorflow" and is_installed(name, path))
        return dict(zip(KERAS, answers(list(KERAS.values())), strict=True))


@pytest.fixture(params=["tensorflow", "torch"])
def on_keras(request: pytest.FixtureRequest) -> Answers:
    name = {"tensorflow": "on_tensorflow", "torch": "on_keras_with_torch"}[request.param]
    found: Answers = request.getfixturevalue(name)
    return found


@pytest.fixture(scope="session")
def on_torch_mistakes() -> Answers:
    _need("torch")
    asked = {**MISTAKES, **NULLS, **UNDECIDED}
    return dict(zip(asked, answers(list(asked.values())), strict=True))


@pytest.fixture
def torch_mistakes() -> Mapping[str, Experiment]:
    return {**MISTAKES, **NULLS, **UNDECIDED}


@pytest.fixture(params=list(MISTAKES))
def mistake(request: pytest.FixtureRequest, on_torch_mistakes: Answers) -> Verification:
    return on_torch_mistakes[request.param]


@pytest.fixture(params=list(NULLS))
def null_case(request: pytest.FixtureRequest, on_torch_mistakes: Answers) -> Verification:
    return on_torch_mistakes[request.param]


@pytest.fixture
def ask() -> Callable[..., list[Verification]]:
    """Verify experiments and return the answers, in order."""
    return answers


@pytest.fixture
def make_finding() -> Callable[..., Finding]:
    return finding


@pytest.fixture
def torch_experiment() -> Experiment:
    return TORCH["untracked"]


@pytest.fixture
def keras_experiment() -> Experiment:
    return KERAS["frozen"]


@pytest.fixture
def torch_experiments() -> Mapping[str, Experiment]:
    return TORCH
