"""``checkpoint-updates``: the layer is run under ``torch.utils.checkpoint``.

What is checkpointed is run in the forward pass and, since its activations are not kept, once more in the backward
pass. Each run in train mode is an update r <- (1 - m) r + m b with the same batch statistics b, so that two make
1 - (1 - m)^2 of the way to b in place of m: 0.19 at the default 0.1. One step of each is taken here, a forward and a
backward pass, and the distances are compared.
"""

from __future__ import annotations

from importlib import import_module

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import pair
from bnlint.verify.backends.torch.rebuilt import Rebuilt, counted, movement, statistics, torch
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    checkpoint = import_module("torch.utils.checkpoint").checkpoint
    facts = {**rebuilt.facts(rebuilt.input()), **rebuilt.traits(), "mended_by": "no checkpoint"}
    if not facts.get("tracks_running_stats"):
        return facts

    def step(checkpointed: bool) -> tuple[float, int | None]:
        layer, x = rebuilt.used(), rebuilt.input().requires_grad_()
        before, count = statistics(layer), counted(layer)
        with torch.enable_grad():
            output = checkpoint(layer, x, use_reentrant=False) if checkpointed else layer(x)
            output.square().mean().backward()
        after = counted(layer)
        return movement(before, statistics(layer)), None if after is None or count is None else after - count

    written, right = step(True), step(False)
    return {
        **facts,
        **pair("batches_counted", written[1], right[1]),
        **pair("statistics_moved", plain(written[0]), plain(right[0])),
    }
