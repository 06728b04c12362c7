"""``trace-parity``: ``torch.jit.trace`` of a module in train mode, and then ``eval()`` on what it gives.

A trace records the operations of one call with their flags as constants, so ``eval()`` on it changes nothing. The
call that is recorded and those of trace's own check run in train mode and move the running statistics. It is
compared with the same module traced in eval mode. Where trace's check finds that two calls in train mode differ in
more than their numbers (``momentum=None``, whose factor depends on the count), it raises.
"""

from __future__ import annotations

import warnings

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch.pairs import attempt, of_outputs
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt, Tensor, counted, movement, statistics, torch
from bnlint.verify.fixture import plain


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    x = rebuilt.input()

    def traced(training: bool) -> Module:
        return _trace(torch.nn.Sequential(rebuilt.used()).train(training), x).eval()

    mended_by = "eval() before the trace"
    _, refused = attempt(lambda: traced(True), lambda: traced(False))
    if refused:
        return {**rebuilt.facts(x), **rebuilt.traits(), "mended_by": mended_by, **refused}
    facts = of_outputs(rebuilt, lambda: traced(True), lambda: traced(False), mended_by)
    if facts.get("tracks_running_stats"):
        layer = rebuilt.used()
        before, count = statistics(layer), counted(layer)
        _trace(torch.nn.Sequential(layer).train(), x)
        facts["statistics_moved_by_tracing"] = plain(movement(before, statistics(layer)))
        if rebuilt.counts:
            facts["batches_counted_by_tracing"] = (counted(layer) or 0) - (count or 0)
    return facts


def _trace(module: Module, x: Tensor) -> Module:
    with warnings.catch_warnings():
        # That trace is deprecated, and that Dropout differs from call to call, is no news here.
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, (x,))
