"""Level 2 for Keras: a project's own models, built and measured as they are called, and as ``fit`` calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from bnlint.config import load_settings
from bnlint.experiment import Experiment, LayerSpec, ModelSpec, Scalar
from bnlint.finding import Confidence, Finding, Location, Severity, Verdict, Verification
from bnlint.run import run
from bnlint.semantics.project import Project
from bnlint.verify import runner, verify
from bnlint.verify.models.cut import CannotCut, builder

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")

MODELS = """\
import keras
from keras import layers
raise SystemExit("a script's own code is never run")
class Net(keras.Model):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = layers.Conv2D(8, 3)
        self.bn = layers.BatchNormalization()
        self.head = layers.Dense(classes)
    def call(self, x):
        return self.head(keras.ops.mean(self.bn(self.conv(x)), (1, 2)))
class Forwarding(Net):
    def call(self, x, training=None):
        return self.head(keras.ops.mean(self.bn(self.conv(x), training=training), (1, 2)))
class ByDefault(Net):
    def call(self, x, training=True):
        return self.bn(self.head(x), training=training)
class Literal(Net):
    def call(self, x, training=None):
        return self.bn(self.head(x), training=True)
class Unused(Net):
    def call(self, x, training=None):
        self.bn(x, training=training)
        return self.head(x)
class Dropping(keras.Model):
    def __init__(self):
        super().__init__()
        self.head, self.drop = layers.Dense(8), layers.Dropout(0.5)
    def call(self, x, training=None):
        return self.drop(self.head(x), training=training)
class Words(keras.Model):
    def __init__(self):
        super().__init__()
        self.words, self.bn = layers.Embedding(50, 4), layers.BatchNormalization()
    def call(self, x, training=None):
        return self.bn(self.words(x), training=training)
class TwoInputs(Net):
    def call(self, x, y, training=None):
        return self.bn(self.head(x) + self.head(y), training=training)
class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.bn = layers.BatchNormalization()
    def call(self, x):
        return self.bn(x)
def convolved(x, filters):
    x = layers.Conv2D(filters, 3)(x)
    return layers.BatchNormalization()(x, training=True)
def build_model(filters=4):
    inputs = keras.Input((None, None, 3))
    x = convolved(inputs, filters)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
def two_inputs():
    one, other = keras.Input((8,)), keras.Input((8,))
    return keras.Model([one, other], layers.BatchNormalization()(layers.Add()([one, other]), training=False))
def frozen():
    inputs, norm = keras.Input((8,)), layers.BatchNormalization(trainable=False)
    return keras.Model(inputs, norm(inputs, training=False))
def train():
    build_model().fit([1])
head = keras.Sequential([layers.BatchNormalization()])
"""
LINE = {text.strip(): number for number, text in reversed([*enumerate(MODELS.splitlines(), 1)])}

FITTED = ("fit-epoch", "no-training-parameter")
#: Name of the model, kind of experiment, ``how`` of ``fit-epoch``: the verdict, and words of its reason.
CASES: Mapping[tuple[str, ...], tuple[Verdict, str]] = {
    ("Net", "tape-step"): (Verdict.CONFIRMED, "no moving statistics move; 8 batches with training=True move"),
    ("ByDefault", "tape-step"): (Verdict.REFUTED, "does move moving statistics"),
    ("Net", "inference-gap"): (Verdict.CONFIRMED, "away from that with training=True"),
    ("Unused", "inference-gap"): (Verdict.REFUTED, "does not show in its output"),
    ("Words", "tape-step"): (Verdict.CONFIRMED, "away from that with training=True"),
    ("TwoInputs", "tape-step"): (Verdict.CONFIRMED, "away from that with training=True"),
    ("Dropping", "tape-step"): (Verdict.CONFIRMED, "drops nothing"),
    ("Literal", "training-literal"): (Verdict.CONFIRMED, "changes a sample's output"),
    ("Forwarding", "training-literal"): (Verdict.REFUTED, "no sample depends on its batch-mates"),
    ("build_model", "training-literal"): (Verdict.CONFIRMED, "changes a sample's output"),
    ("Net", *FITTED): (Verdict.CONFIRMED, "1 of the model's 1 trainable layers stay"),
    ("Forwarding", *FITTED): (
        Verdict.REFUTED,
        "of all trainable layers of the model move",
    ),
    ("frozen", "fit-epoch", "graph-literal-false"): (Verdict.REFUTED, "of all 1 layers of the model stay"),
}
#: What cannot be built or run keeps the verdict on its layers, and says why.
KEPT = {
    ("Block", *FITTED): "it is a layer, and only models are fitted",
    ("Gone", "tape-step"): "models.py defines no Gone",
}


def asked(case: tuple[str, ...]) -> Experiment:
    name, kind, *how = case
    options: dict[str, Scalar] = {"how": how[0]} if how else {}
    layer = LayerSpec("keras.layers.BatchNormalization")
    return Experiment(kind, "keras", (layer,), options=options, model=ModelSpec("models.py", name))


def verified_on(engine: str, cases: Sequence[tuple[str, ...]], folder: Path) -> dict[tuple[str, ...], Verification]:
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    (folder / "models.py").write_text(MODELS)
    where = Location("models.py", 1, 1, 1, 2)
    findings = [
        Finding(where, "BNL001", "test", "message", Severity.WARNING, Confidence.CERTAIN, experiment=asked(case))
        for case in cases
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        is_installed = runner._is_installed
        patch.setattr(
            runner, "_is_installed", lambda name, path: name in ("keras", engine) and is_installed(name, path)
        )
        found = verify(findings, "cpu", models=True)
    return {case: one.verification for case, one in zip(cases, found, strict=True) if one.verification is not None}


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Verification]:
    """All in one run, since starting processes is what takes long."""
    return verified_on("tensorflow", [*CASES, *KEPT], tmp_path_factory.mktemp("models"))


def test_models_are_measured_where_keras_runs_on_torch(tmp_path: Path) -> None:
    cases = [("Net", "tape-step"), ("build_model", "training-literal"), ("Forwarding", *FITTED)]
    for case, answer in verified_on("torch", cases, tmp_path).items():
        assert answer.verdict is CASES[case][0], answer.reason
        assert "torch" in answer.versions and answer.measurements["model"] == case[0]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_model_is_measured_as_it_is_called(
    verified: dict[tuple[str, ...], Verification], case: tuple[str, ...]
) -> None:
    verdict, words = CASES[case]
    answer = verified[case]
    assert (answer.verdict, words in answer.reason) == (verdict, True), answer.reason
    assert answer.measurements["model"] == case[0]


def test_each_layer_tells_how_far_it_moves(verified: dict[tuple[str, ...], Verification]) -> None:
    numbers = verified["build_model", "training-literal"].measurements
    assert numbers["batch_dependence"] > 1e-4 > numbers["batch_dependence_training_false"]
    assert numbers["input"].startswith("16x32x32x3")
    ((name, drift),) = numbers["drift_by_layer"]
    assert name == numbers["largest_drift_in"] and drift == numbers["largest_drift"] > 0
    assert verified["Words", "tape-step"].measurements["input"] == "16x16, random indices"


@pytest.mark.parametrize("case", KEPT, ids=" ".join)
def test_what_cannot_be_measured_keeps_the_verdict_on_its_layers(
    verified: dict[tuple[str, ...], Verification], case: tuple[str, ...]
) -> None:
    assert verified[case].verdict is Verdict.CONFIRMED and "model" not in verified[case].measurements
    assert KEPT[case] in verified[case].reason


def test_a_functional_model_is_that_of_the_function_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models.py").write_text(MODELS)
    inside = LINE["x = layers.Conv2D(filters, 3)(x)"]
    assert builder(Project(), "models.py", inside) == "build_model"
    assert builder(Project(), "models.py", LINE["inputs = keras.Input((None, None, 3))"]) == "build_model"
    for line, reason in (
        (LINE["build_model().fit([1])"], "no function around train returns it"),
        (
            LINE["head = keras.Sequential([layers.BatchNormalization()])"],
            "no function at the top of its file builds it",
        ),
    ):
        with pytest.raises(CannotCut, match=reason):
            builder(Project(), "models.py", line)


USE = """\
import tensorflow as tf
from models import Net
net = Net(len(x))
with tf.GradientTape() as tape:
    loss = tf.reduce_mean(net(tf.random.normal((16, 32, 32, 3))))
tape.gradient(loss, net.trainable_variables)
"""


def test_the_rules_name_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models.py").write_text(MODELS)
    Path("use.py").write_text(USE)
    Path("requirements.txt").write_text("keras==3.15.1\n")
    findings = run(["."], load_settings("."), use_cache=False).findings
    named = {
        (finding.code, finding.location.line): finding.experiment.model for finding in findings if finding.experiment
    }
    assert named["BNL201", 5] == ModelSpec("models.py", "Net", unknown=("classes",))
    assert named["BNL202", LINE["def call(self, x):"]] == ModelSpec("models.py", "Net")
    assert named["BNL204", LINE["return self.bn(self.head(x), training=True)"]] == ModelSpec("models.py", "Literal")
    graph = LINE["return layers.BatchNormalization()(x, training=True)"]
    assert named["BNL204", graph] == ModelSpec("models.py", "", line=graph)
