"""The catalogue of library models: its form, what everybody knows of them, and that reading it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from bnlint.frameworks.catalogue import layers_of
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import analyse
from bnlint.semantics.project import Project
from bnlint.semantics.values import constant
from bnlint.source.parse import parse

BATCH, DROPOUT = "torch.nn.BatchNorm2d", "torch.nn.Dropout"
KERAS_BATCH, KERAS_DROPOUT = "keras.layers.BatchNormalization", "keras.layers.Dropout"


def test_its_form() -> None:
    data = json.loads(files("bnlint.frameworks").joinpath("catalogue.json").read_text("utf-8"))
    assert set(data) == {"made_from", "kinds", "models"}
    assert {"keras", "segmentation_models_pytorch", "timm", "torchvision"} <= set(data["made_from"])
    assert data["kinds"] == sorted(set(data["kinds"]))
    assert set(data["kinds"]) <= set(LAYERS)
    used = set()
    for family, models in data["models"].items():
        assert family.endswith((".", ":"))
        names = [name for lines in models.values() for line in lines for name in line.split()]
        assert len(names) == len(set(names)), family
        for places, lines in models.items():
            numbers = [int(place) for place in places.split()]
            assert numbers == sorted(set(numbers))
            used |= set(numbers)
            listed = " ".join(lines).split()
            assert listed == sorted(listed)
    assert used == set(range(len(data["kinds"])))


@pytest.mark.parametrize(
    ("builder", "layers"),
    [
        ("torchvision.models.resnet18", {BATCH}),
        ("torchvision.models.resnet50", {BATCH}),
        ("torchvision.models.vgg16", {DROPOUT}),
        ("torchvision.models.vgg16_bn", {BATCH, DROPOUT}),
        ("torchvision.models.alexnet", {DROPOUT}),
        ("torchvision.models.squeezenet1_0", {DROPOUT}),
        ("torchvision.models.densenet121", {BATCH}),
        ("torchvision.models.mobilenet_v2", {BATCH, DROPOUT}),
        ("torchvision.models.efficientnet_b0", {BATCH, DROPOUT}),
        ("torchvision.models.inception_v3", {BATCH, DROPOUT}),
        ("torchvision.models.vit_b_16", set()),  # its dropout has probability zero
        ("torchvision.models.convnext_tiny", set()),
        ("torchvision.models.segmentation.fcn_resnet50", {BATCH, DROPOUT}),
        ("torchvision.models.detection.fasterrcnn_resnet50_fpn", set()),  # frozen in its backbone
        ("torchvision.models.video.r3d_18", {"torch.nn.BatchNorm3d"}),
        ("hub:resnet101", {BATCH}),
        ("hub:deeplabv3_resnet50", {BATCH, DROPOUT}),
        ("timm:resnet50", {BATCH}),
        ("timm:resnet50.a1_in1k", {BATCH}),
        ("timm:hf_hub:timm/resnet50.a1_in1k", {BATCH}),
        ("timm.models.resnet50", {BATCH}),
        ("timm:efficientnet_b0", {BATCH}),
        ("timm:tf_efficientnet_b0_ns", {BATCH}),  # an old name
        ("timm:vit_base_patch16_224", set()),
        ("timm:convnext_tiny", set()),
        ("smp:resnet34", {BATCH}),
        ("smp:tu-resnet50", {BATCH}),
        ("keras.applications.ResNet50", {KERAS_BATCH}),
        ("keras.applications.VGG16", set()),
        ("keras.applications.EfficientNetB0", {KERAS_BATCH, KERAS_DROPOUT}),
    ],
)
def test_what_everybody_knows(builder: str, layers: set[str]) -> None:
    owned = layers_of(builder)
    assert owned is not None
    assert set(owned) == layers


def test_what_it_does_not_know() -> None:
    for builder in (
        "torchvision.models.resnet17",
        "timm:",
        "hub:",
        "",
        "torchvision.models",
        "resnet50",
        "smp:tu-nothing",
    ):
        assert layers_of(builder) is None


@pytest.mark.parametrize(
    ("builder", "layers"),
    [
        ("torchvision.models.__dict__['resnet18']()", {BATCH}),
        ("getattr(torchvision.models, 'vgg16')(num_classes=7)", {DROPOUT}),
        ("torchvision.models.get_model('fcn_resnet50')", {BATCH, DROPOUT}),
        ("torch.hub.load('pytorch/vision:v0.10.0', 'vgg16_bn')", {BATCH, DROPOUT}),
        ("timm.create_model('resnet50', features_only=True)", {BATCH}),
        ("smp.Unet(encoder_name='vgg16_bn', classes=1)", {BATCH}),
        ("smp.FPN('efficientnet-b0')", {BATCH, "torch.nn.Dropout2d"}),
        ("smp.create_model('UNET', encoder_name='mit_b0')", {BATCH}),
        ("timm.create_model('convnext_tiny')", set()),
        # an argument, or who wrote the model, may make it another
        ("torchvision.models.resnet50(norm_layer=FrozenBatchNorm2d)", None),
        ("torchvision.models.detection.fasterrcnn_resnet50_fpn(weights_backbone=None)", None),
        ("timm.create_model('vit_base_patch16_224', drop_rate=rate)", None),
        ("torch.hub.load('somebody/else', 'resnet18')", None),
        ("timm.create_model(name)", None),
        ("smp.Segformer('mit_b0', decoder_use_norm=None)", None),
    ],
)
def test_how_models_are_built(builder: str, layers: set[str] | None) -> None:
    program = f"""
import torch, timm, torchvision
import segmentation_models_pytorch as smp
from somewhere import FrozenBatchNorm2d, name, rate
model = {builder}
with torch.no_grad():
    model(images)
"""
    (forward,) = [forward for forward in analyse(parse("a.py", program)).forwards if forward.receiver == "model"]
    known = not forward.owns_unknown
    assert known == (layers is not None)
    assert {layer.instance.kind for layer in forward.layers if layer.certain} == (layers or set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("torchvision.models.", "resnet18 vgg11 vgg11_bn squeezenet1_1 mobilenet_v2 swin_t"),
        ("timm:", "resnet18 convnext_atto efficientnet_b0 vit_tiny_patch16_224 levit_128 dla34"),
        ("segmentation_models_pytorch.", "unet fpn pspnet"),
        ("keras.applications.", "MobileNet MobileNetV2 VGG16"),
    ],
)
def test_live_models_have_these_layers(family: str, names: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip({"timm:": "timm"}.get(family, family.partition(".")[0]))
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import live\n"
        "print([live.compare(sys.argv[2], name) for name in sys.argv[3:]])\n"
    )
    benchmarks = Path(__file__).parent.parent / "benchmarks"
    command = [sys.executable, "-c", code, str(benchmarks), family, *names.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(["agrees"] * len(names.split()))


def test_it_is_read_when_it_is_asked_and_fast() -> None:
    code = (
        "import json, sys, time\n"
        "import bnlint.cli, bnlint.semantics.interpreter\n"
        "from bnlint.frameworks import catalogue\n"
        "assert catalogue._catalogue.cache_info().currsize == 0\n"
        "seconds = []\n"
        "for _ in range(5):\n"
        "    catalogue._catalogue.cache_clear()\n"
        "    began = time.process_time()\n"
        "    catalogue.layers_of('timm:resnet50')\n"
        "    seconds.append(time.process_time() - began)\n"
        "print(min(seconds))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.05


def test_what_makes_it_follows_a_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script takes minutes over the libraries, so that nobody runs it with each change of what it rests on."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # which the script sets otherwise, for all that follows
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from building import Builder
    from catalogue import surely_in

    (tmp_path / "zoo.py").write_text("""from torch import nn
SIZES = {"small": [8, 16], "large": [8, 16, 32]}
def block(width, **options):
    norm = options.pop("norm", None)
    return nn.Sequential(nn.Conv2d(3, width, 3), (norm or nn.BatchNorm2d)(width, **options))
def net(name, drop=0.0, **options):
    layers, sizes = [], list(SIZES[name])
    while sizes:
        layers.append(block(sizes.pop(), **options))
    try:
        layers.append(nn.Dropout(float(SIZES["none"])))
    except KeyError:
        layers.append(nn.Identity())
    if drop > 0:
        layers.append(nn.Dropout(drop))
    return nn.Sequential(*layers)
""")
    source = (project := Project(str(tmp_path))).source("zoo.py")
    assert source is not None
    machine = Builder(source, project)

    def kinds(**given: str | float) -> frozenset[str] | None:
        machine.forget()
        return surely_in(machine, machine.build("net", {name: constant(value) for name, value in given.items()}))

    assert kinds(name="small") == frozenset({BATCH})
    assert kinds(name="large", drop=0.5) == frozenset({BATCH, DROPOUT})
