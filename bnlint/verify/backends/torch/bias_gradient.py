"""``bias-gradient``: what the bias of a layer before a BatchNorm learns, in double precision.

Train mode subtracts the batch's mean, in which the bias stands for itself, so that the loss does not depend on it
(Ioffe and Szegedy 2015, "Batch normalization", section 3.2): its gradient is 0 but for rounding, 1e-16 of that of the
weights. An activation between the two, or running statistics in place of the batch's, make it 0.1 and more.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, normal, torch
from bnlint.verify.fixture import plain

#: What goes into the layer before.
INPUTS = 3
_KERNEL = 3


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} does not normalise")
    torch.manual_seed(fixture.SEED)
    before, shape = layer_before(str(options["before"]), rebuilt)
    modules = [before.to(device), rebuilt.fresh()]
    if options.get("between"):
        modules.insert(1, getattr(torch.nn, str(options["between"]))())
    x = normal(shape, fixture.INPUT_MEAN, fixture.INPUT_SD).to(device).double()
    with torch.enable_grad():
        output = torch.nn.Sequential(*modules).double().train()(x)
        weights = normal(tuple(output.shape), 0.0, 1.0).to(device).double()
        (output * weights).sum().backward()
    gradients = [float(parameter.grad.norm()) for parameter in (before.bias, before.weight)]
    return {
        **rebuilt.facts(x),
        "dtype": "float64",
        "before": str(options["before"]),
        "bias_gradient": plain(gradients[0]),
        "weight_gradient": plain(gradients[1]),
        "gradient_ratio": plain(gradients[0] / gradients[1]) if gradients[1] else None,
    }


def layer_before(name: str, rebuilt: Rebuilt) -> tuple[Module, tuple[int, ...]]:
    """The layer before, of as many dimensions as the norm takes here, and the shape of its input."""
    if "Linear" in name:
        return torch.nn.Linear(INPUTS, rebuilt.features), (fixture.BATCH, INPUTS)
    transposed = "Transpose" if "Transpose" in name else ""
    conv = getattr(torch.nn, f"Conv{transposed}{len(rebuilt.spatial)}d")(INPUTS, rebuilt.features, _KERNEL)
    return conv, (fixture.BATCH, INPUTS, *(size + _KERNEL - 1 for size in rebuilt.spatial))
