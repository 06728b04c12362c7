"""``half-statistics``: where do running statistics end that are kept in float16 or bfloat16?

A running statistic r moves by a (x - r), with a the weight of the new batch, and is rounded to its dtype. A step of
less than half the distance to the next number, at most u |r| with u = 2^-p for a significand of p bits, is lost: r
stops where |x - r| <= u |r| / a, up to 4 % away at a = 0.1 in bfloat16 (p = 8), and 5 % at a = 0.01 in float16
(p = 11). (The rounding of sums, Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 2.2.)

The same batch is given again and again, as if batches were so large that their statistics do not vary: the noise of
small ones makes some of the steps longer. ``gap_to_mended`` is between what the statistics make of a batch in float32
and what those of a layer do that keeps them in float32; the rounding of outputs is not in it.
"""

from __future__ import annotations

import math

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.pairs import pair
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, relative, seeded, statistics, torch
from bnlint.verify.fixture import plain

_DTYPES = ("float16", "bfloat16")
#: After so many times 1 / a steps what is left of the initial statistics is e^-8, or 0.03 %.
_TIMES = 8
_MOST_STEPS = 10_000


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    dtype = option(options, "dtype", _DTYPES)
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()
    facts = {**rebuilt.facts(x), **rebuilt.traits(), "dtype": dtype, "mended_by": "float32"}
    weight = rebuilt.fresh().momentum
    steps = min(_MOST_STEPS, math.ceil(_TIMES / weight)) if weight else _MOST_STEPS
    half, full = (_trained(rebuilt, x, kept_in, dtype, steps) for kept_in in (dtype, "float32"))
    gap = relative(seeded(half, x), seeded(full, x))
    facts |= {"batches": steps, "gap_to_mended": plain(gap)}
    if not rebuilt.traits()["tracks_running_stats"]:
        return facts
    ends, aims = (statistics(half), statistics(full)), statistics(_after(rebuilt, x))
    return {**facts, **pair("off_the_batch", *[plain(relative(end, aims)) for end in ends])}


def _trained(rebuilt: Rebuilt, x: Tensor, kept_in: str, dtype: str, steps: int) -> Module:
    """A layer in float32, and in eval mode, with the statistics that it had got in ``kept_in``.

    It is given the values of ``dtype`` either way.
    """
    layer, batch = rebuilt.fresh().to(getattr(torch, kept_in)), x.to(getattr(torch, dtype)).to(getattr(torch, kept_in))
    for _ in range(steps):
        layer(batch)
    return layer.float().eval()


def _after(rebuilt: Rebuilt, x: Tensor) -> Module:
    """A layer whose running statistics are those of the batch."""
    layer = rebuilt.fresh(momentum=1.0)
    layer(x)
    return layer
