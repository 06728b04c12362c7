"""``second-epoch``: a validation leaves eval mode behind, and the next epoch trains in it.

The first epoch is run in train mode, then ``eval()`` is called and a batch validated; the second epoch is run as
that leaves the module, and once more on another copy with ``train()`` called before it. In eval mode BatchNorm
counts no batch, normalises with the running statistics of the epoch before and leaves them as they are, exactly;
in train mode it counts every batch (``torch/nn/modules/batchnorm.py``). Dropout drops nothing.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import Run, of_runs, run
from bnlint.verify.backends.torch.rebuilt import Rebuilt, torch


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    return of_runs(
        rebuilt,
        _second_epoch(rebuilt, restored=False),
        _second_epoch(rebuilt, restored=True),
        "train() before each epoch",
        fixture.EPOCH_BATCHES,
    )


def _second_epoch(rebuilt: Rebuilt, restored: bool) -> Run:
    layer = rebuilt.used()
    parent = torch.nn.Sequential(layer).train()
    run(parent, layer, rebuilt.batches(fixture.EPOCH_BATCHES))
    parent.eval()
    parent(rebuilt.input())
    if restored:
        parent.train()
    return run(parent, layer, rebuilt.batches(fixture.EPOCH_BATCHES, epoch=2))
