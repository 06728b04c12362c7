"""One canonical name for every import path of a thing, and none for the things of other frameworks."""

from __future__ import annotations

import pytest

from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import canonical, framework_of

KERAS_ROOTS = (
    "keras",
    "keras.api",
    "keras.src",
    "tf_keras",
    "tensorflow.keras",
    "tensorflow.compat.v1.keras",
    "tensorflow.compat.v2.keras",
    "tensorflow.contrib.keras",
    "tensorflow.python.keras",
    "tensorflow_core.python.keras",
)


@pytest.mark.parametrize("root", KERAS_ROOTS)
def test_every_spelling_of_keras_is_keras(root: str) -> None:
    for place in ("layers", "layers.normalization", "layers.normalization.batch_normalization"):
        assert canonical(f"{root}.{place}.BatchNormalization") == "keras.layers.BatchNormalization"
    assert canonical(f"{root}.layers.Input") == canonical(f"{root}.Input") == "keras.Input"
    for model in ("Model", "Sequential"):
        assert canonical(f"{root}.{model}") == canonical(f"{root}.models.{model}") == f"keras.{model}"
    assert canonical(f"{root}.backend.ones") == "keras.backend.ones"
    assert framework_of(canonical(f"{root}.layers.Dense")) == "keras"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("tensorflow.layers.batch_normalization", "tf1.layers.batch_normalization"),
        ("tensorflow.compat.v1.layers.batch_normalization", "tf1.layers.batch_normalization"),
        ("tensorflow.contrib.layers.batch_norm", "tf1.contrib.batch_norm"),
        ("tensorflow.contrib.slim.batch_norm", "tf1.contrib.batch_norm"),
        ("tf_slim.batch_norm", "tf1.contrib.batch_norm"),
        ("tf_slim.layers.batch_norm", "tf1.contrib.batch_norm"),
        ("torch.nn.BatchNorm2d", "torch.nn.BatchNorm2d"),
        ("torch.nn.modules.BatchNorm2d", "torch.nn.BatchNorm2d"),
        ("torch.nn.modules.batchnorm.BatchNorm2d", "torch.nn.BatchNorm2d"),
        ("torch.nn.modules.dropout.Dropout", "torch.nn.Dropout"),
        ("torch.nn.SyncBatchNorm", "torch.nn.SyncBatchNorm"),
        ("keras.layers.core.Dropout", "keras.layers.Dropout"),
    ],
)
def test_spellings_of_the_layers(written: str, name: str) -> None:
    assert canonical(written) == name
    assert name in LAYERS


def test_other_names_of_the_frameworks() -> None:
    assert canonical("torch.nn.modules.container.Sequential") == "torch.nn.Sequential"
    assert canonical("torch.nn.modules.module.Module") == "torch.nn.Module"
    assert canonical("torch.autograd.grad_mode.no_grad") == "torch.no_grad"
    assert canonical("keras.engine.training.Model") == canonical("keras.src.models.model.Model") == "keras.Model"


@pytest.mark.parametrize("name", [*LAYERS, "torch.nn.Module", "keras.Model", "keras.Input", "tensorflow.GradientTape"])
def test_a_canonical_name_is_its_own(name: str) -> None:
    assert canonical(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "mindspore.nn.BatchNorm2d",
        "paddle.nn.BatchNorm2D",
        "paddle.nn.Dropout",
        "mxnet.gluon.nn.BatchNorm",
        "flax.linen.BatchNorm",
        "oneflow.nn.BatchNorm2d",
        "jittor.nn.BatchNorm2d",
        "chainer.links.BatchNormalization",
        "tensorlayer.layers.BatchNorm2d",
        "torchvision.ops.FrozenBatchNorm2d",
        "kerasy.layers.BatchNormalization",
        "torch_scatter.nn.BatchNorm2d",
        "mylib.keras.layers.BatchNormalization",
        "mylib.torch.nn.BatchNorm2d",
        "layers.BatchNormalization",
        "BatchNorm2d",
    ],
)
def test_other_frameworks_keep_their_names_and_match_nothing(name: str) -> None:
    assert canonical(name) == name
    assert name not in LAYERS
    assert framework_of(name) is None


@pytest.mark.parametrize(
    "name", ["torch.nn.functional.batch_norm", "torch.nn.GroupNorm", "keras.layers.LayerNormalization"]
)
def test_neighbours_in_the_same_framework_are_no_layers_of_ours(name: str) -> None:
    assert canonical(name) == name
    assert name not in LAYERS
    assert framework_of(name) in ("torch", "keras")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("tensorflow.keras.applications.resnet50.ResNet50", "keras.applications.ResNet50"),
        ("keras.applications.resnet.ResNet50", "keras.applications.ResNet50"),
        ("keras.applications.VGG16", "keras.applications.VGG16"),
        ("keras.src.models.functional.Functional", "keras.Model"),
        ("torchvision.models.resnet.resnet50", "torchvision.models.resnet50"),
        ("torchvision.models.resnet50", "torchvision.models.resnet50"),
        ("torchvision.models.segmentation.fcn.fcn_resnet50", "torchvision.models.segmentation.fcn_resnet50"),
        ("torchvision.models.segmentation.fcn_resnet50", "torchvision.models.segmentation.fcn_resnet50"),
        ("timm.models.resnet.resnet50", "timm.models.resnet50"),
    ],
)
def test_spellings_of_models(written: str, name: str) -> None:
    assert canonical(written) == name
