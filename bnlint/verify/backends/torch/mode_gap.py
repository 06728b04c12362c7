"""``mode-gap``: train against eval mode, and what one forward in train mode leaves behind.

The gap is ‖train - eval‖ / ‖eval‖ of the outputs. A sample's dependence on its batch-mates is the largest change
of the first samples' outputs when the others are taken away, relative to the largest output: batch statistics
make it 0.1 to 5, running statistics leave rounding, 3e-7.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.rebuilt import Rebuilt, counted, dependence, movement, relative, seeded, statistics
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    layer, unchanging = rebuilt.used(), rebuilt.used().eval()
    before, count = statistics(layer), counted(layer)
    train, evaluated = seeded(layer, x), seeded(unchanging, x)
    facts = {**rebuilt.facts(x), "gap": plain(relative(train, evaluated)), **rebuilt.traits()}
    if not rebuilt.normalises:
        return facts
    part = x[: fixture.SUBSET]
    facts["batch_dependence_train"] = plain(dependence(train, seeded(rebuilt.used(), part)))
    facts["batch_dependence_eval"] = plain(dependence(evaluated, seeded(unchanging, part)))
    if facts["tracks_running_stats"]:
        facts["statistics_drift"] = plain(movement(before, statistics(layer)))
        facts["num_batches_tracked"] = (counted(layer) or 0) - (count or 0)
    return facts
