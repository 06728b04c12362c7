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


def _hindrance(device: str) -> str:
    """Why this device cannot be used, or ''."""
    if device == "cpu":
        return ""
    is_there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not is_there:
        return "finds none here"
    try:
        # A card that this build of torch has no code for is found, but fails at the first computation.
        float(torch.ones(1, device=device) + 1)
    except RuntimeError as error:
        return f"cannot use it: {fixture.one_line(error)}"
    return ""
