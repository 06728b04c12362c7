"""``functional-flag``: ``forward`` calls a function that drops or normalises, and does not tell it the mode.

Option ``function``, its qualified name. A function of ``torch.nn.functional`` sees no ``self.training``; it takes what
its argument says, and else its default, in both modes of the module around it. ``F.dropout`` takes itself to be
training, so it is run in a module in eval mode here; ``F.alpha_dropout`` and ``F.batch_norm`` take themselves to be
evaluating, so these are run in train mode. ``F.scaled_dot_product_attention`` has no such argument and drops by its
``dropout_p`` alone. Each is compared with the same module with ``training=self.training``, or with a ``dropout_p`` of 0
in eval mode, over a few batches.
"""

from __future__ import annotations

from typing import Any

from bnlint.experiment import LayerSpec
from bnlint.frameworks.functional import FUNCTIONS
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.pairs import Run, of_runs, run
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, torch

Base: Any = torch.nn.Module


class CallsFunction(Base):  # type: ignore[misc]
    """The ``layer`` holds the arguments; with ``told`` the function learns the mode."""

    def __init__(self, layer: Module, name: str, told: bool) -> None:
        super().__init__()
        self.layer = layer
        self.function = getattr(torch.nn.functional, name.rpartition(".")[2])
        self.facts = FUNCTIONS[name]
        self.told = told

    def forward(self, x: Tensor) -> Tensor:
        layer, told = self.layer, {"training": self.training} if self.told else {}
        if self.facts.training is None:
            rate = 0.0 if self.told and not self.training else layer.p
            return self.function(x, x, x, **{self.facts.rate: rate})
        if self.facts.rate:
            return self.function(x, layer.p, **told)
        statistics = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        return self.function(x, *statistics, momentum=layer.momentum, eps=layer.eps, **told)


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    name = option(options, "function", FUNCTIONS)
    rebuilt = Rebuilt(spec, device)
    mode = "train" if FUNCTIONS[name].training is False else "eval"

    def called(told: bool) -> Run:
        layer = rebuilt.used()
        module = CallsFunction(layer, name, told).train(mode == "train")
        return run(module, layer, rebuilt.batches(fixture.EPOCH_BATCHES))

    mended_by = "training=self.training" if FUNCTIONS[name].training is not None else "dropout_p of 0 in eval mode"
    facts = of_runs(rebuilt, called(False), called(True), mended_by, fixture.EPOCH_BATCHES)
    facts = {key: value for key, value in facts.items() if not key.startswith("batches_counted")}  # a layer's affair
    return {**facts, "function": FUNCTIONS[name].short_name, "mode": mode}
