"""``fresh-layer``: the layer is built anew in each ``forward`` instead of once in ``__init__``.

``eval()`` on the module cannot reach a layer that does not exist yet, and a new one is in train mode: BatchNorm
normalises with the batch it is given, Dropout drops. What the layer would learn is thrown away with it, and no
``state_dict`` has it. It is compared, after ``eval()``, with the same layer built in ``__init__`` and trained a while.
"""

from __future__ import annotations

from typing import Any

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import of_outputs, pair
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, torch

Base: Any = torch.nn.Module


class BuildsInForward(Base):  # type: ignore[misc]
    def __init__(self, rebuilt: Rebuilt) -> None:
        super().__init__()
        self.rebuilt = rebuilt

    def forward(self, x: Tensor) -> Tensor:
        layer = self.rebuilt.fresh()
        return layer(x)


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)

    def as_written() -> Module:
        return BuildsInForward(rebuilt).eval()

    def hoisted() -> Module:
        return torch.nn.Sequential(rebuilt.used()).eval()

    return {
        **of_outputs(rebuilt, as_written, hoisted, "the layer built in __init__"),
        **pair("state_entries", len(as_written().state_dict()), len(hoisted().state_dict())),
    }
