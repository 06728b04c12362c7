"""``stats-dropped``: the state of a used layer is loaded into a new one, with and without the running statistics.

Without them the new layer keeps mean 0 and variance 1, and computes w * x / sqrt(1 + eps) + b in eval mode instead of
w * (x - running_mean) / sqrt(running_var + eps) + b.
"""

from __future__ import annotations

from bnlint.experiment import LayerSpec
from bnlint.verify.backends import Facts, Options
from bnlint.verify.backends.torch import pairs
from bnlint.verify.backends.torch.rebuilt import Module, Rebuilt

_STATISTICS = ("running_mean", "running_var")


def measure(spec: LayerSpec, device: str, options: Options) -> Facts:
    rebuilt = Rebuilt(spec, device)

    def loaded(without: tuple[str, ...]) -> Module:
        state = rebuilt.used().state_dict()
        layer = rebuilt.fresh()
        layer.load_state_dict({name: value for name, value in state.items() if name not in without}, strict=False)
        return layer.eval()

    x = rebuilt.input()
    return pairs.of_outputs(rebuilt, lambda: loaded(_STATISTICS), lambda: loaded(()), "the whole state", x)
