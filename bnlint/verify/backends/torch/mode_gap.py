"""``mode-gap``: train against eval mode, and what one forward in train mode leaves behind.

The gap is ‖train - eval‖ / ‖eval‖ of the outputs. A sample's dependence on its batch-mates is the largest change
of the first samples' outputs when the others are taken away, relative to the largest output: batch statistics
make it 0.1 to 5, running statistics leave rounding, 3e-7.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.rebuilt import Rebuilt, dependence, relative, seeded
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    train = seeded(rebuilt.used(), x)
    evaluated = seeded(rebuilt.used().eval(), x)
    facts = {**rebuilt.facts(x), "gap": plain(relative(train, evaluated)), **rebuilt.traits()}
    if not rebuilt.normalises:
        return facts
    part = x[: fixture.SUBSET]
    facts["batch_dependence_train"] = plain(dependence(train, seeded(rebuilt.used(), part)))
    facts["batch_dependence_eval"] = plain(dependence(evaluated, seeded(rebuilt.used().eval(), part)))
    layer, untouched = rebuilt.used(), rebuilt.used()
    layer(x)
    if facts["tracks_running_stats"]:
        moved = [layer.running_mean - untouched.running_mean, layer.running_var - untouched.running_var]
        facts["statistics_drift"] = plain(max(change.abs().max().item() for change in moved))
        facts["num_batches_tracked"] = int(layer.num_batches_tracked - untouched.num_batches_tracked)
    return facts
