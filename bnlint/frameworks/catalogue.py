"""Which models of libraries contain BatchNorm or Dropout.

``catalogue.json`` maps what builds a model (``torchvision.models.resnet18``, ``timm:resnet50`` for a name given to
``timm.create_model``) to the kinds of its mode-dependent layers; ``benchmarks/catalogue.py`` writes it, running bnlint's own
analysis over the libraries' sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


@cache
def _catalogue() -> Mapping[str, tuple[str, ...]]:
    text = files("bnlint.frameworks").joinpath("catalogue.json").read_text("utf-8")
    data = json.loads(text)
    kinds: list[str] = data["kinds"]
    return {name: tuple(kinds[index] for index in owned) for name, owned in data["models"].items()}


def layers_of(builder: str) -> tuple[str, ...] | None:
    """The kinds of mode-dependent layers in what a library function or class builds; None if it is not known."""
    return _catalogue().get(builder)
