"""The child process: reads experiments from standard input, writes one line of JSON per answer.

Run as a script with ``-I``, so neither the working directory nor the environment decides what is imported:
the parent hands over its own import path, freed of the linted project. Nothing but the standard library may
be imported before that path is in place.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnlint.experiment import Experiment, LayerSpec
    from bnlint.verify.backends import Backend, Facts

#: Seconds after the parent's own limit at which an orphaned child ends itself.
GRACE = 15.0
#: Layers of one kind of experiment below which they are measured one by one.
FEW = 3


def main() -> None:
    # Frameworks print where they like; the answers' channel is out of their reach from here on.
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    faulthandler.dump_traceback_later(request["limit"] + GRACE, exit=True)
    sys.path[:] = request["path"]
    _load_own_package()
    for answer in _answers(request):
        channel.write(json.dumps(answer, allow_nan=False) + "\n")
        channel.flush()
    channel.close()
    # The frameworks' own tear-down is slow and can crash; every answer is out.
    os._exit(0)


def _load_own_package() -> None:
    """Make ``bnlint`` importable without its neighbours: the folder it lies in may be the linted project."""
    package = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "bnlint", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bnlint"] = module
    spec.loader.exec_module(module)


def _answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "model" in request:
        from bnlint.verify.models.answer import answer

        yield {"index": 0, **answer(request)}
        return
    from bnlint.experiment import Experiment
    from bnlint.verify.backends import CannotMeasure, open_backend
    from bnlint.verify.fixture import one_line

    gc.disable()  # what an import makes is there to stay; to look it through again and again takes a while
    try:
        backend = open_backend(request["framework"], request["device"])
    except CannotMeasure as error:
        yield {"failed": str(error)}
        return
    except Exception as error:  # whatever it is, it is reported
        yield {"failed": f"{request['framework']} is installed but cannot be imported: {one_line(error)}"}
        return
    gc.freeze()
    gc.enable()
    experiments = [Experiment.from_json(data) for data in request["experiments"]]
    known = {} if request["plots"] else _known_together(backend, experiments)
    for index, experiment in enumerate(experiments):
        yield {"index": index, **_answer(backend, experiment, known, request["plots"])}


def _known_together(backend: Backend, experiments: Sequence[Experiment]) -> dict[str, Facts]:
    """What can be measured for many layers at once. Whatever goes wrong here is met again by one of them alone."""
    from bnlint.verify.fixture import describe

    kinds: dict[str, dict[str, LayerSpec]] = {}
    for experiment in experiments:
        for layer in experiment.layers:
            kinds.setdefault(experiment.kind, {})[_question(experiment, layer)] = layer
    known: dict[str, Facts] = {}
    for kind, layers in kinds.items():
        if len(layers) < FEW:
            continue
        with suppress(Exception):
            measured = backend.measure_together(kind, list(layers.values()), backend.device)
            for (question, layer), facts in zip(layers.items(), measured, strict=True):
                if facts is not None:
                    known[question] = {"layer": describe(layer.kind, layer.arguments), **facts}
    return known


def _question(experiment: Experiment, layer: LayerSpec) -> str:
    return json.dumps([experiment.kind, experiment.options, layer.kind, layer.arguments, layer.chosen])


def _answer(backend: Backend, experiment: Experiment, known: dict[str, Facts], plots: bool = False) -> dict[str, Any]:
    """Measure each layer once per question (``known``), and the source's own input if it is given."""
    layers = []
    for layer in experiment.layers:
        key = _question(experiment, layer)
        if key not in known:
            known[key] = _measured(backend, experiment, layer)
            if plots and "error" not in known[key]:
                known[key]["plots"] = _plots(backend, experiment, layer, "cpu" if "fallback" in known[key] else "")
        layers.append(known[key])
    outputs: Facts = {}
    if experiment.input is not None and len(experiment.layers) == 1 and "error" not in layers[0]:
        outputs = _measured(backend, experiment, experiment.layers[0], on_source=True)
    passing = any(facts.pop("passing", False) for facts in [*map(dict, layers), outputs])
    fallback = next((facts["fallback"] for facts in [*layers, outputs] if "fallback" in facts), backend.fallback)
    return {
        "layers": layers,
        "outputs": outputs,
        "device": "cpu" if fallback else backend.device,
        "fallback": fallback,
        "passing": passing,
        "versions": backend.versions,
    }


def _measured(backend: Backend, experiment: Experiment, layer: LayerSpec, on_source: bool = False) -> Facts:
    from bnlint.verify.backends import CannotMeasure
    from bnlint.verify.fixture import describe

    def facts_on(device: str) -> Facts:
        if on_source:
            assert experiment.input is not None
            return backend.outputs(experiment.kind, layer, experiment.input, device)
        return {
            "layer": describe(layer.kind, layer.arguments),
            **backend.measure(experiment, layer, device),
        }

    try:
        try:
            return facts_on(backend.device)
        except Exception as error:
            if backend.device == "cpu" or not backend.is_out_of_memory(error):
                raise
        return {**facts_on("cpu"), "fallback": f"out of memory on {backend.device}, measured on the CPU"}
    except Exception as error:  # whatever it is, it is reported
        # What a framework raises on the CPU it raises again; on another device it may have been busy.
        known = (CannotMeasure, TypeError, ValueError, *((RuntimeError,) if backend.device == "cpu" else ()))
        passing = backend.is_out_of_memory(error) or not isinstance(error, known)
        return {"layer": describe(layer.kind, layer.arguments), "error": _reason(error), "passing": passing}


def _plots(backend: Backend, experiment: Experiment, layer: LayerSpec, device: str) -> list[dict[str, Any]]:
    """Pictures for a report; the verdict does not hang on them."""
    try:
        return [asdict(plot) for plot in backend.plots(experiment, layer, device or backend.device)]
    except Exception:  # what went wrong would have gone wrong in the measurement too, or is of no weight
        return []


def _reason(error: Exception) -> str:
    from bnlint.verify.backends import CannotMeasure
    from bnlint.verify.fixture import one_line

    return str(error) if isinstance(error, CannotMeasure) else one_line(error)


if __name__ == "__main__":
    main()
