"""``dropout-shift``: the variance behind Dropout and BatchNorm in eval mode, over that in train mode.

Dropout with probability p makes the variance of inputs of mean m and variance v to (v + p m²) / (1 - p) (Li et al.
2018, "Understanding the disharmony between dropout and batch normalization by variance shift", arXiv:1801.05134).
BatchNorm divides by the root of that in both modes, while in eval mode the variance is v: for m² = v the ratio is
(1 - p) / (1 + p), which is 1/3 at p = 0.5. Measured there: 0.33, and 1.00 at p = 0.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import Rebuilt, normal, torch
from bnlint.verify.fixture import plain

BATCHES = 400
#: Mean and standard deviation of the input alike, as behind many activations.
MEAN = SD = 1.0


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device, features=fixture.MEMORY_CHANNELS)
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} does not normalise")
    rate = options["rate"]
    whole_channels = str(options["dropout"]) != "Dropout"
    name = f"Dropout{len(rebuilt.spatial)}d" if whole_channels else "Dropout"
    torch.manual_seed(fixture.SEED)
    module = torch.nn.Sequential(getattr(torch.nn, name)(rate), rebuilt.fresh())
    generator = torch.Generator().manual_seed(fixture.SEED)
    shape = rebuilt.shape(fixture.BATCH)
    for _ in range(BATCHES):
        trained = module(normal(shape, MEAN, SD, generator).to(device))
    x = normal(shape, MEAN, SD, generator).to(device)
    return {
        **rebuilt.facts(x),
        **rebuilt.traits(),
        "batches": BATCHES,
        "dropout": name,
        "rate": plain(float(rate or 0)),
        "variance_train": plain(float(trained.double().var())),
        "variance_eval": plain(float(module.eval()(x).double().var())),
    }
