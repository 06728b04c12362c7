"""Layers that a module registers: whether any code in sight can come to them as the object is built."""

from __future__ import annotations

import textwrap

import pytest

from bnlint.semantics import analyse
from bnlint.source.parse import parse

HEAD = """
import torch
from torch import nn
from elsewhere import Mixin, patched

class Base(nn.Module):
    def __init__(self, option=None):
        super().__init__()
        self.option = option
        self.bn = nn.BatchNorm2d(8)
"""


def is_applied(methods: str, program: str, bases: str = "Base") -> bool:
    """Whether a call of ``net`` is taken to run its BatchNorm."""
    net = f"class Net({bases}):\n{textwrap.indent(textwrap.dedent(methods), '    ')}\n"
    facts = analyse(parse("a.py", f"{HEAD}\n{net}\n{textwrap.dedent(program)}\nnet(x)\n"))
    (call,) = [forward for forward in facts.forwards if forward.receiver == "net"]
    return bool(call.layers)


def forward(*lines: str) -> str:
    return "def forward(self, x):\n" + textwrap.indent("\n".join(lines), "    ")


ON_REQUEST = forward("if self.option:", "    x = self.bn(x)", "return x")


@pytest.mark.parametrize("option", ["None", "False", "0", "''", "True", "2", "chosen"])
@pytest.mark.parametrize(
    ("body", "applied_if"),
    [
        (("if self.option:", "    x = self.bn(x)", "return x"), {"True", "2"}),
        (("return self.bn(x) if self.option else x",), {"True", "2"}),
        (("return self.option and self.bn(x)",), {"True", "2"}),
        (("return self.option or self.bn(x)",), {"None", "False", "0", "''"}),
        (("if not self.option:", "    return x", "return self.bn(x)"), {"True", "2"}),
        (("if self.option is None:", "    raise ValueError", "return self.bn(x)"), {"False", "0", "''", "True", "2"}),
        (("if self.option == 2 and self.training:", "    x = self.bn(x)", "return x"), {"2"}),
        (("if self.option == 2 or self.option is None:", "    x = self.bn(x)", "return x"), {"2", "None"}),
    ],
)
def test_options_decide(option: str, body: tuple[str, ...], applied_if: set[str]) -> None:
    assert is_applied(forward(*body), f"net = Net({option})") is (option in applied_if | {"chosen"})


@pytest.mark.parametrize(
    ("applied", "body"),
    [
        (False, "return x"),
        (False, "isinstance(self, Base)\nreturn x"),
        (True, "return self.bn(x)"),
        (True, "return self.run(lambda y: self.bn(y))"),
        (True, "while self.option:\n    x = self.bn(x)\nreturn x"),
        (True, "try:\n    raise ValueError\nexcept ValueError:\n    return self.bn(x)"),
        (True, "match self.option:\n    case 0 if len(self.bn(x)):\n        pass\nreturn x"),
        (True, "for m in self.children():\n    x = m(x)\nreturn x"),
        (True, "for m in super().children():\n    x = m(x)\nreturn x"),
        (True, "for m in self._modules.values():\n    x = m(x)\nreturn x"),
        (True, "return getattr(self, self.option)(x)"),
        (True, "return helper(self, x)"),
        (True, "return eval(self.option)(x)"),
        (True, "other = self\nreturn other(x)"),
    ],
)
def test_what_comes_to_a_layer(applied: bool, body: str) -> None:
    assert is_applied(forward(*body.split("\n")), "net = Net()") is applied


@pytest.mark.parametrize(
    ("applied", "methods"),
    [
        (False, "def cuda(self):\n    return self"),
        (True, "def switch(self, on):\n    self.option = on"),
        (True, "def switch(self, on):\n    for self.option in on:\n        pass"),
        (True, "def features(self, x):\n    return self.bn(x)"),
        (True, "forward = patched"),
        (True, "if torch:\n    def features(self, x):\n        return self.bn(x)"),
    ],
)
def test_other_methods(applied: bool, methods: str) -> None:
    assert is_applied(f"{ON_REQUEST}\n{methods}", "net = Net()") is applied


@pytest.mark.parametrize(
    ("applied", "program"),
    [
        (False, "net = Net()\nprint(config.option)"),
        (True, "net = Net()\nnet.option = chosen"),
        (True, "net = Net()\nfor m in nets:\n    m.option = True"),
        (True, "net = Net()\nfor m in nets:\n    setattr(m, 'option', True)"),
        (True, "net = Net()\nprint(nets[0].bn(x))"),
        (True, "net = Net()\nprint(getattr(nets[0], 'bn')(x))"),
        (True, "net = Net()\nfor m in nets[0].children():\n    print(m(x))"),
        (True, "net = Net()\nNet.forward = patched"),
        (True, "net = Net()\nfor m in nets:\n    m.forward = patched"),
        (True, "net = nn.Sequential(*Net().children())"),
    ],
)
def test_code_around_the_class(applied: bool, program: str) -> None:
    assert is_applied(ON_REQUEST, program) is applied


@pytest.mark.parametrize(
    ("applied", "bases"),
    [(False, "Base"), (False, "Base, object"), (True, "Mixin, Base"), (True, "Base, nn.Sequential")],
)
def test_code_of_bases_that_is_not_known(applied: bool, bases: str) -> None:
    assert is_applied(ON_REQUEST, "net = Net()", bases) is applied


def test_options_of_the_class() -> None:
    on_request = ON_REQUEST.replace("option", "noisy")
    assert not is_applied(f"noisy = False\n{on_request}", "net = Net()")
    assert is_applied(f"noisy = True\n{on_request}", "net = Net()")


def test_what_is_in_a_part_that_is_never_applied() -> None:
    methods = "def __init__(self):\n    super().__init__(True)\n    self.inner = Base(True)\n"
    assert not is_applied(f"{methods}{forward('return x')}", "net = Net()")
    assert is_applied(f"{methods}{forward('return self.inner.bn(x)')}", "net = Net()")


def test_an_object_of_any_subclass_may_apply_all() -> None:
    program = f"{HEAD}    def forward(self, x):\n        return x\n    def validate(self, x):\n        self(x)\n"
    (call,) = analyse(parse("a.py", program)).forwards
    assert call.layers
