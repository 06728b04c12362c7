"""Ways to set a mode, or to take a layer away, that are easily missed: each would be a false alarm."""

from __future__ import annotations

import textwrap

import pytest

from bnlint.semantics import FileFacts, analyse
from bnlint.semantics.events import Forward
from bnlint.semantics.state import Mode
from bnlint.source.parse import parse

HEAD = """
import argparse, collections, contextlib, functools, itertools, sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
    def forward(self, x):
        return self.bn(self.conv(x))
"""
NAMES = {(True, False): "train", (False, True): "eval", (True, True): "either", (False, False): "unknown"}


def facts_of(program: str, head: str = HEAD) -> FileFacts:
    return analyse(parse("a.py", head + textwrap.dedent(program)))


def calls_of(program: str, receiver: str) -> list[Forward]:
    """The calls of what is written ``receiver``; fails where there is none."""
    found = [forward for forward in facts_of(program).forwards if forward.receiver == receiver]
    assert found
    return found


def named(mode: Mode) -> str:
    return NAMES[mode.train is not None, mode.eval is not None]


def modes(program: str, receiver: str = "net") -> set[str]:
    """The modes of the BatchNorm layers at all calls of ``receiver``."""
    return {
        named(layer.mode) for call in calls_of(program, receiver) for layer in call.layers if layer.mode is not None
    }


@pytest.mark.parametrize(
    "change",
    [
        "f = net.eval\nf()",
        "getattr(net, 'eval')()",
        "nn.Module.eval(net)",
        "functools.partial(net.train, False)()",
        "functools.partial(net.train, mode=False)()",
        "net.train(**{'mode': False})",
        "def off(m):\n    m.eval()\nfunctools.partial(off, net)()",
        "[m.eval() for m in [net]]",
        "nets = {'a': net}\nfor name in nets:\n    nets[name].eval()",
        "for name, m in {'a': net}.items():\n    m.eval()",
        "for name, m in dict(a=net).items():\n    m.eval()",
        "for m, k in zip([net], range(1)):\n    m.eval()",
        "for m in filter(None, [net]):\n    m.eval()",
        "nn.DataParallel(net).cuda().module.eval()",
        "copy = net\ncopy.to('cpu').eval()",
        "net.bn.eval()",
        "try:\n    prepare()\nfinally:\n    net.eval()",
        "for b in y:\n    if b:\n        net.eval()\n        continue\n    net.train(False)",
        "for b in y:\n    pass\nelse:\n    net.eval()",
        "match k:\n    case 1:\n        net.eval()\n    case _:\n        net.train(False)",
        "if not k:\n    sys.exit()\nnet.eval()",
        "def f(training=False):\n    net.train(training)\nf()",
        "def f(m=net):\n    m.eval()\nf()",
        "def gen(m):\n    m.eval()\n    yield m\nfor m in gen(net):\n    pass",
        "def outer():\n    def inner():\n        net.eval()\n    inner()\nouter()",
        "class Eval:\n    def __enter__(self):\n        net.eval()\nwith Eval():\n    net(x)",
    ],
)
def test_what_puts_a_net_in_eval_mode(change: str) -> None:
    assert modes(f"net = Net()\n{change}\nnet(x)") == {"eval"}


@pytest.mark.parametrize(
    "change",
    [
        "net.eval() if flag else net.train()",
        "net.train() if flag else net.eval()",
        "flag and net.eval()",
        "flag or net.eval()",
        "if flag:\n    net.eval()",
        "match k:\n    case 1:\n        net.eval()",
        "for b in y:\n    if b:\n        break\n    net.eval()",
        "for phase in phases:\n    if phase == 'train':\n        net.train()\n    else:\n        net.eval()",
    ],
)
def test_what_only_some_paths_do(change: str) -> None:
    assert modes(f"net = Net()\n{change}\nnet(x)") == {"either"}


@pytest.mark.parametrize(
    "change",
    [
        "net.train(argparse.ArgumentParser().parse_args().train)",
        "getattr(net, 'train' if flag else 'eval')()",
        "getattr(net, mode)()",
        "setattr(net, 'training', False)",
        "vars(net)['training'] = False",
        "net.__dict__['training'] = False",
        "for m in net.modules():\n    m.training = False",
        "for m in net.children():\n    m.eval()",
        "for name, m in net.named_modules():\n    if 'bn' in name:\n        m.eval()",
        "for m in net._modules.values():\n    m.eval()",
        "net.get_submodule('bn').eval()",
        "def off(m):\n    for c in m.children():\n        off(c)\n    m.training = False\noff(net)",
        "register(net.eval)",
        "for m in itertools.chain([net]):\n    m.eval()",
        "for m in collections.deque([net]):\n    m.eval()",
        "Holder(net=net)",
        "with evaluating(net):\n    pass",
    ],
)
def test_what_leaves_the_mode_unknown(change: str) -> None:
    assert modes(f"net = Net()\n{change}\nnet(x)") == {"unknown"}


@pytest.mark.parametrize(
    "change",
    [
        "net.eval",
        "net.requires_grad_(False)",
        "torch.save(net.state_dict(), 'w')",
        "net.load_state_dict(torch.load('w'))",
        "print(net)",
        "sum(p.numel() for p in net.parameters())",
        "optimizer = torch.optim.SGD(net.parameters(), lr=0.1)",
        "other = Net()\nother.eval()",
        "net.eval()\nnet = Net()",
        "def never(m):\n    m.eval()",
        "with torch.no_grad():\n    pass",
        "a = getattr(net, 'bn')",
        "net.eval() if False else net.train()",
    ],
)
def test_what_changes_no_mode(change: str) -> None:
    assert modes(f"net = Net()\n{change}\nnet(x)") == {"train"}


@pytest.mark.parametrize("decorator", ["contextmanager", "asynccontextmanager"])
def test_a_context_manager_that_sets_modes_around_its_block(decorator: str) -> None:
    program = f"""
    @contextlib.{decorator}
    def evaluating(m):
        m.eval()
        yield m
        m.train()

    net, other = Net(), Net()
    with evaluating(net):
        net(x)
        other(x)
    """
    assert modes(program) == {"unknown"}
    assert modes(program, "other") == {"train"}


def test_the_end_of_a_context_manager_of_the_file() -> None:
    program = """
    class Eval:
        def __init__(self, m):
            self.m = m
        def __enter__(self):
            self.m.eval()
        def __exit__(self, *what):
            self.m.train()

    a = b = Net()
    with Eval(a):
        a(x)
    b(x)
    """
    assert (modes(program, "a"), modes(program, "b")) == ({"eval"}, {"train"})


TRAINER = """
class Base:
    {base}

class Trainer(Base):
    def __init__(self):
        self.net = Net()
    def run(self):
        self.net(x)
    {more}
"""


@pytest.mark.parametrize(
    ("mode", "base", "more"),
    [
        ("train", "pass", "pass"),
        ("train", "def go(self):\n        self.net.train()", "pass"),
        ("either", "def off(self):\n        self.net.eval()", "pass"),
        ("train", "def off(self):\n        self.net.eval()", "def off(self):\n        pass"),
        ("either", "pass", "def off(self):\n        for m in [self.net]:\n            m.eval()"),
        ("unknown", "def off(self):\n        for n in self.names:\n            getattr(self, 'net' + n).eval()", ""),
        ("unknown", "pass", "def off(self):\n        for m in vars(self).values():\n            m.eval()"),
        ("unknown", "pass", "def off(self):\n        prepare(self)"),
    ],
)  # fmt: skip
def test_other_methods_of_the_object_may_have_run_first(mode: str, base: str, more: str) -> None:
    assert modes(TRAINER.format(base=base, more=more), "self.net") == {mode}


def test_a_subclass_starts_from_its_own_construction() -> None:
    program = TRAINER.format(base="pass", more="") + (
        "class Frozen(Trainer):\n    def __init__(self):\n        super().__init__()\n        self.net.eval()\n"
    )
    assert sorted(named(call.mode) for call in calls_of(program, "self.net")) == ["eval", "train"]


@pytest.mark.parametrize(
    ("mode", "body"),
    [
        ("eval", "def train(self, mode=True):\n        return super().train(False)"),
        ("eval", "def train(self, mode=True):\n        super().train(mode)\n        self.bn.eval()"),
        ("train", "def train(self, mode=True):\n        return super().train(mode)"),
        ("train", "def eval(self):\n        return self"),
        ("either", "def train(self, mode=True):\n        super().train(mode and self.unfrozen)"),
    ],
)
def test_overridden_train_and_eval_decide(mode: str, body: str) -> None:
    call = "eval" if "def eval" in body else "train"
    program = f"class Special(Net):\n    {body}\nnet = Special()\nnet.{call}()\nnet(x)"
    assert modes(program) == {mode}


@pytest.mark.parametrize(
    ("certain", "change"),
    [
        ([True], "pass"),
        ([True], "net.bn = nn.BatchNorm2d(8)"),
        ([], "net.bn = nn.Identity()"),
        ([], "setattr(net, 'bn', nn.GroupNorm(4, 8))"),
        ([], "del net.bn"),
        ([False], "for name, m in net.named_children():\n    setattr(net, name, nn.Identity())"),
        ([False], "for m in net.modules():\n    for name in names:\n        setattr(m, name, nn.Identity())"),
        ([False], "if flag:\n    net.bn = nn.Identity()"),
        ([False], "if flag:\n    del net.bn"),
    ],
)
def test_layers_that_are_taken_away(certain: list[bool], change: str) -> None:
    (call,) = calls_of(f"net = Net()\n{change}\nnet(x)", "net")
    assert [layer.certain for layer in call.layers] == certain


def test_an_element_of_a_sequential_is_replaced() -> None:
    program = "net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))\nnet[1] = {}\nnet(x)"
    (call,) = calls_of(program.format("nn.Identity()"), "net")
    assert [layer.certain for layer in call.layers] == [False]
    (call,) = calls_of(program.format("nn.BatchNorm2d(9)"), "net")
    assert [layer.certain for layer in call.layers] == [False, True]


def test_positional_arguments_of_a_partial() -> None:
    program = "import functools\nfrom torch import nn\nfunctools.partial(nn.BatchNorm2d, 8, 1e-3)(0.99)"
    (layer,) = facts_of(program, head="").layers
    given = {name: [getattr(atom, "value", None) for atom in value] for name, value in layer.instance.arguments.items()}
    assert given == {"num_features": [8], "eps": [1e-3], "momentum": [0.99]}


@pytest.mark.parametrize(
    ("unknown", "body"),
    [
        (False, "self.bn = nn.BatchNorm2d(8)"),
        (False, "self.net = Net()"),
        (True, "self.norm = build()"),
        (True, "self.add_module('norm', build())"),
        (True, "self.net = nn.Sequential(*build())"),
    ],
)
def test_parts_that_are_not_known(unknown: bool, body: str) -> None:
    forward = "    def forward(self, x):\n        return self.norm(self.net(x))\n"
    program = f"class Whole(nn.Module):\n    def __init__(self):\n        {body}\n{forward}net = Whole()\nnet(x)"
    assert [call.owns_unknown for call in calls_of(program, "net")] == [unknown]


def test_what_no_code_calls_is_no_part() -> None:
    program = "class Whole(nn.Module):\n    def __init__(self, size):\n        self.size = size\nWhole(size)(x)"
    (call,) = [call for call in facts_of(program).forwards if call.receiver is None]
    assert not call.owns_unknown


@pytest.mark.parametrize(
    ("certain", "frozen", "change"),
    [
        (True, False, "pass"),
        (True, True, "model.layers[1].trainable = False"),
        (True, True, "model.get_layer('bn').trainable = False"),
        (True, True, "for layer in model.layers[:-1]:\n    layer.trainable = False"),
        (True, True, "setattr(model, 'trainable', False)"),
        (False, False, "model.pop()"),
    ],
)
def test_keras_layers_that_are_frozen_or_removed(certain: bool, frozen: bool, change: str) -> None:
    head = "import keras\nmodel = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization()])\n"
    (call,) = facts_of(f"{change}\nmodel(x)", head).forwards
    assert [(layer.certain, layer.frozen) for layer in call.layers] == [(certain, frozen)]


@pytest.mark.parametrize(
    ("models", "unknown", "sources"),
    [
        (1, False, "model.trainable_variables"),
        (1, False, "other.trainable_weights"),
        (2, False, "model.trainable_variables + other.trainable_variables"),
        (0, False, "x"),
        (0, True, "build().variables"),
    ],
)
def test_what_a_gradient_is_asked_for(models: int, unknown: bool, sources: str) -> None:
    program = f"""
    import tensorflow as tf
    from tensorflow.keras import Sequential
    from tensorflow.keras.layers import BatchNormalization, Dense
    model, other, x = Sequential([Dense(2), BatchNormalization()]), Sequential([Dense(2)]), tf.ones((2, 3))
    with tf.GradientTape() as unused, tf.GradientTape() as tape:
        loss = other(model(x))
    grads = unused.gradient(loss, {sources})
    """
    facts = facts_of(program, head="")
    (gradient,) = facts.gradients
    assert (len(gradient.sources), gradient.sources_unknown) == (models, unknown)
    assert all(call.where.tapes for call in facts.forwards) and len(facts.forwards) == 2


def test_what_may_be_one_of_several_is_met_in_the_same_order_each_time() -> None:
    """Sets of objects are ordered by where these lie in memory, which no two runs have in common."""
    program = """
    MAKERS = {"a": functools.partial(Net), "b": functools.partial(nn.BatchNorm2d, 8),
              "c": functools.partial(nn.Sequential, nn.BatchNorm2d(1)), "d": lambda: nn.Dropout(0.5)}
    both = [Net(), Net(), nn.BatchNorm2d(4), nn.Dropout(0.1)]
    for name in sys.argv:
        model = MAKERS[name]()
        model(torch.load("x.pt"))
    for net in both:
        net(torch.load("x.pt"))
    whole = nn.Sequential(*both)
    whole(torch.load("x.pt"))
    """

    def order() -> list[tuple[str, int, list[int]]]:
        found = facts_of(program).forwards
        return [
            (
                forward.receiver or "",
                forward.target.location.line,
                [its.instance.location.line for its in forward.layers],
            )
            for forward in found
        ]

    first, kept = order(), []
    for _ in range(20):
        kept.append([object() for _ in range(997)])  # so that the next objects lie elsewhere
        assert order() == first
