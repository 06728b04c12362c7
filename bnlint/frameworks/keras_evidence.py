"""What the text of a file tells of the Keras that it runs on: names that only one generation has.

Removed in Keras 3: ``keras.engine``, ``fit_generator``, ``K.set_learning_phase``, ``lr=`` of an optimizer, the
``experimental`` and ``legacy`` modules; everything of TensorFlow 1 goes with Keras 2. New in Keras 3: ``keras.ops``,
``keras.random``, ``keras.tree``, the backends (keras.io/guides/migrating_to_keras_3, keras 3.0.5 and 3.15.1).
"""

from __future__ import annotations

import re

from bnlint.assumptions import Assumptions, Versions

_KERAS_2 = re.compile(
    r"\btf_keras\b|TF_USE_LEGACY_KERAS|\btf\.contrib\b|tensorflow\.contrib|\bcompat\.v1\b|tensorflow\.python\.keras|"
    r"\bkeras\.engine\b|keras\.layers\.(?:normalization|core|convolutional|merge|experimental)\b|multi_gpu_model|"
    r"\b(?:fit|evaluate|predict)_generator\(|\b(?:set_)?learning_phase\(|keras\.optimizers\.legacy|"
    r"\btf\.(?:placeholder|Session|ConfigProto|enable_eager_execution|set_random_seed|global_variables_initializer)\b|"
    r"keras\.(?:utils\.np_utils|wrappers|objectives|preprocessing\.image import ImageDataGenerator)\b|"
    r"\b(?:Adam|SGD|RMSprop)\([^()]*\blr\s*="
)
_KERAS_3 = re.compile(
    r"\bKERAS_BACKEND\b|\bkeras\.(?:ops|random|tree|distribution|KerasTensor|Variable)\b|"
    r"from\s+keras\s+import\s+[^\n]*\b(?:ops|random|tree)\b|\bkeras_(?:hub|nlp|cv)\b"
)
_BACKEND = re.compile(r"[\"']KERAS_BACKEND[\"']\s*\]?\s*[=,]\s*[\"'](tensorflow|torch|jax)[\"']")
_GENERATION = (3,)


def refined(assumptions: Assumptions, text: str) -> Assumptions:
    """What is assumed of a project, with what one of its files tells of Keras by itself."""
    if "keras" not in text and "tensorflow" not in text:
        return assumptions
    keras, backend = assumptions.keras, assumptions.keras_backend
    if keras.at_least(*_GENERATION) is not False and (found := _KERAS_2.search(text)):
        # Its requirements may name the Keras of another part of the project; what is not in Keras 3 would fail here.
        keras = Versions(None, _GENERATION, f"{_shown(found)} in the file")
    elif keras.at_least(*_GENERATION) is None and (found := _KERAS_3.search(text)):
        keras = Versions(max(keras.lowest or _GENERATION, _GENERATION), keras.below, f"{_shown(found)} in the file")
    if not backend and (found := _BACKEND.search(text)):
        backend = found[1]
    return assumptions._replace(keras=keras, keras_backend=backend)


def _shown(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).rstrip("(=")
