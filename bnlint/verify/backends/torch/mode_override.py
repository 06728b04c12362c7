"""``mode-override``: a class overrides ``train()`` or ``eval()``; does the contract of ``nn.Module`` still hold?

``Module.eval`` is ``self.train(False)``, ``Module.train(mode)`` sets the flag in the module and all below it, and both
return the module. Option ``method`` says what is overridden, option ``fault`` what is wrong with it:

- ``no-mode-parameter``: ``def train(self)``, which ``eval()`` cannot call;
- ``returns-none``: no ``return self``, so ``net = Net().eval()`` is None;
- ``ignores-mode``: ``train(mode)`` always sets train mode;
- ``no-super``: neither the parent's method nor the children are called;
- ``shadowed``: an attribute of that name (``self.train = True``) hides the method;
- ``none``: an override that keeps the contract.

``eval()`` is called on a new module, and ``train()`` on one that is in eval mode in all its parts.
"""

from __future__ import annotations

from typing import Any

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, relative, seeded, torch
from bnlint.verify.fixture import one_line, plain

Base: Any = torch.nn.Module


class Net(Base):  # type: ignore[misc]
    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class TrainWithoutMode(Net):
    def train(self) -> Any:
        return super().train()


class TrainReturnsNone(Net):
    def train(self, mode: bool = True) -> None:
        super().train(mode)


class TrainIgnoresMode(Net):
    def train(self, mode: bool = True) -> Any:
        return super().train()


class TrainWithoutSuper(Net):
    def train(self, mode: bool = True) -> Any:
        return self


class TrainShadowed(Net):
    def __init__(self, layer: Module) -> None:
        super().__init__(layer)
        self.train = True


class TrainSound(Net):
    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        return self


class EvalReturnsNone(Net):
    def eval(self) -> None:
        super().eval()


class EvalWithoutSuper(Net):
    def eval(self) -> Any:
        return self


class EvalShadowed(Net):
    def __init__(self, layer: Module) -> None:
        super().__init__(layer)
        self.eval = False


class EvalSound(Net):
    def eval(self) -> Any:
        super().eval()
        return self


OVERRIDES: dict[str, dict[str, type[Net]]] = {
    "train": {
        "no-mode-parameter": TrainWithoutMode,
        "returns-none": TrainReturnsNone,
        "ignores-mode": TrainIgnoresMode,
        "no-super": TrainWithoutSuper,
        "shadowed": TrainShadowed,
        "none": TrainSound,
    },
    "eval": {
        "returns-none": EvalReturnsNone,
        "no-super": EvalWithoutSuper,
        "shadowed": EvalShadowed,
        "none": EvalSound,
    },
}


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    method = option(options, "method", OVERRIDES)
    override = OVERRIDES[method][option(options, "fault", OVERRIDES[method])]
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    evaluated, resumed = override(rebuilt.used()), override(rebuilt.used())
    for module in resumed.modules():
        module.training = False
    facts = {
        **rebuilt.facts(x),
        **rebuilt.traits(),
        "method": method,
        "mended_by": "an override that keeps the contract",
        **_called(evaluated, "eval"),
        **_called(resumed, "train"),
    }
    if "eval_raises" not in facts:
        reference = seeded(TrainSound(rebuilt.used()).eval(), x)
        facts["gap_to_mended"] = plain(relative(seeded(evaluated, x), reference))
    return facts


def _called(net: Net, method: str) -> Facts:
    """Whether the call raises, what it returns, and the flags that it leaves."""
    try:
        returned = getattr(net, method)()
    except TypeError as error:
        # The class's own name means nothing to a reader.
        return {f"{method}_raises": one_line(error).replace(type(net).__name__, Net.__name__)}
    return {
        f"{method}_returns_self": returned is net,
        f"parent_training_after_{method}": bool(net.training),
        f"layer_training_after_{method}": bool(net.layer.training),
    }
