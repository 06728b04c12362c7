"""``shared-statistics``: one layer is run on two inputs of different distributions in turn.

In train mode each is normalised with its own batch statistics. The running statistics, an exponential average over
both, become a mixture: for inputs of means u and v, about (u + v) / 2, and a variance within each that lacks the
(u - v)^2 / 4 between them. Here the second input has the negative mean of the first. After a training the first is
normalised in eval mode, and compared with what a layer that has seen nothing but the first makes of it.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import pair
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, relative, seeded
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    facts = {**rebuilt.facts(x), **rebuilt.traits(), "mended_by": "a layer for each input"}

    def trained(shared: bool) -> Module:
        layer = rebuilt.used()
        first = rebuilt.batches(fixture.FREEZE_BATCHES)
        second = rebuilt.batches(fixture.FREEZE_BATCHES, epoch=2, mean=-fixture.INPUT_MEAN)
        for one, other in zip(first, second, strict=True):
            layer(one)
            if shared:
                layer(other)
        return layer

    written, right = trained(True), trained(False)
    train = seeded(rebuilt.used(), x)
    outputs = seeded(written.eval(), x), seeded(right.eval(), x)
    return {
        **facts,
        "batches": fixture.FREEZE_BATCHES,
        "gap_to_mended": plain(relative(outputs[0], outputs[1])),
        **pair("gap_to_train_mode", plain(relative(outputs[0], train)), plain(relative(outputs[1], train))),
    }
