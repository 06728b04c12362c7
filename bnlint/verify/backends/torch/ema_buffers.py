"""``ema-buffers``: a moving average of a model is kept by a loop over ``parameters()`` alone.

Option ``buffers``: ``ignored``, or ``copied`` where the loop copies the buffers as well. The average is a deep copy
made at the start; running statistics are buffers and no parameters, so they stay what they were then. No gradient
step is taken here: the parameters of model and average agree, and what tells their outputs apart is the buffers
alone. It is compared, in eval mode, with an average that has the model's buffers.
"""

from __future__ import annotations

from copy import deepcopy

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.pairs import of_outputs, pair
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, relative, statistics, torch
from bnlint.verify.fixture import plain

BUFFERS = ("ignored", "copied")
DECAY = 0.99


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    copies = option(options, "buffers", BUFFERS) == "copied"
    rebuilt = Rebuilt(spec, device)
    model, written = _trained(rebuilt, copies)
    _, mended = _trained(rebuilt, True)
    facts = of_outputs(
        rebuilt,
        lambda: deepcopy(written).eval(),
        lambda: deepcopy(mended).eval(),
        "copying the buffers too",
    )
    facts |= {"batches": fixture.FREEZE_BATCHES, "buffers": "copied" if copies else "ignored"}
    if facts.get("tracks_running_stats"):
        reference = statistics(model[0])
        distances = [plain(relative(statistics(average[0]), reference)) for average in (written, mended)]
        facts |= pair("statistics_distance", *distances)
    return facts


def _trained(rebuilt: Rebuilt, copies_buffers: bool) -> tuple[Module, Module]:
    """A model and its moving average after some batches."""
    model = torch.nn.Sequential(rebuilt.used()).train()
    average = deepcopy(model)
    for batch in rebuilt.batches(fixture.FREEZE_BATCHES):
        model(batch)
        for mean, new in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(new, 1 - DECAY)
        if copies_buffers:
            for buffer, new in zip(average.buffers(), model.buffers(), strict=True):
                buffer.copy_(new)
    return model, average
