"""Which layer feeds which: what is seen, and what breaks a chain."""

from __future__ import annotations

import textwrap

import pytest

from bnlint.semantics import FileFacts, analyse
from bnlint.semantics.events import Applied
from bnlint.source.parse import parse

HEADER = """
import torch
import torch.nn as nn
import torch.nn.functional as F
from tensorflow import keras
"""
MODULE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x, flag):
{body}
        return x
"""


def facts_of(code: str) -> FileFacts:
    return analyse(parse("program.py", HEADER + textwrap.dedent(code)))


def norms_of(code: str) -> list[Applied]:
    return [applied for applied in facts_of(code).applied if "BatchNorm" in applied.layer.kind]


def maker_of(code: str) -> str | None:
    """The kind of what feeds the only norm; None where that is not known, nor that it is fed at all."""
    makers = [norm.source for norm in norms_of(code)]
    assert len(makers) <= 1
    return makers[0].layer.kind.rpartition(".")[2] if makers and makers[0] is not None else None


def in_forward(*lines: str) -> str:
    return MODULE.format(body="\n".join(f"        {line}" for line in lines))


@pytest.mark.parametrize(
    "code",
    [
        "nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))",
        "nn.Sequential(*[nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)])",
        "from collections import OrderedDict\n"
        "net = nn.Sequential(OrderedDict([('a', nn.Conv2d(3, 8, 3)), ('b', nn.BatchNorm2d(8))]))",
        "net = nn.Sequential()\nnet.add_module('a', nn.Conv2d(3, 8, 3))\nnet.add_module('b', nn.BatchNorm2d(8))",
        "net = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8))",
        "class Block(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))",
        in_forward("x = self.conv(x)", "x = self.bn(x)"),
        in_forward("x = self.bn(self.conv(x).contiguous())"),
        in_forward("for _ in range(3):", "    x = self.conv(x)", "    x = self.bn(x)"),
    ],
)
def test_a_chain_is_seen(code: str) -> None:
    assert maker_of(code) == "Conv2d"


@pytest.mark.parametrize(
    "code",
    [
        "nn.Sequential(nn.Conv2d(3, 8, 3), *more, nn.BatchNorm2d(8))",
        "nn.ModuleList([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)])\nnn.Sequential(nn.BatchNorm2d(8))",
        "layers = [nn.Conv2d(3, 8, 3)]\nlayers += more\nlayers.append(nn.BatchNorm2d(8))\nnet = nn.Sequential(*layers)"
        "\nnn.Sequential(nn.BatchNorm2d(8))",
        "nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU() if flag else nn.Tanh(), nn.BatchNorm2d(8))",
        in_forward("x = self.bn(self.conv(x) + x)"),
        in_forward("x = self.bn(self.conv(x).permute(0, 2, 3, 1))"),
        in_forward("x = self.bn(self.conv(x)[:, :8])"),
        in_forward("x = self.bn(self.conv(x).mT)"),
        in_forward("x = self.bn(torch.cat([self.conv(x), x]))"),
        in_forward("y = self.conv(x)", "x = self.bn(y if flag else x)"),
        in_forward("if flag:", "    x = self.conv(x)", "x = self.bn(x)"),
    ],
)
def test_a_chain_is_broken(code: str) -> None:
    assert maker_of(code) is None


@pytest.mark.parametrize(
    "lines, once",
    [
        (["y = self.conv(x)", "x = self.bn(y)"], True),
        (["y = self.conv(x)", "x = self.bn(y) + y"], False),
        (["y = self.conv(x)", "if flag:", "    y = self.bn(y)", "x = y"], False),
    ],
)
def test_what_reads_an_output_is_counted(lines: list[str], once: bool) -> None:
    (norm,) = norms_of(in_forward(*lines))
    assert norm.source is not None and norm.source.read_once is once


def test_functions_stand_for_layers() -> None:
    (norm,) = norms_of(in_forward("x = self.bn(F.dropout(F.relu(self.conv(x)), 0.3, self.training))"))
    dropout = norm.source
    assert dropout is not None and dropout.layer.kind == "torch.nn.Dropout" and dropout.construction is None
    assert dropout.source is not None and dropout.source.layer.kind == "torch.nn.ReLU"


def test_keras_models_and_shapes() -> None:
    facts = facts_of(
        """
        keras.backend.set_image_data_format("channels_first")
        model = keras.Sequential([keras.Input((3, 32, 32))])
        model.add(keras.layers.Conv2D(8, 3))
        model.add(keras.layers.BatchNormalization(axis=1))
        image = keras.Input(shape=(None, None, 1))
        x = keras.layers.Conv2D(8, 3, data_format="channels_last")(image)
        x = keras.layers.BatchNormalization()(x)
        """
    )
    assert facts.input_shapes == {(3, 32, 32), (None, None, 1)}
    makers = [norm.source for norm in facts.applied if "BatchNorm" in norm.layer.kind]
    layouts = [next(iter(maker.layer.arguments["data_format"])) for maker in makers if maker is not None]
    assert [getattr(layout, "value", None) for layout in layouts] == ["channels_first", "channels_last"]
