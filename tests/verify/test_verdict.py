"""The judgement alone, on made-up measurements: both sides of every threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnlint.finding import Verdict
from bnlint.verify.judges.hyperparameters import effective_batches, expected_ratio
from bnlint.verify.verdict import KINDS, judge, reported

CONFIRMED, REFUTED, INCONCLUSIVE = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.INCONCLUSIVE


def facts(name: str = "Layer()", **numbers: Any) -> dict[str, Any]:
    return {"layer": name, **numbers}


def batch_norm(gap: float | None, dependence: float | None = 0.5) -> dict[str, Any]:
    return facts("BatchNorm2d()", gap=gap, batch_dependence_train=dependence, tracks_running_stats=True)


def memory(ratio: float | None, **more: Any) -> dict[str, Any]:
    return facts(ratio=ratio, new_batch_weight=0.9, eval_error=0.3, **more)


def step(default: float | None, training: float | None, **more: Any) -> dict[str, Any]:
    return facts(statistics_change_default=default, statistics_change_training_true=training, **more)


def mended(gap: float | None, dependence: float | None = 0.5, **more: Any) -> dict[str, Any]:
    return facts("BatchNorm2d()", gap_to_mended=gap, batch_dependence_as_written=dependence, **more)


def epoch(gap: float | None, moved: float | None, **more: Any) -> dict[str, Any]:
    return mended(gap, statistics_moved_as_written=moved, statistics_moved_mended=0.5, batches=8, **more)


def frozen(drift: float | None, gap: float) -> dict[str, Any]:
    return mended(gap, relative_drift_as_written=drift, tracks_running_stats=True, batches=50, how="requires-grad")


def kept(gap: float | None, lost: int, **more: Any) -> dict[str, Any]:
    return mended(gap, state_entries_as_written=0, state_entries_mended=lost, **more)


def override(**changes: Any) -> dict[str, Any]:
    """An override that keeps the contract, but for the changes."""
    flags = {f"{part}_training_after_{m}": m == "train" for part in ("parent", "layer") for m in ("eval", "train")}
    return facts(**{**flags, "eval_returns_self": True, "train_returns_self": True, **changes})


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
        ("second-epoch", epoch(2e-3, 0.0), CONFIRMED),
        ("second-epoch", epoch(5e-4, 0.0), INCONCLUSIVE),
        ("second-epoch", epoch(9e-6, 0.0), REFUTED),
        ("second-epoch", epoch(2e-3, 1e-9), REFUTED),
        ("second-epoch", epoch(2e-3, None), INCONCLUSIVE),
        ("second-epoch", epoch(None, 0.0), INCONCLUSIVE),
        ("second-epoch", mended(0.7, p=0.5, output_change_as_written=0.0), CONFIRMED),
        ("second-epoch", mended(0.7, p=0.5, output_change_as_written=2e-5), REFUTED),
        ("second-epoch", mended(0.7, p=0.5, output_change_as_written=None), INCONCLUSIVE),
        ("mode-in-forward", epoch(2e-3, 0.0, method="eval"), CONFIRMED),
        ("mode-in-forward", epoch(2e-3, 0.1, method="eval"), REFUTED),
        ("mode-in-forward", epoch(9e-6, 0.0, method="eval"), REFUTED),
        ("mode-in-forward", epoch(2e-3, 0.1, method="train"), CONFIRMED),
        ("mode-in-forward", epoch(9e-6, 0.0, method="train"), REFUTED),
        ("mode-in-forward", epoch(None, 0.0, method="train"), INCONCLUSIVE),
        ("freeze-drift", frozen(2e-3, 0.7), CONFIRMED),
        ("freeze-drift", frozen(5e-4, 0.7), INCONCLUSIVE),
        ("freeze-drift", frozen(0.0, 0.7), INCONCLUSIVE),
        ("freeze-drift", frozen(0.0, 9e-6), REFUTED),
        ("freeze-drift", frozen(None, 0.7), INCONCLUSIVE),
        ("freeze-drift", mended(0.7, p=0.5, how="requires-grad"), REFUTED),
        ("mc-dropout", mended(2e-3, tracks_running_stats=True), CONFIRMED),
        ("mc-dropout", mended(2e-3, dependence=5e-5), INCONCLUSIVE),
        ("mc-dropout", mended(9e-6), REFUTED),
        ("mc-dropout", facts(p=0.5), REFUTED),
        ("training-flag", mended(2e-3, on_layer=False), CONFIRMED),
        ("training-flag", mended(2e-3, on_layer=False, dependence=5e-5), INCONCLUSIVE),
        ("training-flag", mended(2e-3, on_layer=False, dependence=None), INCONCLUSIVE),
        ("training-flag", mended(5e-4, on_layer=False), INCONCLUSIVE),
        ("training-flag", mended(9e-6, on_layer=True), REFUTED),
        ("training-flag", mended(None, on_layer=False), INCONCLUSIVE),
        ("fresh-layer", kept(2e-3, 5), CONFIRMED),
        ("fresh-layer", kept(9e-6, 0), REFUTED),
        ("fresh-layer", kept(9e-6, 2), CONFIRMED),
        ("fresh-layer", kept(5e-4, 0), INCONCLUSIVE),
        ("fresh-layer", kept(None, 5), INCONCLUSIVE),
        ("container-reach", kept(2e-3, 0, container="list", is_registered=False), CONFIRMED),
        ("container-reach", kept(9e-6, 0, container="list", is_registered=False), REFUTED),
        ("container-reach", kept(0.0, 0, container="ModuleList", is_registered=True), REFUTED),
        ("mode-override", override(), REFUTED),
        ("mode-override", override(eval_raises="TypeError"), CONFIRMED),
        ("mode-override", override(train_raises="TypeError"), CONFIRMED),
        ("mode-override", override(eval_returns_self=False), CONFIRMED),
        ("mode-override", override(parent_training_after_eval=True), CONFIRMED),
        ("mode-override", override(layer_training_after_eval=True), CONFIRMED),
        ("mode-override", override(layer_training_after_train=False), CONFIRMED),
        ("trace-parity", mended(2e-3), CONFIRMED),
        ("trace-parity", mended(2e-3, dependence=5e-5), INCONCLUSIVE),
        ("trace-parity", mended(9e-6), REFUTED),
        ("trace-parity", facts(raises="TracingCheckError"), CONFIRMED),
        ("export-parity", mended(2e-3, exporter="x"), CONFIRMED),
        ("export-parity", mended(2e-3, exporter="x", p=0.5), CONFIRMED),
        ("export-parity", mended(9e-6, exporter="x"), REFUTED),
        ("export-parity", mended(None, exporter="x"), INCONCLUSIVE),
        ("export-parity", facts(exporter="x", raises="E"), CONFIRMED),
        ("export-parity", facts(exporter="x", raises="E", raises_mended="E"), INCONCLUSIVE),
        ("ema-buffers", mended(2e-3, buffers="ignored"), CONFIRMED),
        ("ema-buffers", mended(5e-4, buffers="ignored"), INCONCLUSIVE),
        ("ema-buffers", mended(9e-6, buffers="copied"), REFUTED),
        ("ema-buffers", mended(None, buffers="ignored"), INCONCLUSIVE),
        ("swa-buffers", mended(0.5, gap_of_last_model=0.24, update_bn=False), CONFIRMED),
        ("swa-buffers", mended(0.5, gap_of_last_model=0.26, update_bn=False), INCONCLUSIVE),
        ("swa-buffers", mended(5e-4, gap_of_last_model=0.0, update_bn=False), INCONCLUSIVE),
        ("swa-buffers", mended(9e-6, gap_of_last_model=0.2, update_bn=True), REFUTED),
        ("swa-buffers", mended(0.5, gap_of_last_model=None, update_bn=False), INCONCLUSIVE),
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


def test_the_measurements_are_those_of_the_layer_that_the_verdict_speaks_of() -> None:
    raises = facts("BatchNorm2d()", exporter="fuse", raises="AssertionError")
    harmless = facts("Dropout()", exporter="fuse", gap_to_mended=0.0, p=0)
    assert judge("export-parity", [harmless, raises])[1].startswith("BatchNorm2d()")
    assert reported("export-parity", [harmless, raises])["raises"] == "AssertionError"


def test_the_theory_of_momentum() -> None:
    assert expected_ratio(1) == effective_batches(1) == 1
    assert expected_ratio(0.1) == pytest.approx(0.2294, abs=1e-4)
    assert effective_batches(0.1) == pytest.approx(19)
    assert expected_ratio(5) is None
    assert effective_batches(0) is None


def test_the_documentation_has_every_kind() -> None:
    text = (Path(__file__).parents[2] / "docs/verification.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if text.count(f"| `{kind}` |") < 2] == []  # what it measures, and its margin
