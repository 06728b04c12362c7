"""Which device PyTorch measures on."""

from __future__ import annotations

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure
from bnlint.verify.backends.torch.rebuilt import torch


def pick_device(asked: str) -> str:
    """The device to measure on; ``auto`` takes the first that works. Raises ``CannotMeasure``."""
    if asked == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if not _hindrance(device))
    if hindrance := _hindrance(asked):
        raise CannotMeasure(f"device {asked} was asked for, but torch {torch.__version__} {hindrance}")
    return asked


def passed_over(asked: str, picked: str) -> str:
    """Why ``auto`` ended at the CPU although there is an accelerator, or ''."""
    if asked != "auto" or picked != "cpu":
        return ""
    for device in ("cuda", "mps"):
        if _is_there(device):
            return f"torch {torch.__version__} {_hindrance(device)}; measured on the CPU"
    return ""


def _is_there(device: str) -> bool:
    return bool(torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available())


def _hindrance(device: str) -> str:
    """Why this device cannot be used, or ''."""
    if device == "cpu":
        return ""
    if not _is_there(device):
        return "finds none here"
    try:
        # A card that this build of torch has no code for is found, but fails at the first computation.
        float(torch.ones(1, device=device) + 1)
    except Exception as error:  # drivers fail in many ways
        return f"cannot use {device}: {fixture.one_line(error)}"
    return ""
