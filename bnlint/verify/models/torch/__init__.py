"""Models of PyTorch: what the process needs, and what is measured."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from bnlint.verify.backends.torch.device import pick_device
from bnlint.verify.models.torch.measure import measure
from bnlint.verify.models.weights import no_weights

__all__ = ["measure", "open_framework", "versions"]


def open_framework(device: str) -> str:
    """The device to measure on. Files of weights are not read from here on.

    Raises ``CannotMeasure`` where the device is missing.
    """
    _leave_weights_alone()
    return pick_device(device)


def versions() -> dict[str, str]:
    return {"torch": str(torch.__version__)}


def _leave_weights_alone() -> None:
    load = torch.nn.Module.load_state_dict

    def load_state_dict(self: Any, state: Any, *arguments: Any, **more: Any) -> Any:
        return load(self, state, *arguments, **more) if state else None

    torch.nn.Module.load_state_dict = load_state_dict
    torch.load = torch.hub.load_state_dict_from_url = no_weights
    for module in ("torchvision.models._api", "torchvision._internally_replaced_utils", "torch.utils.model_zoo"):
        try:
            imported = import_module(module)
        except ImportError:
            continue
        for name in ("load_state_dict_from_url", "load_url"):
            if hasattr(imported, name):
                setattr(imported, name, no_weights)
