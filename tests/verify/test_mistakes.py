"""Mistakes that are measured in pairs: confirmed as they are written, refuted where they are not made.

What is confirmed and refuted is listed in ``conftest.py``; here the numbers are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

from bnlint.experiment import Experiment
from bnlint.finding import Verdict, Verification
from bnlint.report.measured import _LABELS, _UNSAID, CONDITIONS
from bnlint.verify.backends import Options

Answers = Mapping[str, Verification]


def numbers(answers: Answers, name: str) -> Mapping[str, Any]:
    return answers[name].measurements


def test_a_mistake_is_confirmed_with_a_margin(mistake: Verification) -> None:
    assert mistake.verdict is Verdict.CONFIRMED, mistake.reason
    gap = mistake.measurements.get("gap_to_mended")
    # Where there is no gap the mistake is one that raises, breaks a contract or loses what is learned.
    if gap:
        assert gap > 0.1
    else:
        assert any(word in mistake.reason for word in ("raises", "return", "lacks")), mistake.reason


def test_without_the_mistake_nothing_is_left(null_case: Verification) -> None:
    assert null_case.verdict is Verdict.REFUTED, null_case.reason
    if "another matter" not in null_case.reason:
        assert null_case.measurements.get("gap_to_mended", 0.0) <= 1e-6
    assert null_case.measurements.get("statistics_moved_as_written", 0.0) in (
        0.0,
        null_case.measurements.get("statistics_moved_mended"),
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("freeze-drift no momentum", "never move, but its output is"),
        ("freeze-drift without how", "how must be one of eval-then-train"),
        ("container-reach set", "container must be one of list"),
        ("mode-override odd", "not 'ignores-mode'"),
        ("export-parity unknown", "torch.save is no exporter"),
        ("export-parity unfusable", "cannot take it in eval mode either"),
    ],
)
def test_what_cannot_be_decided_says_why(on_torch_mistakes: Answers, name: str, reason: str) -> None:
    assert on_torch_mistakes[name].verdict is Verdict.INCONCLUSIVE
    assert reason in on_torch_mistakes[name].reason


def test_no_batch_of_the_second_epoch_is_counted(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "second-epoch BatchNorm2d 100")
    assert (measured["batches_counted_as_written"], measured["batches_counted_mended"]) == (0, 8)
    assert measured["statistics_moved_as_written"] == 0 < 0.1 < measured["statistics_moved_mended"]
    dropout = numbers(on_torch_mistakes, "second-epoch Dropout")
    assert dropout["output_change_as_written"] == 0 < 0.5 < dropout["output_change_mended"]


def test_the_mode_that_forward_sets_wins(on_torch_mistakes: Answers) -> None:
    trained = numbers(on_torch_mistakes, "mode-in-forward eval BatchNorm1d 8")
    evaluated = numbers(on_torch_mistakes, "mode-in-forward train BatchNorm1d 8")
    assert (trained["batches_counted_as_written"], trained["batches_counted_mended"]) == (0, 8)
    assert (evaluated["batches_counted_as_written"], evaluated["batches_counted_mended"]) == (8, 0)


def test_statistics_drift_as_far_as_the_momentum_lets_them(on_torch_mistakes: Answers) -> None:
    default = numbers(on_torch_mistakes, "freeze-drift requires-grad BatchNorm2d 100")
    slow = numbers(on_torch_mistakes, "freeze-drift requires-grad BatchNorm2d 100 0.0003")
    assert default["batches_counted_as_written"] == 50
    assert default["batches_counted_mended"] == default["relative_drift_mended"] == 0
    expected = (1 - (1 - 0.0003) ** 50) / (1 - (1 - 0.1) ** 50)
    assert slow["relative_drift_as_written"] / default["relative_drift_as_written"] == pytest.approx(expected, rel=0.05)


def test_a_layer_that_forward_builds_is_lost(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "fresh-layer BatchNorm2d 100")
    assert (measured["state_entries_as_written"], measured["state_entries_mended"]) == (0, 5)
    assert measured["batch_dependence_as_written"] > 0.1
    assert measured["batch_dependence_mended"] < 1e-6
    # Its output has but one mode, yet its weight and bias are never learned.
    assert "lacks its 2 entries" in on_torch_mistakes["fresh-layer BatchNorm2d 100 False"].reason


@pytest.mark.parametrize(("container", "reached"), [("list", False), ("dict", False), ("ModuleDict", True)])
def test_eval_reaches_what_is_registered(on_torch_mistakes: Answers, container: str, reached: bool) -> None:
    measured = numbers(on_torch_mistakes, f"container-reach {container} BatchNorm2d 100")
    assert measured["is_registered"] is reached
    assert measured["layer_training_after_eval"] is not reached


def test_the_flag_stays_where_it_is_set(on_torch_mistakes: Answers) -> None:
    for name, training in (("training-flag BatchNorm1d 8", True), ("training-flag True BatchNorm1d 8", False)):
        assert numbers(on_torch_mistakes, name)["layer_training_after_assignment"] is training


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("train no-mode-parameter", "eval() raises TypeError: Net.train() takes 1 positional argument"),
        ("train returns-none", "eval() does not return the module; train() does not return the module"),
        ("train ignores-mode", "after eval() the module and the layer in it are in train mode"),
        ("train no-super", "after train() the module and the layer in it are in eval mode"),
        ("train shadowed", "eval() raises TypeError: 'bool' object is not callable; train() raises"),
        ("eval returns-none", "eval() does not return the module"),
        ("eval no-super", "after eval() the module and the layer in it are in train mode"),
        ("eval shadowed", "eval() raises TypeError: 'bool' object is not callable"),
    ],
)
def test_each_broken_override_breaks_what_it_breaks(on_torch_mistakes: Answers, fault: str, reason: str) -> None:
    assert f": {reason}" in (said := on_torch_mistakes[f"mode-override {fault} BatchNorm2d 100"].reason) or (
        f"; {reason}" in said
    )
    if fault.startswith("eval"):
        assert "train() " not in said


def test_mc_dropout_counts_the_test_batches(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "mc-dropout BatchNorm2d 100")
    assert (measured["batches_counted_as_written"], measured["batches_counted_mended"]) == (8, 0)
    assert measured["batch_dependence_as_written"] > 0.1 > 1e-6 > measured["batch_dependence_mended"]


def test_tracing_moves_the_statistics(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "trace-parity BatchNorm2d 100")
    assert measured["batches_counted_by_tracing"] >= 1
    assert measured["statistics_moved_by_tracing"] > 0.1
    assert "torch.jit.trace raises" in on_torch_mistakes["trace-parity BatchNorm2d 100 None"].reason


def test_an_exported_program_keeps_the_mode(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "export-parity export.export BatchNorm2d 100")
    assert measured["batch_dependence_as_written"] > 0.1 > 1e-6 > measured["batch_dependence_mended"]
    assert measured["gap_between_two_calls"] == 0
    assert numbers(on_torch_mistakes, "export-parity export.export Dropout")["gap_between_two_calls"] > 0.1
    fused = on_torch_mistakes["export-parity ao.quantization.fuse_modules BatchNorm2d 100"]
    assert "AssertionError: Fusion only for eval!" in fused.reason


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("onnx BatchNorm", Verdict.REFUTED),  # exported in eval mode's operations, with a warning
        ("onnx Dropout", Verdict.CONFIRMED),  # left live by the dynamo exporter
        ("onnx old Dropout", Verdict.REFUTED),
    ],
)
def test_onnx_is_measured_where_it_is_installed(on_torch_mistakes: Answers, name: str, verdict: Verdict) -> None:
    answer = on_torch_mistakes[name]
    if any(find_spec(package) is None for package in ("onnx", "onnxruntime", "onnxscript")):
        assert answer.verdict is Verdict.INCONCLUSIVE
        assert "onnxruntime" in answer.reason and "pip install" in answer.reason
    else:
        assert answer.verdict is verdict, answer.reason


def test_an_average_of_parameters_keeps_old_statistics(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "ema-buffers ignored BatchNorm2d 100")
    assert measured["statistics_distance_as_written"] > 0.1
    assert measured["statistics_distance_mended"] == 0


def test_averaged_weights_shrink_what_they_put_out(on_torch_mistakes: Answers) -> None:
    measured = numbers(on_torch_mistakes, "swa-buffers BatchNorm2d 100")
    assert measured["gap_to_mended"] == pytest.approx(1 - 4**-0.5, abs=0.1)
    assert measured["gap_of_last_model"] < 0.05


def test_everything_is_plain_json_with_its_conditions_and_a_name_for_people(on_torch_mistakes: Answers) -> None:
    for answer in on_torch_mistakes.values():
        json.dumps(answer.to_json(), allow_nan=False)
        if answer.measurements:
            assert answer.measurements["dtype"] == "float32"
            assert isinstance(answer.measurements["seed"], int)
            assert answer.measurements["tolerance"]
        assert answer.measurements.keys() <= {*_LABELS, *_UNSAID, *CONDITIONS}


def test_options_survive_the_way_to_the_child(torch_mistakes: Mapping[str, Experiment]) -> None:
    frozen = torch_mistakes["freeze-drift refrozen BatchNorm1d 8"]
    options: Options = {"how": "refrozen"}
    assert frozen.options == options
    assert Experiment.from_json(json.loads(json.dumps(frozen.to_json()))) == frozen
    assert Experiment.from_json({**frozen.to_json(), "options": {}}).options == {}
