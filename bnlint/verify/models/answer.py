"""In the child process: one model, built and measured."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bnlint.experiment import ModelSpec
from bnlint.verify.models import sandbox


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The numbers (``facts``), or the reason why there are none (``error``)."""
    sandbox.limit(request["limit"], sandbox.MEMORY if request["device"] == "cpu" else None)
    framework = import_module(f"bnlint.verify.models.{request['framework']}")

    from bnlint.verify.backends import CannotMeasure
    from bnlint.verify.fixture import one_line
    from bnlint.verify.models.build import prepare, recipe

    spec = ModelSpec.from_json(request["model"])
    try:
        device = framework.open_framework(request["device"])
        prepare(spec)
        sandbox.arm()
        build, chosen = recipe(spec, request["pieces"])
        facts = framework.measure(build, spec.name, request["kind"], device)
    except CannotMeasure as error:
        return {"error": str(error)}
    except Exception as error:  # the project's code can raise anything
        return {"error": f"it cannot be measured: {one_line(error)}"}
    if chosen:
        facts["chosen"] = chosen
    return {"facts": facts, "device": device, "versions": framework.versions()}
