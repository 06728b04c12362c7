"""What the interpreter makes of small programs: modes, ownership, constants, names."""

from __future__ import annotations

import textwrap

import pytest

from bnlint.semantics import FileFacts, analyse
from bnlint.semantics.events import Forward, numbers
from bnlint.semantics.values import Instance
from bnlint.source.parse import parse

NET = """
import copy
import functools
from collections import OrderedDict
import torch
import torch.nn as nn

class Net(nn.Module):
    def __init__(self, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        if norm:
            self.bn = nn.BatchNorm2d(8)
    def forward(self, x):
        return self.bn(self.conv(x))
"""


def facts_of(program: str, prelude: str = NET) -> FileFacts:
    return analyse(parse("a.py", prelude + textwrap.dedent(program)))


def call_of(facts: FileFacts, receiver: str) -> Forward:
    (forward,) = [forward for forward in facts.forwards if forward.receiver == receiver]
    return forward


def mode_at_call(program: str, receiver: str = "net") -> str:
    """``train``, ``eval``, ``either`` or ``unknown``: the mode of the BatchNorm layers when they are run."""
    layers = call_of(facts_of(program), receiver).layers
    modes = {layer.mode for layer in layers}
    assert len(layers) > 0
    (mode,) = {(mode.train is not None, mode.eval is not None) for mode in modes if mode is not None}
    return {(True, False): "train", (False, True): "eval", (True, True): "either", (False, False): "unknown"}[mode]


@pytest.mark.parametrize(
    ("mode", "program"),
    [
        ("train", "net = Net()\nnet(x)"),
        ("eval", "net = Net().cuda().eval()\nnet(x)"),
        ("eval", "net = Net()\nnet.train(False)\nnet(x)"),
        ("eval", "net = Net()\nnet.train(mode=False)\nnet(x)"),
        ("train", "net = Net()\nnet.eval()\nnet.train()\nnet(x)"),
        ("train", "net = Net()\nnet.load_state_dict(torch.load('w'))\nnet(x)"),
        ("train", "net = Net()\nnet.eval\nnet(x)"),
        ("either", "net = Net()\nnet.train(flag)\nnet(x)"),
        ("either", "net = Net()\nnet.train(phase == 'train')\nnet(x)"),
        ("either", "net = Net()\nif flag:\n    net.eval()\nnet(x)"),
        ("eval", "net = Net()\nif flag:\n    net.eval()\nelse:\n    net.train(False)\nnet(x)"),
        ("unknown", "net = Net()\nprepare(net)\nnet(x)"),
        ("unknown", "net = Net()\ntrainer.fit([net])\nnet(x)"),
        (
            "eval",
            "net = Net()\nfor m in net.modules():\n    if isinstance(m, nn.BatchNorm2d):\n        m.eval()\nnet(x)",
        ),
        ("train", "net = nn.DataParallel(Net().to(device))\nnet(x)"),
        ("eval", "net = nn.DataParallel(Net())\nnet.module.eval()\nnet(x)"),
        ("eval", "def f(m):\n    m.eval()\n\nnet = Net()\nf(net)\nnet(x)"),
        ("eval", "def f():\n    net.eval()\n\nnet = Net()\nf()\nnet(x)"),
        ("eval", "def load():\n    m = Net()\n    m.eval()\n    return m\n\nnet = load()\nnet(x)"),
        ("eval", "net = Net()\nfor m in [net]:\n    m.eval()\nnet(x)"),
        ("either", "net = Net()\nfor epoch in range(9):\n    net(x)\n    net.eval()"),
        ("train", "net = Net()\nfor epoch in range(9):\n    net.train()\n    net(x)\n    net.eval()"),
        ("either", "net = Net()\nwhile True:\n    net(x)\n    if done():\n        break\n    net.eval()"),
        ("either", "net = Net()\ntry:\n    net.eval()\nexcept Exception:\n    pass\nnet(x)"),
        (
            "eval",
            "def f(m):\n    if flag:\n        m.eval()\n        return\n    m.train(False)\n\nnet = Net()\nf(net)\nnet(x)",  # noqa: E501
        ),
        ("unknown", "def f(m, n):\n    if n:\n        f(m, n - 1)\n    m.eval\n\nnet = Net()\nf(net, k)\nnet(x)"),
        ("eval", "was = True\nnet = Net()\nif not was:\n    net.train()\nelse:\n    net.eval()\nnet(x)"),
        ("eval", "net = Net()\nnet.apply(lambda m: m)\nnet.eval()\nnet(x)"),
        ("unknown", "net = Net()\nnet.apply(lambda m: m.eval())\nnet(x)"),
        ("unknown", "net = Net()\nnet.training = False\nnet(x)"),
    ],
)
def test_the_mode_in_which_batchnorm_is_run(mode: str, program: str) -> None:
    assert mode_at_call(program) == mode


@pytest.mark.parametrize(
    ("mode", "program"),
    [
        ("train", "net = copy.deepcopy(Net())\nnet(x)"),
        ("train", "first = Net()\nnet = copy.deepcopy(first)\nfirst.eval()\nnet(x)"),
        ("eval", "first = Net().eval()\nnet = copy.deepcopy(first)\nfirst.train()\nnet(x)"),
    ],
)
def test_a_copy_keeps_the_mode_and_goes_its_own_way(mode: str, program: str) -> None:
    assert mode_at_call(program) == mode


def test_an_override_of_train_decides() -> None:
    program = """
    class Frozen(Net):
        def train(self, mode=True):
            super().train(mode)
            self.bn.eval()
            return self

    net = Frozen()
    net.train()
    net(x)
    """
    assert mode_at_call(program) == "eval"


def test_methods_may_run_in_any_order() -> None:
    trainer = """
    class Trainer:
        def __init__(self):
            self.net = Net()
        def validate(self, loader):
            return self.net(loader)
        def fit(self):
            {fit}
    """
    assert mode_at_call(trainer.format(fit="self.net.train()"), "self.net") == "train"
    assert mode_at_call(trainer.format(fit="self.net.eval()"), "self.net") == "either"


def test_a_base_class_from_elsewhere_may_set_any_mode() -> None:
    program = """
    from framework import Base
    class Trainer(Base):
        def __init__(self):
            self.net = Net()
        def validate(self, loader):
            return self.net(loader)
    """
    assert mode_at_call(program, "self.net") == "unknown"


def test_the_mode_of_a_modules_own_parts_is_its_users_affair() -> None:
    program = """
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()
        def predict(self, x):
            return self.net(x)
    """
    assert mode_at_call(program, "self.net") == "unknown"


@pytest.mark.parametrize(
    ("certain", "program"),
    [
        ([True], "net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))"),
        ([True], "net = nn.Sequential(OrderedDict([('bn', nn.BatchNorm2d(8))]))"),
        ([True], "net = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(8)))"),
        ([True], "layers = [nn.ReLU()]\nlayers.append(nn.BatchNorm2d(8))\nnet = nn.Sequential(*layers)"),
        ([True], "layers = []\nfor k in range(3):\n    layers += [nn.BatchNorm2d(8)]\nnet = nn.Sequential(*layers)"),
        ([True], "net = nn.Sequential()\nnet.add_module('bn', nn.BatchNorm2d(8))"),
        ([True], "net = nn.Sequential(*[nn.BatchNorm2d(8) for _ in range(3)])"),
        ([True], "net = nn.ModuleList([nn.BatchNorm2d(8)])"),
        ([True], "norm = functools.partial(nn.BatchNorm2d, eps=1e-3)\nnet = nn.Sequential(norm(8))"),
        ([True], "net = nn.Sequential(Net())"),
        ([True], "net = Net(norm=True)"),
        ([], "net = Net(norm=False)"),
        ([False], "net = Net(norm=flag)"),
        ([False], "net = nn.Sequential(nn.BatchNorm2d(8) if flag else nn.Identity())"),
        ([False], "net = nn.Sequential(*[nn.BatchNorm2d(8) if flag else nn.Identity(), nn.ReLU()])"),
        ([False], "layers = []\nif flag:\n    layers += [nn.BatchNorm2d(8)]\nnet = nn.Sequential(*layers)"),
        ([False], "layers = []\nif flag:\n    layers.append(nn.BatchNorm2d(8))\nnet = nn.Sequential(*layers)"),
        ([False], "net = nn.Sequential()\nif flag:\n    net.add_module('bn', nn.BatchNorm2d(8))"),
        ([False], "net = nn.Sequential()\nnet.bn = nn.BatchNorm2d(8) if flag else nn.ReLU()"),
        ([], "net = nn.Sequential(nn.BatchNorm2d(8, track_running_stats=False), nn.Dropout(0.0), nn.InstanceNorm2d(8))"),  # noqa: E501
        ([], "net = nn.Sequential(nn.Conv2d(3, 8, 3))\nnet.extra = [nn.BatchNorm2d(8)]"),
    ],
)  # fmt: skip
def test_the_layers_that_an_object_owns(certain: list[bool], program: str) -> None:
    layers = call_of(facts_of(program + "\nnet(x)"), "net").layers
    assert sorted({layer.certain for layer in layers}) == certain


def test_what_is_not_known_may_own_anything() -> None:
    assert call_of(facts_of("net = nn.Sequential(make())\nnet(x)"), "net").owns_unknown
    assert not call_of(facts_of("net = nn.Sequential(nn.Conv2d(3, 8, 3))\nnet(x)"), "net").owns_unknown


@pytest.mark.parametrize(
    ("value", "sure", "program"),
    [
        (0.99, True, "nn.BatchNorm2d(8, momentum=0.99)"),
        (0.99, True, "nn.BatchNorm2d(8, 1e-5, 0.99)"),
        (0.99, True, "M = 0.99\nnn.BatchNorm2d(8, momentum=M)"),
        (0.01, True, "M = 0.99\nnn.BatchNorm2d(8, momentum=1 - M)"),
        (0.9, True, "args = dict(momentum=0.9)\nnn.BatchNorm2d(8, **{'momentum': 0.9})"),
        (0.9, True, "functools.partial(nn.BatchNorm2d, momentum=0.9)(8)"),
        (0.9, True, "class C:\n    m = 0.9\nnn.BatchNorm2d(8, momentum=C.m)"),
        (0.9, True, "def f(m=0.1):\n    return nn.BatchNorm2d(8, momentum=m)\nf(0.9)"),
        (0.9, False, "def f(m=0.9):\n    return nn.BatchNorm2d(8, momentum=m)"),
    ],
)
def test_the_momentum_that_a_layer_gets(value: float, sure: bool, program: str) -> None:
    (layer,) = [built for built in facts_of(program).layers if "momentum" in built.instance.arguments]
    constants, exactly = numbers(layer.instance.arguments["momentum"])
    assert [constant.value for constant in constants] == [pytest.approx(value)]
    assert exactly is sure


@pytest.mark.parametrize(
    ("under", "program"),
    [
        (True, "with torch.no_grad():\n    net(x)"),
        (True, "with torch.inference_mode():\n    net(x)"),
        (True, "@torch.no_grad()\ndef f():\n    net(x)\nf()"),
        (True, "def f():\n    net(x)\nwith torch.no_grad():\n    f()"),
        (True, "with torch.set_grad_enabled(False):\n    net(x)"),
        (False, "with torch.set_grad_enabled(phase == 'train'):\n    net(x)"),
        (False, "with torch.no_grad():\n    with torch.enable_grad():\n        net(x)"),
        (False, "with torch.no_grad():\n    pass\nnet(x)"),
    ],
)
def test_whether_gradients_are_off(under: bool, program: str) -> None:
    assert (call_of(facts_of("net = Net()\n" + program), "net").where.no_grad is not None) is under


def test_one_name_is_two_things_in_turn() -> None:
    program = """
    from torch import nn, ones
    import tensorflow as tf
    from tensorflow.keras.layers import *
    from tensorflow.keras.models import *
    a = nn.Sequential(nn.BatchNorm2d(100))
    a(ones(20, 100, 35, 45))
    a = Sequential([BatchNormalization()])
    a(tf.ones((20, 35, 45, 100)))
    """
    first, second = facts_of(program, prelude="").forwards
    assert isinstance(first.target, Instance) and isinstance(second.target, Instance)
    assert (first.target.kind, second.target.kind) == ("torch.nn.Sequential", "keras.Sequential")
    assert [layer.instance.kind for layer in second.layers] == ["keras.layers.BatchNormalization"]
    assert (second.input_shape, second.input_fill) == ((20, 35, 45, 100), 1.0)


@pytest.mark.parametrize(
    ("framework", "statement"),
    [
        ("torch", "from torch.nn import BatchNorm2d as BN"),
        ("torch", "import torch; BN = torch.nn.modules.batchnorm.BatchNorm2d"),
        ("torch", "from torch.nn import *; BN = BatchNorm2d"),
        ("keras", "from keras.layers import BatchNormalization as BN"),
        ("keras", "import tf_keras; BN = tf_keras.layers.BatchNormalization"),
        ("keras", "import tensorflow as tf; BN = tf.keras.layers.BatchNormalization"),
        ("keras", "from tensorflow.python.keras.layers.normalization import BatchNormalization as BN"),
        ("keras", "import tensorflow.keras.layers as L; BN = L.BatchNormalization"),
        (None, "import mindspore.nn as nn; BN = nn.BatchNorm2d"),
        (None, "from paddle.nn import BatchNorm2D as BN"),
        (None, "from flax import linen as nn; BN = nn.BatchNorm"),
        (None, "from torch.nn import *; from mindspore.nn import *; BN = BatchNorm2d"),
        (None, "from .layers import BatchNorm2d as BN"),
        (None, "class BatchNorm2d: pass\nBN = BatchNorm2d"),
    ],
)
def test_whose_batchnorm_a_name_is(framework: str | None, statement: str) -> None:
    built = facts_of(statement + "\nBN(8)", prelude="").layers
    assert [layer.instance.framework for layer in built] == ([framework] if framework else [])


def test_a_functional_model_owns_what_its_tensors_went_through() -> None:
    program = """
    import keras
    i = keras.Input((4,))
    x = keras.layers.Dense(3)(i)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(i, x)
    model(data)
    """
    forward = call_of(facts_of(program, prelude=""), "model")
    assert [layer.instance.kind for layer in forward.layers] == ["keras.layers.BatchNormalization"]


@pytest.mark.parametrize(
    ("frozen", "program"),
    [(False, ""), (True, "model.trainable = False"), (True, "for layer in model.layers:\n    layer.trainable = False")],
)
def test_frozen_keras_layers(frozen: bool, program: str) -> None:
    prelude = "import keras\nmodel = keras.Sequential([keras.layers.BatchNormalization()])\n"
    (layer,) = call_of(facts_of(program + "\nmodel(data)", prelude), "model").layers
    assert layer.frozen is frozen


def test_the_tape_and_the_model_whose_variables_it_is_asked_for() -> None:
    program = """
    import keras
    import tensorflow as tf
    model = keras.Sequential([keras.layers.BatchNormalization()])
    with tf.GradientTape() as tape:
        loss = model(data)
    grads = tape.gradient(loss, model.trainable_variables)
    """
    facts = facts_of(program, prelude="")
    forward, (gradient,) = call_of(facts, "model"), facts.gradients
    assert [tape.location for tape in forward.where.tapes] == [gradient.tape]
    assert gradient.sources == {forward.target} and not gradient.sources_unknown


def test_work_is_bounded_and_then_modes_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnlint.semantics.machine.MAX_STEPS", 20)
    assert not facts_of("net = Net()\n" + "net(x)\n" * 40).complete
