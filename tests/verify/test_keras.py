"""What Keras's layers measure, on TensorFlow and on Keras's own torch backend."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from bnlint.finding import Verdict, Verification

Answers = Mapping[str, Verification]


def test_the_question_it_began_with(on_keras: Answers) -> None:
    answer = on_keras["seed"]
    assert answer.verdict is Verdict.CONFIRMED
    # 1 / sqrt(1 + 1e-3) is 0.99950037; the frameworks differ in the last bit.
    assert answer.measurements["output_default"] == pytest.approx(0.9995003, abs=2e-7)
    assert answer.measurements["output_training_true"] == 0.0
    assert answer.measurements["identity_gap"] == pytest.approx(5e-4, rel=0.01)
    assert answer.framework == "keras"


def test_the_versions_name_the_engine(on_tensorflow: Answers, on_keras_with_torch: Answers) -> None:
    assert on_tensorflow["seed"].versions.keys() == {"keras", "tensorflow"}
    assert on_keras_with_torch["seed"].versions.keys() == {"keras", "torch"}


def test_a_frozen_layer_is_refuted(on_keras: Answers) -> None:
    answer = on_keras["frozen"]
    assert answer.verdict is Verdict.REFUTED
    assert "not trainable" in answer.reason
    assert answer.measurements["gap"] <= 1e-6


@pytest.mark.parametrize(
    "name", ["Dropout", "GaussianDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"]
)
def test_dropout_is_refuted_only_where_it_drops_nothing(on_keras: Answers, name: str) -> None:
    assert on_keras[f"{name} 0.5"].verdict is Verdict.CONFIRMED
    assert on_keras[f"{name} 0"].verdict is Verdict.REFUTED


def test_the_axis_of_the_source_is_kept(on_keras: Answers) -> None:
    answer = on_keras["axis"]
    assert answer.verdict is Verdict.CONFIRMED
    assert answer.measurements["input"].startswith("16x16x4x4")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("rejected", "no_such_argument"), ("unknown layer", "keras.layers.Dense is no layer")],
)
def test_what_cannot_be_measured_is_inconclusive_in_one_line(on_keras: Answers, name: str, reason: str) -> None:
    assert on_keras[name].verdict is Verdict.INCONCLUSIVE
    assert reason in on_keras[name].reason
    assert "\n" not in on_keras[name].reason


@pytest.mark.parametrize("name", ["tape", "tape without weights"])
def test_a_step_without_training_leaves_the_statistics(on_keras: Answers, name: str) -> None:
    answer = on_keras[name]
    assert answer.verdict is Verdict.CONFIRMED
    assert answer.measurements["statistics_change_default"] == 0
    # From 0 towards the mean of 3, with new-batch weight 0.01; sampling moves the largest channel off a little.
    assert answer.measurements["statistics_change_training_true"] == pytest.approx(0.03, rel=0.3)


def test_a_step_of_a_frozen_layer_is_refuted(on_keras: Answers) -> None:
    answer = on_keras["tape frozen"]
    assert answer.verdict is Verdict.REFUTED
    assert "frozen" in answer.reason
    assert answer.measurements["statistics_change_training_true"] == 0


def test_a_step_with_dropout(on_keras: Answers) -> None:
    assert on_keras["tape dropout"].verdict is Verdict.CONFIRMED
    assert on_keras["tape dropout"].measurements["output_change_default"] == 0
    assert on_keras["tape dropout 0"].verdict is Verdict.REFUTED


@pytest.mark.parametrize("name", ["fit no parameter", "fit hard-coded"])
def test_fit_without_training_leaves_the_statistics(on_keras: Answers, name: str) -> None:
    answer = on_keras[name]
    assert answer.verdict is Verdict.CONFIRMED
    assert answer.measurements["statistics_moved_as_written"] == 0
    assert answer.measurements["statistics_moved_mended"] == pytest.approx(0.03, rel=0.3)
    assert on_keras["fit frozen"].verdict is Verdict.REFUTED
    assert on_keras["fit dropout"].measurements["output_change_as_written"] == 0


def test_a_training_literal_in_a_graph_holds_as_the_version_tells(on_keras: Answers) -> None:
    answer = on_keras["fit in a graph"]
    overrides = tuple(int(part) for part in answer.versions["keras"].split(".")[:2]) < (3, 16)
    assert answer.verdict is (Verdict.CONFIRMED if overrides else Verdict.REFUTED)


def test_training_true_makes_outputs_depend_on_the_batch(on_keras: Answers) -> None:
    assert on_keras["literal"].verdict is Verdict.CONFIRMED
    assert on_keras["literal"].measurements["batch_dependence_mended"] < 1e-6
    assert on_keras["literal frozen"].verdict is Verdict.REFUTED
    reason = "BatchNormalization(trainable=False): the layer is frozen: the output is the same with training=False"
    assert on_keras["literal frozen"].reason == reason


def test_momentum_is_the_weight_of_the_old_value(on_keras: Answers) -> None:
    copied, right = on_keras["momentum 0.1"], on_keras["momentum 0.9"]
    assert copied.verdict is Verdict.CONFIRMED
    assert copied.measurements["new_batch_weight"] == pytest.approx(0.9)
    assert copied.measurements["ratio"] == pytest.approx((0.9 / 1.1) ** 0.5, rel=0.05)
    assert copied.measurements["eval_error"] > 3 * copied.measurements["eval_error_converted"] > 0
    assert right.verdict is Verdict.REFUTED
    assert right.measurements["ratio"] == pytest.approx((0.1 / 1.9) ** 0.5, rel=0.05)
    assert on_keras["momentum 0.5"].verdict is Verdict.INCONCLUSIVE
    assert on_keras["momentum 0.0"].verdict is Verdict.CONFIRMED


def test_momentum_of_a_frozen_layer_is_refuted(on_keras: Answers) -> None:
    assert on_keras["momentum frozen"].verdict is Verdict.REFUTED
    assert on_keras["momentum frozen"].measurements["ratio"] == 0


def test_both_engines_measure_the_same(on_tensorflow: Answers, on_keras_with_torch: Answers) -> None:
    compared = 0
    for name, answer in on_tensorflow.items():
        other = on_keras_with_torch[name]
        assert other.verdict is answer.verdict, name
        if "Dropout" in name or "dropout" in name:
            continue  # each engine draws its own random numbers
        assert other.measurements.keys() == answer.measurements.keys(), name
        for key, value in answer.measurements.items():
            if isinstance(value, float):
                assert other.measurements[key] == pytest.approx(value, abs=1e-5, rel=1e-5), f"{name}: {key}"
                compared += 1
    assert compared > 30


def test_everything_is_plain_json(on_keras: Answers) -> None:
    for answer in on_keras.values():
        json.dumps(answer.to_json(), allow_nan=False)
