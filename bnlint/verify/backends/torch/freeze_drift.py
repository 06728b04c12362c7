"""``freeze-drift``: a part of a model was meant to be frozen; its running statistics follow the new data.

Option ``how``, by which the part is frozen:

- ``eval-then-train``: ``part.eval()`` once, undone by a later ``model.train()``, which recurses;
- ``requires-grad``: ``part.requires_grad_(False)``, which says nothing about the mode, in a model in train mode;
- ``refrozen``: ``part.eval()`` after each ``model.train()``, as it is right;
- ``eval-only``: ``part.eval()`` and no ``train()`` after it, which holds as well.

With new-batch weight a, n batches of data with other statistics take the running ones 1 - (1 - a)^n of the way
there: 99.5 % at the default 0.1 and the 50 batches of this experiment. The drift is ‖after - before‖ / ‖before‖ over
running means and variances.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify import fixture
from bnlint.verify.backends import Facts, Options, option
from bnlint.verify.backends.torch.pairs import Run, of_runs, pair, run
from bnlint.verify.backends.torch.rebuilt import Rebuilt, torch
from bnlint.verify.fixture import plain

HOWS = ("eval-then-train", "requires-grad", "refrozen", "eval-only")


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    how = option(options, "how", HOWS)
    rebuilt = Rebuilt(spec, device)
    as_written, mended = _frozen(rebuilt, how), _frozen(rebuilt, "refrozen")
    facts = of_runs(rebuilt, as_written, mended, "eval() on the part after each train()", fixture.FREEZE_BATCHES)
    if facts.get("tracks_running_stats"):
        facts |= pair("relative_drift", plain(as_written.drift), plain(mended.drift))
    return {**facts, "how": how}


def _frozen(rebuilt: Rebuilt, how: str) -> Run:
    layer = rebuilt.used()
    part = torch.nn.Sequential(layer)
    model = torch.nn.Sequential(part).train()
    if how == "requires-grad":
        part.requires_grad_(False)
    else:
        part.eval()
    if how != "eval-only":
        model.train()
    if how == "refrozen":
        part.eval()
    return run(model, layer, rebuilt.batches(fixture.FREEZE_BATCHES))
