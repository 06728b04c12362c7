"""What the code of a file tells of the Keras that it runs on: names that only one generation has.

Removed in Keras 3: ``keras.engine``, ``fit_generator``, ``K.set_learning_phase``, ``lr=`` of an optimizer, the
``experimental`` and ``legacy`` modules; everything of TensorFlow 1 goes with Keras 2. New in Keras 3: ``keras.ops``,
``keras.random``, ``keras.tree``, the backends (keras.io/guides/migrating_to_keras_3, keras 3.0.5 and 3.15.1).
"""

from __future__ import annotations

import re

KERAS_2 = re.compile(
    r"\btf_keras\b|TF_USE_LEGACY_KERAS|\btf\.contrib\b|tensorflow\.contrib|tensorflow\.python\.keras|"
    r"\bcompat\.v1\b(?!\.logging)|"
    r"\bkeras\.engine\b|keras\.layers\.(?:normalization|core|convolutional|merge|experimental)\b|multi_gpu_model|"
    r"\b(?:fit|evaluate|predict)_generator\(|\b(?:set_)?learning_phase\(|keras\.optimizers\.legacy|"
    r"\btf\.(?:placeholder|Session|ConfigProto|enable_eager_execution|set_random_seed|global_variables_initializer)\b|"
    r"keras\.(?:utils\.np_utils|wrappers|objectives|preprocessing\.image import ImageDataGenerator)\b|"
    r"(?<!optim\.)\b(?:Adam|SGD|RMSprop)\([^()]*\blr\s*="
)
# The variable KERAS_BACKEND alone tells nothing: Keras 2 had Theano and CNTK beside TensorFlow.
KERAS_3 = re.compile(
    r"[\"']KERAS_BACKEND[\"']\s*\]?\s*[=,]\s*[\"'](?:torch|jax)[\"']|"
    r"\bkeras\.(?:ops|random|tree|distribution|KerasTensor|Variable)\b|"
    r"from\s+keras\s+import\s+[^\n]*\b(?:ops|random|tree)\b|\bkeras_hub\b"
)
BACKEND = re.compile(r"[\"']KERAS_BACKEND[\"']\s*\]?\s*[=,]\s*[\"'](tensorflow|torch|jax)[\"']")
#: As a script or notebook installs it.
INSTALLED = re.compile(r"\bpip3?\b[^\n]*?[\s\"']keras((?:[=<>~]=?\s*\d[\d.]*,?)+)")
