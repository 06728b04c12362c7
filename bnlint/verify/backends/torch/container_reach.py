"""``container-reach``: does ``eval()`` on a module reach the layers that it keeps in a container?

Option ``container``: ``list``, ``tuple``, ``dict``, ``ModuleList``, ``ModuleDict`` or ``Sequential``. ``nn.Module``
registers an attribute only if it is itself a module (``Module.__setattr__``): what lies in a plain container is
reached by neither ``eval()`` nor ``parameters()`` nor ``state_dict()``. It is compared, after ``eval()``, with a
ModuleList.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.pairs import of_outputs, pair
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, torch

Base: Any = torch.nn.Module

CONTAINERS: dict[str, Callable[[Module], Any]] = {
    "list": lambda layer: [layer],
    "tuple": lambda layer: (layer,),
    "dict": lambda layer: {"norm": layer},
    "ModuleList": lambda layer: torch.nn.ModuleList([layer]),
    "ModuleDict": lambda layer: torch.nn.ModuleDict({"norm": layer}),
    "Sequential": lambda layer: torch.nn.Sequential(layer),
}


class Keeps(Base):  # type: ignore[misc]
    def __init__(self, layer: Module, container: str) -> None:
        super().__init__()
        self.layers = CONTAINERS[container](layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values() if hasattr(self.layers, "values") else self.layers:
            x = layer(x)
        return x


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    container = option(options, "container", CONTAINERS)
    rebuilt = Rebuilt(spec, device)

    def keeps(kept_in: str) -> Module:
        return Keeps(rebuilt.used(), kept_in).eval()

    layer = rebuilt.used()
    parent = Keeps(layer, container).eval()
    return {
        **of_outputs(rebuilt, lambda: keeps(container), lambda: keeps("ModuleList"), "nn.ModuleList"),
        **pair("state_entries", len(parent.state_dict()), len(keeps("ModuleList").state_dict())),
        "container": container,
        "is_registered": any(module is layer for module in parent.modules()),
        "layer_training_after_eval": bool(layer.training),
    }
