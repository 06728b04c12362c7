"""The judgement alone, on made-up measurements: both sides of every threshold."""

from __future__ import annotations

from typing import Any

import pytest

from bnlint.finding import Verdict
from bnlint.verify.judges.hyperparameters import effective_batches, expected_ratio
from bnlint.verify.verdict import judge, reported

CONFIRMED, REFUTED, INCONCLUSIVE = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.INCONCLUSIVE


def facts(name: str = "Layer()", **numbers: Any) -> dict[str, Any]:
    return {"layer": name, **numbers}


def batch_norm(gap: float | None, dependence: float | None = 0.5) -> dict[str, Any]:
    return facts("BatchNorm2d()", gap=gap, batch_dependence_train=dependence, tracks_running_stats=True)


def memory(ratio: float | None, **more: Any) -> dict[str, Any]:
    return facts(ratio=ratio, new_batch_weight=0.9, eval_error=0.3, **more)


def step(default: float | None, training: float | None, **more: Any) -> dict[str, Any]:
    return facts(statistics_change_default=default, statistics_change_training_true=training, **more)


@pytest.mark.parametrize(
    ("kind", "measured", "verdict"),
    [
        ("mode-gap", batch_norm(2e-3), CONFIRMED),
        ("mode-gap", batch_norm(5e-4), INCONCLUSIVE),
        ("mode-gap", batch_norm(9e-6), REFUTED),
        ("mode-gap", batch_norm(0.7, dependence=5e-5), INCONCLUSIVE),
        ("mode-gap", batch_norm(0.7, dependence=None), INCONCLUSIVE),
        ("mode-gap", batch_norm(None), INCONCLUSIVE),
        ("mode-gap", facts("InstanceNorm2d()", gap=0.7, batch_dependence_train=0.0), CONFIRMED),
        ("mode-gap", facts("Dropout()", gap=0.7, p=0.5), CONFIRMED),
        ("inference-gap", facts(gap=2e-3, identity_gap=5e-4), CONFIRMED),
        ("inference-gap", facts(gap=5e-4, identity_gap=5e-4), INCONCLUSIVE),
        ("inference-gap", facts(gap=0.0, identity_gap=5e-4), REFUTED),
        ("inference-gap", facts(gap=None, identity_gap=5e-4), INCONCLUSIVE),
        ("tape-step", step(0, 0.03), CONFIRMED),
        ("tape-step", step(0, 5e-5), INCONCLUSIVE),
        ("tape-step", step(0, 0), REFUTED),
        ("tape-step", step(0.01, 0.03), REFUTED),
        ("tape-step", step(None, 0.03), INCONCLUSIVE),
        ("tape-step", facts(output_change_default=0, output_change_training_true=1.0), CONFIRMED),
        ("tape-step", facts(output_change_default=1.0, output_change_training_true=1.0), REFUTED),
        ("tape-step", facts(output_change_default=0, output_change_training_true=0), REFUTED),
        ("momentum-memory", memory(0.76), CONFIRMED),
        ("momentum-memory", memory(0.74), INCONCLUSIVE),
        ("momentum-memory", memory(0.36), INCONCLUSIVE),
        ("momentum-memory", memory(0.34), REFUTED),
        ("momentum-memory", memory(None), INCONCLUSIVE),
        ("momentum-memory", facts(tracks_running_stats=False), REFUTED),
        ("eps-gap", facts(gap_eval=0.02, eps=0.05, scale=0.98), CONFIRMED),
        ("eps-gap", facts(gap_eval=5e-3, eps=1e-2, scale=0.995), INCONCLUSIVE),
        ("eps-gap", facts(gap_eval=5e-5, eps=1e-4, scale=1.0), REFUTED),
        ("eps-gap", facts(gap_eval=None, eps=1e-4, scale=None), INCONCLUSIVE),
        ("mode-gap", facts(error="could not be rebuilt"), INCONCLUSIVE),
    ],
)
def test_thresholds(kind: str, measured: dict[str, Any], verdict: Verdict) -> None:
    judged, reason = judge(kind, [measured])
    assert judged is verdict
    assert reason.startswith(f"{measured['layer']}: ")


@pytest.mark.parametrize(
    ("layers", "verdict"),
    [
        ([batch_norm(0.0), batch_norm(0.5)], CONFIRMED),
        ([facts(error="odd"), batch_norm(0.5)], CONFIRMED),
        ([facts(error="odd"), batch_norm(0.0)], INCONCLUSIVE),
        ([batch_norm(0.0), batch_norm(0.0)], REFUTED),
        ([], INCONCLUSIVE),
    ],
)
def test_several_layers(layers: list[dict[str, Any]], verdict: Verdict) -> None:
    assert judge("mode-gap", layers)[0] is verdict


def test_the_layer_with_the_largest_effect_is_reported() -> None:
    layers = [facts("BatchNorm1d()", gap=0.2, p=0), facts("BatchNorm2d()", gap=0.9, p=0), facts(error="odd")]
    assert judge("mode-gap", layers)[1].startswith("BatchNorm2d()")
    measured = reported("mode-gap", layers)
    assert "confirmed above 0.001" in measured.pop("tolerance")
    assert measured == {"layer": "BatchNorm2d()", "gap": 0.9, "p": 0, "layers_measured": 2}
    assert reported("mode-gap", [facts(error="odd")]) == {}


def test_the_theory_of_momentum() -> None:
    assert expected_ratio(1) == effective_batches(1) == 1
    assert expected_ratio(0.1) == pytest.approx(0.2294, abs=1e-4)
    assert effective_batches(0.1) == pytest.approx(19)
    assert expected_ratio(5) is None
    assert effective_batches(0) is None
