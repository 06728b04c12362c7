"""``eps-carried``: the layer against itself with the eps of the layer that its statistics come from.

The outputs are (x - mean) / sqrt(variance + eps), in PyTorch and in Keras alike; eps matters most where the variance is
small, so the running variances go from 0.01 to 1.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, relative, torch
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    theirs = options.get("eps_of_source")
    if not rebuilt.normalises or not isinstance(theirs, float):
        raise CannotMeasure(f"{rebuilt.name} has no eps, or that of the other layer is not known")
    x = rebuilt.input(mean=0.0, sd=1.0)
    return {
        **rebuilt.facts(x),
        "eps": plain(float(rebuilt.fresh().eps)),
        "eps_of_source": theirs,
        "gap_eval": plain(relative(_spread(rebuilt.fresh())(x), _spread(rebuilt.fresh(eps=theirs))(x))),
    }


def _spread(layer: Module) -> Module:
    layer.running_var.copy_(torch.logspace(-2, 0, layer.running_var.shape[0]))
    return layer.eval()
