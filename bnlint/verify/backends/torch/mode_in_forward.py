"""``mode-in-forward``: ``forward`` itself calls ``self.eval()`` or ``self.train()``.

Option ``method``: ``eval`` or ``train``. A mode that ``forward`` sets wins over the one that the caller chose: with
``eval`` the module is trained in eval mode, so it is run in train mode here; with ``train`` it is evaluated in
train mode, so it is run in eval mode. Either is compared with the same module without the call, over a few batches.
"""

from __future__ import annotations

from typing import Any

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.pairs import Run, of_runs, run
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, torch

Base: Any = torch.nn.Module

METHODS = ("eval", "train")


class SetsItsMode(Base):  # type: ignore[misc]
    def __init__(self, layer: Module, method: str) -> None:
        super().__init__()
        self.layer = layer
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        if self.method:
            getattr(self, self.method)()
        return self.layer(x)


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    method = option(options, "method", METHODS)
    rebuilt = Rebuilt(spec, device)

    def in_the_other_mode(called: str) -> Run:
        layer = rebuilt.used()
        module = SetsItsMode(layer, called).train(method == "eval")
        return run(module, layer, rebuilt.batches(fixture.EPOCH_BATCHES))

    facts = of_runs(
        rebuilt,
        in_the_other_mode(method),
        in_the_other_mode(""),
        f"no {method}() in forward",
        fixture.EPOCH_BATCHES,
    )
    return {**facts, "method": method}
