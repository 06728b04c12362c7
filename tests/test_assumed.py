"""What the code of a file tells of the Keras that it runs on."""

from __future__ import annotations

import pytest

from bnlint.assumptions import NOTHING_ASSUMED, Assumptions, Versions
from bnlint.semantics.assumed import refined
from bnlint.source.parse import parse


def told_by(code: str, assumptions: Assumptions = NOTHING_ASSUMED) -> Assumptions:
    return refined(assumptions, parse("program.py", code))


@pytest.mark.parametrize(
    "code",
    [
        "import tf_keras as keras",
        "import tensorflow.compat.v1 as tf\nimport keras",
        "from keras.layers.core import Dense",
        "import keras\nmodel.fit_generator(batches)",
        "from keras import backend as K\nK.set_learning_phase(0)",
        "import keras\nkeras.optimizers.Adam(lr=0.1)",
        "import tensorflow as tf\nx = tf.placeholder(tf.float32)",
    ],
)
def test_names_that_keras_3_lacks_tell_keras_2(code: str) -> None:
    assert told_by(code).keras.at_least(3) is False


@pytest.mark.parametrize(
    "code",
    [
        "from keras import layers, ops",
        "import keras\nx = keras.random.normal((2, 2))",
        'import os\nos.environ["KERAS_BACKEND"] = "jax"\nimport keras',
        'import os\nos.environ.setdefault("KERAS_BACKEND", "torch")\nimport keras',
    ],
)
def test_names_that_keras_2_lacks_tell_keras_3(code: str) -> None:
    assumed = told_by(code)
    assert assumed.keras.at_least(3) is True
    assert "in the file" in assumed.keras.source


@pytest.mark.parametrize(
    "code",
    [
        "import keras\nmodel.fit(x, y)",
        "# keras.ops, and not tf.contrib\nimport keras",
        '"""Once tf.contrib."""\nimport keras',
        'import os\nos.environ["KERAS_BACKEND"] = "tensorflow"\nimport keras',
        "import keras\nimport torch\noptimizer = torch.optim.SGD(weights, lr=0.1)",
        "import tensorflow as tf\ntf.compat.v1.logging.set_verbosity(3)\nfrom tensorflow import keras",
    ],
)
def test_what_both_have_tells_nothing(code: str) -> None:
    assert told_by(code).keras == Versions()


def test_the_backend_is_what_the_file_sets() -> None:
    assert told_by('import os\nos.environ["KERAS_BACKEND"] = "jax"\nimport keras').keras_backend == "jax"
    said = Assumptions(keras_backend="torch")
    assert told_by('import os\nos.environ["KERAS_BACKEND"] = "jax"\nimport keras', said).keras_backend == "torch"


def test_a_file_of_another_generation_is_believed_over_the_project() -> None:
    project = Assumptions(keras=Versions((3, 15), None, "requirements.txt"))
    assert told_by("import tf_keras", project).keras.at_least(3) is False
    older = Assumptions(keras=Versions((2, 9), (2, 10), "requirements.txt"))
    assert told_by("from keras import ops", older) == older


def test_what_a_script_installs_is_its_version() -> None:
    code = 'import os\nos.system("pip install -q keras==3.4.1")\nimport keras'
    assert told_by(code).keras == Versions((3, 4, 1), (3, 4, 2), "what the file installs")
