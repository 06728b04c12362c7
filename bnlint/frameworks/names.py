"""One name for each thing: the many import paths of a framework's class or function, made canonical.

PyTorch keeps its documented path (``torch.nn.BatchNorm2d``). Every spelling of Keras becomes ``keras.…``,
TensorFlow 1 layers become ``tf1.layers.…``. Other frameworks with classes of the same names (MindSpore,
Paddle, MXNet, Flax, OneFlow, Jittor, …) keep their own names, and so match nothing here.
"""

from __future__ import annotations

import re
from functools import cache

# Roots under which TensorFlow, and Keras itself, publish or hide the Keras API.
_KERAS_ROOTS = (
    "tensorflow.compat.v1.keras",
    "tensorflow.compat.v2.keras",
    "tensorflow.contrib.keras",
    "tensorflow.python.keras",
    "tensorflow.keras",
    "tensorflow_core.keras",
    "tensorflow_core.python.keras",
    "tf_keras",
    "keras.api",
    "keras.src",
    "keras",
)
# TensorFlow 1 functions that build a BatchNorm layer in one call.
_TF1 = {
    "tensorflow.layers": "tf1.layers",
    "tensorflow.compat.v1.layers": "tf1.layers",
    "tensorflow.contrib.layers": "tf1.contrib",
    "tensorflow.contrib.layers.python.layers": "tf1.contrib",
    "tensorflow.contrib.layers.python.layers.layers": "tf1.contrib",
    "tensorflow.contrib.slim": "tf1.contrib",
    "tensorflow.contrib.framework": "tf1.contrib",
    "tensorflow.contrib.framework.python.ops": "tf1.contrib",
    "tensorflow.contrib.framework.python.ops.arg_scope": "tf1.contrib",
    "tensorflow.python.layers.normalization": "tf1.layers",
    "tensorflow.python.layers.layers": "tf1.layers",
    "tf_slim.ops.arg_scope": "tf1.contrib",
    "tf_slim": "tf1.contrib",
    "tf_slim.layers": "tf1.contrib",
}
_KERAS_LAYER = re.compile(r"keras\.(?:api\.)?layers\.(?:.*\.)?(\w+)")
_KERAS_MODEL = re.compile(
    r"keras\.(?:models|engine|models\.(?:model|sequential|functional)|engine\.(?:training|sequential|functional))"
    r"\.(Model|Sequential|Functional)"
)
_KERAS_APPLICATION = re.compile(r"keras\.applications\.\w+\.([A-Z]\w*)")
_TORCHVISION_FAMILIES = "detection|optical_flow|quantization|segmentation|video"
_TORCHVISION_MODEL = re.compile(
    rf"torchvision\.models(\.(?:{_TORCHVISION_FAMILIES}))?\.(?!(?:{_TORCHVISION_FAMILIES})\.)[a-z]\w*\.(\w+)"
)
_TIMM_MODEL = re.compile(r"timm\.models\.(?!layers\.)[a-z]\w*\.(\w+)")
_TORCH_MODULE = re.compile(r"torch\.nn\.modules\.(?:\w+\.)*([A-Z]\w*)")


@cache
def canonical(name: str) -> str:
    """The canonical form of a qualified name; names of no known framework are returned as they are."""
    for root in _KERAS_ROOTS:
        if name == root or name.startswith(root + "."):
            return _canonical_keras("keras" + name[len(root) :])
    for root, short in _TF1.items():
        head, _, last = name.rpartition(".")
        if head == root:
            return f"{short}.{last}"
    if match := _TORCH_MODULE.fullmatch(name):
        return f"torch.nn.{match[1]}"
    if match := _TORCHVISION_MODEL.fullmatch(name):
        return f"torchvision.models{match[1] or ''}.{match[2]}"
    if match := _TIMM_MODEL.fullmatch(name):
        return f"timm.models.{match[1]}"
    if name.startswith("torch.autograd.grad_mode."):
        return "torch." + name.rpartition(".")[2]
    return name


def _canonical_keras(name: str) -> str:
    if match := _KERAS_LAYER.fullmatch(name):
        last = match[1]
        return "keras.Input" if last == "Input" else f"keras.layers.{last}"
    if match := _KERAS_APPLICATION.fullmatch(name):
        return f"keras.applications.{match[1]}"
    if match := _KERAS_MODEL.fullmatch(name):
        return "keras.Sequential" if match[1] == "Sequential" else "keras.Model"
    return name


def framework_of(name: str) -> str | None:
    """``torch`` or ``keras`` for a canonical name that belongs to one of the covered frameworks."""
    root = name.split(".", 1)[0]
    return {"torch": "torch", "keras": "keras", "tf1": "keras"}.get(root)
