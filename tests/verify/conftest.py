"""Experiments are measured in a few shared children: starting a framework is what costs time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import pytest

from bnlint.experiment import Experiment, InputSpec, LayerSpec, Scalar
from bnlint.finding import Confidence, Finding, Location, Severity, Verification
from bnlint.verify import runner, verify


def layer(kind: str, *chosen: str, **arguments: Scalar) -> LayerSpec:
    return LayerSpec(kind, arguments, chosen)


def batch_norm(**arguments: Scalar) -> LayerSpec:
    return layer("torch.nn.BatchNorm2d", **{"num_features": 100, **arguments})


def keras_batch_norm(**arguments: Scalar) -> LayerSpec:
    return layer("keras.layers.BatchNormalization", **arguments)


def experiment(kind: str, *layers: LayerSpec, source: InputSpec | None = None) -> Experiment:
    return Experiment(kind, layers[0].kind.partition(".")[0], layers, source)


def finding(its: Experiment | None, path: str = "model.py") -> Finding:
    where = Location(path, 1, 1, 1, 2)
    return Finding(where, "BNL001", "test", "message", Severity.WARNING, Confidence.CERTAIN, experiment=its)


def answers(experiments: Sequence[Experiment], device: str = "cpu", **settings: float) -> list[Verification]:
    verified = verify([finding(one) for one in experiments], device, **settings)
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
