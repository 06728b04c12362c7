"""In the child process: one model, built and measured."""

from __future__ import annotations

from typing import Any

from bnlint.experiment import ModelSpec
from bnlint.verify.models import sandbox


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The numbers (``facts``), or the reason why there are none (``error``)."""
    sandbox.limit(request["limit"], sandbox.MEMORY if request["device"] == "cpu" else None)
    import torch

    from bnlint.verify.backends import CannotMeasure
    from bnlint.verify.backends.torch.device import pick_device
    from bnlint.verify.fixture import SEED, one_line
    from bnlint.verify.models.build import build, prepare
    from bnlint.verify.models.measure import measure

    spec = ModelSpec.from_json(request["model"])
    try:
        device = pick_device(request["device"])
        prepare(spec)
        sandbox.arm()
        torch.manual_seed(SEED)
        model, chosen = build(spec, request["pieces"])
        if not isinstance(model, torch.nn.Module):
            return {"error": f"{spec.name} is no torch.nn.Module"}
        facts = measure(model, device)
    except CannotMeasure as error:
        return {"error": str(error)}
    except Exception as error:  # the project's code can raise anything
        return {"error": f"it cannot be measured: {one_line(error)}"}
    if chosen:
        facts["chosen"] = chosen
    return {"facts": facts, "device": device, "versions": {"torch": str(torch.__version__)}}
