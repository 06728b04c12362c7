"""``training-flag``: ``module.training = False`` instead of ``module.eval()``.

Option ``on_layer``: whether the flag is set on the layer itself and not on a module that holds it. ``eval()`` walks
through all submodules; an assignment sets one flag, and each layer reads its own.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import of_outputs
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, torch


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    on_layer = options.get("on_layer") is True
    rebuilt = Rebuilt(spec, device)

    def flagged() -> Module:
        parent = torch.nn.Sequential(rebuilt.used()).train()
        (parent[0] if on_layer else parent).training = False
        return parent

    return {
        **of_outputs(rebuilt, flagged, lambda: torch.nn.Sequential(rebuilt.used()).eval(), "eval()"),
        "on_layer": on_layer,
        "layer_training_after_assignment": bool(flagged()[0].training),
    }
