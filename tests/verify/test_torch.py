"""What PyTorch's layers measure: confirmed where the pitfall is real, refuted in its null case."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from bnlint.finding import Verdict, Verification

Answers = Mapping[str, Verification]


def test_the_question_it_began_with(on_torch: Answers) -> None:
    answer = on_torch["seed"]
    assert answer.verdict is Verdict.CONFIRMED
    assert answer.measurements["output_train"] == 0.0
    assert answer.measurements["output_eval"] == pytest.approx(1 / (1 + 1e-5) ** 0.5, abs=1e-7)
    assert "output_train_spread" not in answer.measurements
    assert answer.framework == "torch"
    assert answer.device == "cpu"
    assert answer.versions.keys() == {"torch"}


def test_train_mode_depends_on_the_batch_and_eval_mode_does_not(on_torch: Answers) -> None:
    numbers = on_torch["seed"].measurements
    assert numbers["gap"] > 0.1
    assert numbers["batch_dependence_train"] > 0.01
    assert numbers["batch_dependence_eval"] < 1e-6
    assert numbers["statistics_drift"] > 0.1
    assert numbers["num_batches_tracked"] == 1


def test_without_running_statistics_the_modes_agree(on_torch: Answers) -> None:
    answer = on_torch["untracked"]
    assert answer.verdict is Verdict.REFUTED
    assert "no running statistics" in answer.reason
    assert answer.measurements["gap"] <= 1e-6
    # The other half of what eval mode usually gives is missing too, and the numbers show it.
    assert answer.measurements["batch_dependence_eval"] > 0.01


def test_dropout_is_refuted_only_where_it_drops_nothing(on_torch: Answers) -> None:
    assert on_torch["dropout"].verdict is Verdict.CONFIRMED
    assert on_torch["dropout p=0"].verdict is Verdict.REFUTED
    assert "p = 0" in on_torch["dropout p=0"].reason


@pytest.mark.parametrize(
    "name",
    [
        "BatchNorm1d",
        "BatchNorm3d",
        "SyncBatchNorm",
        "LazyBatchNorm1d",
        "LazyBatchNorm2d",
        "LazyBatchNorm3d",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "AlphaDropout",
        "FeatureAlphaDropout",
    ],
)
def test_every_layer_whose_modes_differ_is_confirmed(on_torch: Answers, name: str) -> None:
    assert on_torch[name].verdict is Verdict.CONFIRMED
    assert on_torch[name].reason.startswith(f"{name}(")


@pytest.mark.parametrize("name", ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"])
def test_instance_norm_has_two_modes_only_with_running_statistics(on_torch: Answers, name: str) -> None:
    assert on_torch[f"{name} tracked=True"].verdict is Verdict.CONFIRMED
    assert on_torch[f"{name} tracked=False"].verdict is Verdict.REFUTED


def test_one_confirmed_layer_is_enough_and_is_named(on_torch: Answers) -> None:
    answer = on_torch["mixed"]
    assert answer.verdict is Verdict.CONFIRMED
    assert "momentum=0.3" in answer.reason
    assert answer.measurements["layer"].endswith("momentum=0.3)")
    assert answer.measurements["layers_measured"] == 2
    assert on_torch["all refuted"].verdict is Verdict.REFUTED


def test_a_layer_that_cannot_be_rebuilt_keeps_the_rest_from_being_refuted(on_torch: Answers) -> None:
    answer = on_torch["mixed with unknown"]
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "torch.nn.Mystery" in answer.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rejected", "no_such_argument"),
        ("negative", "BatchNorm2d(num_features=-1)"),
        ("unknown layer", "torch.nn.Conv2d is no layer"),
        ("not a layer of torch", "torch.load is no layer"),
        ("unknown kind", "phase-of-the-moon"),
        ("momentum of dropout", "no momentum"),
        ("momentum 5.0", "finite"),
        ("momentum inf", "finite"),
    ],
)
def test_what_cannot_be_measured_is_inconclusive_in_one_line(on_torch: Answers, name: str, reason: str) -> None:
    answer = on_torch[name]
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert reason in answer.reason
    assert "\n" not in answer.reason


def test_a_huge_layer_is_measured_with_fewer_channels_and_says_so(on_torch: Answers) -> None:
    answer = on_torch["huge"]
    assert answer.verdict is Verdict.CONFIRMED
    assert answer.measurements["chosen"] == ["channels=4096"]


def test_chosen_arguments_are_named(on_torch: Answers) -> None:
    assert on_torch["chosen"].measurements["chosen"] == ["num_features"]
    assert on_torch["seed"].measurements["chosen"] == []


@pytest.mark.parametrize("name", ["source does not fit", "source too large"])
def test_an_unusable_source_input_does_not_cost_the_verdict(on_torch: Answers, name: str) -> None:
    answer = on_torch[name]
    assert answer.verdict is Verdict.CONFIRMED
    assert "the source's own input could not be run" in answer.reason
    assert "output_train" not in answer.measurements


def test_the_device_in_the_source_does_not_matter(on_torch: Answers) -> None:
    assert on_torch["on a device"].verdict is Verdict.CONFIRMED


@pytest.mark.parametrize("momentum", ["0.9", "0.99", "1.0"])
def test_a_momentum_that_forgets_is_confirmed(on_torch: Answers, momentum: str) -> None:
    numbers = on_torch[f"momentum {momentum}"].measurements
    assert on_torch[f"momentum {momentum}"].verdict is Verdict.CONFIRMED
    assert numbers["ratio"] == pytest.approx(numbers["expected_ratio"], rel=0.05)


def test_the_default_momentum_is_refuted(on_torch: Answers) -> None:
    answer = on_torch["momentum 0.1"]
    assert answer.verdict is Verdict.REFUTED
    assert answer.measurements["ratio"] == pytest.approx((0.1 / 1.9) ** 0.5, rel=0.05)
    assert answer.measurements["effective_batches"] == pytest.approx(19)


def test_the_converted_momentum_errs_less(on_torch: Answers) -> None:
    numbers = on_torch["momentum 0.9"].measurements
    assert numbers["eval_error"] > 3 * numbers["eval_error_converted"] > 0
    # Seen from the other side, it is the same pair of layers.
    assert on_torch["momentum 0.1"].measurements["eval_error"] == numbers["eval_error_converted"]
    # Beside momentum 1 there is no conversion that learns anything.
    assert "eval_error_converted" not in on_torch["momentum 1.0"].measurements


def test_momentum_between_the_conventions_decides_nothing(on_torch: Answers) -> None:
    assert on_torch["momentum 0.5"].verdict is Verdict.INCONCLUSIVE


def test_momentum_that_is_never_used_is_refuted(on_torch: Answers) -> None:
    untracked = on_torch["momentum untracked"]
    assert untracked.verdict is Verdict.REFUTED
    assert "never used" in untracked.reason
    assert untracked.measurements["difference_from_converted"] == 0.0
    assert on_torch["momentum 0"].verdict is Verdict.REFUTED
    assert on_torch["momentum None"].verdict is Verdict.REFUTED


def test_eps_in_place_of_momentum_is_confirmed(on_torch: Answers) -> None:
    answer = on_torch["eps 0.8"]
    assert answer.verdict is Verdict.CONFIRMED
    assert answer.measurements["scale"] == pytest.approx(1 / 1.8**0.5, rel=1e-5)
    assert answer.measurements["gap_train"] == pytest.approx(answer.measurements["gap_eval"], rel=0.01)


def test_the_default_eps_is_refuted(on_torch: Answers) -> None:
    assert on_torch["eps 1e-05"].verdict is Verdict.REFUTED
    assert on_torch["eps 1e-05"].measurements["gap_eval"] == 0.0
    assert on_torch["eps 0.001"].verdict is Verdict.INCONCLUSIVE


def test_everything_is_plain_json(on_torch: Answers) -> None:
    for answer in on_torch.values():
        json.dumps(answer.to_json(), allow_nan=False)
        if answer.measurements:
            assert answer.measurements["dtype"] == "float32"
            assert isinstance(answer.measurements["seed"], int)
            assert isinstance(answer.measurements["chosen"], list)
