"""What is recorded of modules that are exported, averaged, saved and loaded."""

from __future__ import annotations

import pytest

from bnlint.semantics import analyse
from bnlint.semantics.events import Averaged, Exported, FileFacts
from bnlint.source.parse import parse

HEAD = """import copy
from collections import OrderedDict
import torch
from torch import nn
from torchvision import models

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
    def forward(self, x):
        return self.bn(self.conv(x))

net = Net()
ema = copy.deepcopy(net)
x = torch.rand(1, 3, 8, 8)
"""


def facts_of(code: str) -> FileFacts:
    return analyse(parse("program.py", HEAD + code))


def sole_export(code: str) -> Exported:
    (event,) = facts_of(code).exports
    return event


def sole_average(code: str) -> Averaged:
    (event,) = (event for event in facts_of(code).averages if event.averages)
    return event


@pytest.mark.parametrize(
    "call",
    [
        "torch.jit.trace(net, x)",
        "torch.jit.trace(func=net, example_inputs=x)",
        "torch.jit.trace(net.forward, x)",
        "torch.jit.trace_module(net, {'forward': x})",
        "torch.export.export(net.cuda(), (x,))",
        "torch.onnx.export(nn.DataParallel(net), x, 'net.onnx')",
        "torch.jit.freeze(torch.jit.script(net))",
        "torch.quantization.fuse_modules(net, [['conv', 'bn']])",
    ],
)
def test_an_export_is_of_a_module_in_its_mode(call: str) -> None:
    assert sole_export(call).mode.surely_train
    event = sole_export("net.eval()\n" + call)
    assert event.mode.surely_eval
    assert [layer.instance.kind for layer in event.layers] == ["torch.nn.BatchNorm2d"]


def test_a_mode_that_only_some_paths_set_is_not_sure() -> None:
    event = sole_export("if len(x) > 3:\n    net.eval()\ntorch.jit.trace(net, x)")
    assert not event.mode.surely_train and not event.mode.surely_eval


@pytest.mark.parametrize("children, certain", [("*net.children()", True), ("*list(net.children())[:-1]", False)])
def test_a_sequential_of_children_holds_the_very_layers(children: str, certain: bool) -> None:
    event = sole_export(f"part = nn.Sequential({children})\nnet.eval()\ntorch.jit.trace(part, x)")
    assert event.mode.surely_train
    (layer,) = event.layers
    assert layer.mode is not None and layer.mode.surely_eval
    assert layer.certain is certain


@pytest.mark.parametrize(
    "loop",
    [
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.data.mul_(0.9).add_(q.data, alpha=0.1)",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.data = 0.9 * p.data + 0.1 * q.data",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.data *= 0.9\n    p.data += 0.1 * q.data",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.copy_(0.9 * p + 0.1 * q)",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.lerp_(q.detach(), 0.1)",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    a, b = p.data, q.data\n    p.data = mix(a, b)",
        "for (_, p), (_, q) in zip(ema.named_parameters(), net.named_parameters()):\n    p.sub_(0.1 * (p - q))",
        "mine = dict(ema.named_parameters())\nfor name, q in net.named_parameters():\n    mine[name].lerp_(q, 0.1)",
        "mine = OrderedDict(ema.named_parameters())\nfor k in mine:\n    mine[k].add_(dict(net.named_parameters())[k])",
        "mine = ema.state_dict()\nfor name, q in net.named_parameters():\n    mine[name].mul_(0.9).add_(q, alpha=0.1)",
        "torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 0.1)",
        "def f(a, b):\n    for p, q in zip(a.parameters(), b.parameters()):\n        p.lerp_(q, 0.1)\nf(ema, net)",
    ],
)
def test_parameters_are_averaged(loop: str) -> None:
    event = sole_average(loop)
    assert event.target is not event.source and event.names == "parameters"
    assert [layer.instance.kind for layer in event.layers] == ["torch.nn.BatchNorm2d"]


@pytest.mark.parametrize(
    "loop",
    [
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.data.copy_(q.data)",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    print((p - q).norm())",
        "for p in net.parameters():\n    p.data.add_(0.1 * p.grad)",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    p.clone().add_(q)",
        "for p, q in zip(ema.parameters(), net.parameters()):\n    q.grad = p.grad",
    ],
)
def test_what_averages_nothing(loop: str) -> None:
    assert not any(event.averages for event in facts_of(loop).averages)


def test_an_average_of_the_state_goes_through_the_buffers_too() -> None:
    loop = "for k, v in ema.state_dict().items():\n    v.mul_(0.9).add_(net.state_dict()[k], alpha=0.1)"
    assert sole_average(loop).names == "state_dict"


@pytest.mark.parametrize("argument", ["net", "model=net"])
def test_an_averaged_model_holds_a_copy(argument: str) -> None:
    code = f"from torch.optim.swa_utils import AveragedModel\nswa = AveragedModel({argument})\nswa.eval()\nnet(x)\n"
    facts = facts_of(code + "swa(x)\ntorch.save({'swa': swa.state_dict()}, 'swa.pt')")
    (event,) = facts.averaged_models
    assert [layer.instance.kind for layer in event.layers] == ["torch.nn.BatchNorm2d"]
    assert [f.mode.surely_eval for f in facts.forwards if f.receiver in ("net", "swa")] == [False, True]
    assert event.target in facts.put_in_eval and not event.parts & facts.put_in_train
    assert [(use.name, use.target in event.parts) for use in facts.state_uses] == [("saved", True)]
