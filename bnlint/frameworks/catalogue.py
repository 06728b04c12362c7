"""Which models of libraries contain BatchNorm or Dropout when they are built with their defaults.

``catalogue.json`` is made by ``benchmarks/catalogue.py``, which runs bnlint's own analysis over the libraries'
sources: by family and kinds of layers (places in its list of kinds), the names of what builds a model. It is read when
the first name is looked up.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

#: ``torchvision.models.NAME``, ``hub:NAME`` of pytorch/vision: some of its models lie one level deeper.
_TORCHVISION = ("torchvision.models.", "torchvision.models.segmentation.", "torchvision.models.video.",
                "torchvision.models.optical_flow.", "torchvision.models.detection.")  # fmt: skip
#: ``hf-hub:timm/resnet50.a1_in1k``: where timm gets the weights from, and which of them it takes.
_TIMM_NAME = re.compile(r"timm:(?:hf[-_]hub:timm/)?(\w+)(?:\.\w+)?")


#: Stands for the name of a model where only its family is known (``models.__dict__[args.arch]``).
ANY = "*"


@cache
def _most_of(family: str) -> tuple[str, ...] | None:
    """The kinds of layers that more than half of a family's models have."""
    owned = [kinds for name, kinds in _catalogue().items() if name.rpartition(".")[0] == family]
    counts = Counter(kind for kinds in owned for kind in kinds)
    return tuple(sorted(kind for kind, count in counts.items() if 2 * count > len(owned))) or None


@cache
def _catalogue() -> Mapping[str, tuple[str, ...]]:
    data = json.loads(files("bnlint.frameworks").joinpath("catalogue.json").read_text("utf-8"))
    kinds: list[str] = data["kinds"]
    found = {}
    for family, models in data["models"].items():
        for places, lines in models.items():
            owned = tuple(kinds[int(place)] for place in places.split())
            found.update({family + name: owned for line in lines for name in line.split()})
    return found


def layers_of(builder: str) -> tuple[str, ...] | None:
    """The kinds of mode-dependent layers in what a library function or class builds; None if it is not known."""
    family, _, name = builder.rpartition(":" if ":" in builder else ".")
    if name == ANY:
        return _most_of(family)
    if family == "hub":
        return next((owned for prefix in _TORCHVISION if (owned := layers_of(prefix + name)) is not None), None)
    if family == "timm.models":
        return layers_of(f"timm:{name}")
    if family == "smp" and name.startswith("tu-"):
        return layers_of(f"timm:{name[3:]}")
    if match := _TIMM_NAME.fullmatch(builder):
        builder = f"timm:{match[1]}"
    if family == "segmentation_models_pytorch":  # its create_model() takes any case
        builder = builder.lower()
    return _catalogue().get(builder)
