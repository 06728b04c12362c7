"""``noise-run``: a trained layer in train mode is run once on noise, and then put in eval mode.

One update r <- (1 - m) r + m b with the statistics b of a batch of uniform noise (two samples in [0, 1), as
torchsummary makes them) leaves m of its running statistics to the noise: a tenth at the default. It is compared with
the same layer in eval mode before the run.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import of_outputs
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, torch

#: Samples of noise.
_SAMPLES = 2


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    generator = torch.Generator().manual_seed(fixture.SEED)
    noise = torch.rand(rebuilt.shape(_SAMPLES), generator=generator).to(device)

    def run(training: bool) -> Module:
        layer = rebuilt.used().train(training)
        layer(noise)
        return layer.eval()

    return of_outputs(rebuilt, lambda: run(True), lambda: run(False), "eval() before the run")
