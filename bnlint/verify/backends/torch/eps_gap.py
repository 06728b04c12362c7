"""``eps-gap``: the layer against itself with the default eps, where running and batch variance are 1.

There the output is scaled by 1 / sqrt(1 + eps).
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.torch.rebuilt import Rebuilt, relative
from bnlint.verify.fixture import plain

DEFAULT_EPS = 1e-5


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no eps")
    x = rebuilt.input(mean=0.0, sd=1.0)
    written, default = rebuilt.fresh(), rebuilt.fresh(eps=DEFAULT_EPS)
    evaluated = written.eval()(x)
    return {
        **rebuilt.facts(x),
        "eps": plain(float(written.eps)),
        "gap_eval": plain(relative(evaluated, default.eval()(x))),
        "gap_train": plain(relative(written.train()(x), default.train()(x))),
        "scale": plain((evaluated.cpu().double().norm() / x.cpu().double().norm()).item()),
    }
