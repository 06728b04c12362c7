"""``batch-of-one``: each sample is alone in its batch while the layer trains, and normalised in eval mode afterwards.

Alone in its batch a sample is normalised with its own mean and variance, which is instance normalisation: what tells
samples apart by their means is gone. The running statistics average over all of them, so that eval mode keeps it. Here
the samples' means differ by as much as the values within one do. ``gap`` is ‖train - eval‖ / ‖eval‖ of the outputs,
each sample alone in train mode, and ``gap_mended`` the same for batches of all of them.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.rebuilt import Rebuilt, Tensor, relative, seeded, torch
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    shifts = torch.linspace(-fixture.INPUT_SD, fixture.INPUT_SD, fixture.BATCH, device=device)
    shifts = shifts.reshape(fixture.BATCH, *[1] * (x.dim() - 1))
    x += shifts

    def gap(samples: int) -> float:
        """Between the two modes, after a training on batches of so many samples."""
        layer = rebuilt.fresh(momentum=None)  # a plain average: as after a long training, whatever the momentum

        def run(batch: Tensor) -> Tensor:
            return torch.cat([seeded(layer, part) for part in batch.split(samples)])

        for batch in rebuilt.batches(fixture.EPOCH_BATCHES):
            run(batch + shifts)
        in_training = run(x)
        layer.eval()
        return relative(in_training, run(x))

    return {
        **rebuilt.facts(x),
        **rebuilt.traits(),
        "mended_by": f"batches of {fixture.BATCH}",
        "gap": plain(gap(1)),
        "gap_mended": plain(gap(fixture.BATCH)),
    }
