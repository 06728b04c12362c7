"""Library models as they are when built, to hold the catalogue against: ``catalogue.py --check``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from bnlint.frameworks.catalogue import layers_of
from bnlint.frameworks.layers import LAYERS

os.environ.setdefault("KERAS_BACKEND", "torch")

#: The encoder of a model that cannot have a residual network.
SMP_ENCODER = {"dpt": "tu-vit_base_patch16_224"}


def check(names: Iterable[tuple[str, str]]) -> int:
    """Compare and say where the catalogue is wrong; the exit status."""
    counts: dict[str, Counter[str]] = {}
    for family, name in names:
        verdict = compare(family, name)
        counts.setdefault(family, Counter())[verdict.partition(":")[0]] += 1
        if verdict.startswith(("differs", "lacks", "unknown", "not built")):
            print(f"{family}{name}  {verdict}", flush=True)
    for family, counter in counts.items():
        print(family, ", ".join(f"{count} {verdict}" for verdict, count in sorted(counter.items())))
    return int(any(counter["differs"] for counter in counts.values()))


def compare(family: str, name: str) -> str:
    listed = layers_of(family + name)
    if family == "segmentation_models_pytorch." and listed is not None:  # that of the decoder alone
        listed = tuple({*listed, *(layers_of(f"smp:{SMP_ENCODER.get(name, 'resnet34')}") or ())})
    try:
        built = live_kinds(family, name)
    except ImportError:
        return "library missing"
    except Exception as error:  # whatever a library raises for a model that cannot be built like that
        return f"not built: {listed}: {type(error).__name__} {' '.join(str(error).split())[:80]}"
    if family == "transformers.":  # rates are up to the configuration
        built = {kind for kind in built if LAYERS[kind].kind != "dropout"}
    if listed is None:
        return f"unknown: there {sorted(built)}"
    if set(listed) == built:
        return "agrees"
    verdict = "lacks some" if listed and set(listed) < built else "differs"
    return f"{verdict}: listed {sorted(listed)}, there {sorted(built)}"


def live_kinds(family: str, name: str) -> set[str]:
    """The kinds of mode-dependent layers in a model that is built now."""
    if family.startswith("keras."):
        model = getattr(importlib.import_module("keras").applications, name)(weights=None)
        return {kind for layer in model._flatten_layers() if (kind := keras_kind(layer))}
    import torch

    builder = torch_builder(family, name)
    with warnings.catch_warnings(), without_weights():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                model = builder()
        except (NotImplementedError, RuntimeError):  # something in it needs numbers
            model = builder()
    return {kind for module in model.modules() if (kind := torch_kind(module))}


@contextmanager
def without_weights() -> Iterator[None]:
    """Some models load the weights of their backbone by default: as if there were none in the file."""
    import torch

    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.nn.Module, "load_state_dict", lambda *_, **__: None))
        if importlib.util.find_spec("torchvision"):
            api = importlib.import_module("torchvision.models._api")
            stack.enter_context(patch.object(api.WeightsEnum, "get_state_dict", lambda *_, **__: {}))
        yield


def torch_builder(family: str, name: str) -> Callable[[], Any]:
    if family == "timm:":
        timm = importlib.import_module("timm")
        return lambda: timm.create_model(name, pretrained=False)
    if family == "smp:":
        encoders = importlib.import_module("segmentation_models_pytorch.encoders")
        return lambda: encoders.get_encoder(name, weights=None)
    if family == "segmentation_models_pytorch.":
        library = importlib.import_module("segmentation_models_pytorch")
        return lambda: library.create_model(name, encoder_name=SMP_ENCODER.get(name, "resnet34"), encoder_weights=None)
    if family == "transformers.":
        model = getattr(importlib.import_module("transformers"), name)
        return lambda: model(model.config_class())
    function = getattr(importlib.import_module(family.rstrip(".")), name)
    return lambda: function()


def torch_kind(module: Any) -> str | None:
    import torch

    for kind, facts in LAYERS.items():
        if facts.framework == "torch" and isinstance(module, getattr(torch.nn, facts.short_name)):
            keeps = module.p > 0 if facts.kind == "dropout" else module.track_running_stats
            return kind if keeps else None
    return None


def keras_kind(layer: Any) -> str | None:
    kind = f"keras.layers.{type(layer).__name__}"
    return kind if kind in LAYERS and (LAYERS[kind].kind != "dropout" or layer.rate) else None
