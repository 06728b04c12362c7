"""Many layers that are measured at once: the answers are those that each gets alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from bnlint.experiment import Experiment, LayerSpec
from bnlint.finding import Verification
from bnlint.verify import child

Ask = Callable[..., list[Verification]]

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def momentum_memory(momentum: Any, kind: str = "BatchNorm2d", **more: Any) -> Experiment:
    layer = LayerSpec(f"torch.nn.{kind}", {"num_features": 8, "momentum": momentum, **more})
    return Experiment("momentum-memory", "torch", (layer,))


def test_answers_are_those_that_each_layer_gets_alone(ask: Ask) -> None:
    alike = [momentum_memory(momentum) for momentum in (0.9, 0.99, 0.1, 0.003, 0.5)]
    others = [
        *(momentum_memory(momentum, "BatchNorm1d", eps=0.1) for momentum in (0.2, 0.97)),
        *(momentum_memory(momentum) for momentum in (None, 1.0, 0, 5.0)),
        momentum_memory(0.9, track_running_stats=False),
        momentum_memory(0.9, no_such_argument=1),
        momentum_memory(0.9, num_features=-1),
        momentum_memory(0.9, "InstanceNorm2d", track_running_stats=True),
        momentum_memory(0.9, "LazyBatchNorm2d"),
    ]
    together = ask([*alike, *others])
    assert len(alike) >= child.FEW
    # Fewer than three of a kind are measured one by one.
    pairs = [[*alike, *others][start : start + 2] for start in range(0, len(together), 2)]
    alone = [answer for pair in pairs for answer in ask(pair)]
    for one, other in zip(together, alone, strict=True):
        assert (one.verdict, one.reason) == (other.verdict, other.reason)
        assert one.measurements.keys() == other.measurements.keys()
        for name, value in one.measurements.items():
            if isinstance(value, float):
                assert value == pytest.approx(other.measurements[name], rel=2e-6), name
            else:
                assert value == other.measurements[name]
