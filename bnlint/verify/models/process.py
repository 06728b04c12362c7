"""Have models built and measured, each in a process of its own, and judge what comes back.

A finding keeps the verdict on its layers where its model cannot be measured; the reason then says why not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from bnlint.experiment import ModelSpec
from bnlint.finding import Curve, Finding, Plot, Verdict, Verification
from bnlint.semantics.project import Project
from bnlint.verify.importing import isolated_path
from bnlint.verify.judges.models import judge_model
from bnlint.verify.models.cut import CannotCut, Pieces, cut
from bnlint.verify.runner import Child

#: Kinds of experiments whose claim is that the two modes of a model differ, which a whole model can show.
KINDS = frozenset({"mode-gap", "second-epoch"})
#: Seconds for one model, the import of its framework included.
TIME_LIMIT = 120.0
#: Variables that the process gets: none that could hold a secret.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT", "OMP_NUM_THREADS")


def verify_models(findings: Sequence[Finding], device: str, time_limit: float = TIME_LIMIT) -> list[Finding]:
    """The findings, verified by their layers already, with the verdict on the models that could be measured."""
    specs: dict[str, ModelSpec] = {}
    for finding in findings:
        model = _model_of(finding)
        if model is not None:
            specs.setdefault(_key(model), model)
    project = Project()  # which threads cannot share
    pieces = [_pieces(project, spec) for spec in specs.values()]
    path = isolated_path(finding.location.path for finding in findings)
    with ThreadPoolExecutor(max_workers=max(1, min(len(specs), (os.cpu_count() or 1)))) as threads:
        measured = threads.map(lambda spec, its: _measured(spec, its, device, time_limit, path), specs.values(), pieces)
        answers = dict(zip(specs, measured, strict=True))
    return [_with_model(finding, answers) for finding in findings]


def _model_of(finding: Finding) -> ModelSpec | None:
    experiment = finding.experiment
    return experiment.model if experiment is not None and experiment.kind in KINDS else None


def _key(model: ModelSpec) -> str:
    return json.dumps(asdict(model), sort_keys=True)


def _pieces(project: Project, spec: ModelSpec) -> Pieces | str:
    """What the model needs of the project, or why that cannot be taken out."""
    try:
        return cut(project, spec.path, spec.name) if spec.path else {}
    except CannotCut as error:
        return str(error)
    except SyntaxError as error:
        return f"{spec.path} cannot be parsed: {error.msg}"


def _measured(spec: ModelSpec, pieces: Pieces | str, device: str, time_limit: float, path: list[str]) -> Verification:
    if isinstance(pieces, str):
        return _inconclusive(pieces)
    with tempfile.TemporaryDirectory(prefix="bnlint-", ignore_cleanup_errors=True) as folder:
        request = {
            "framework": "torch",
            "device": device,
            "limit": time_limit,
            "path": path,
            "model": asdict(spec),
            "pieces": pieces,
        }
        try:
            child = Child(request, _environment(folder, device), folder)
        except OSError as error:
            return _inconclusive(f"no child process could be started: {error}")
        try:
            answers, ending = child.finish()
        finally:
            child.kill()
    if 0 not in answers:
        return _inconclusive(ending)
    answer = answers[0]
    if "error" in answer:
        return _inconclusive(answer["error"])
    verdict, reason = judge_model(answer["facts"])
    if verdict is Verdict.REFUTED and _is_guessed(spec, answer["facts"]):
        return _inconclusive(f"{reason}; but the source does not tell all of its arguments")
    measurements = {"model": spec.name, **answer["facts"]}
    return Verification(
        verdict, reason, answer["device"], "torch", answer["versions"], measurements, _plots(answer["facts"])
    )


def _is_guessed(spec: ModelSpec, facts: dict[str, Any]) -> bool:
    """Whether an argument was chosen that could have made the model another: with Dropout, or with BatchNorm."""
    return bool(spec.unknown) or any("=" in choice for choice in facts.get("chosen", ()))


def _plots(facts: dict[str, Any]) -> tuple[Plot, ...]:
    """How far a validation in train mode moves each layer, in the order in which the model has them."""
    drifts = facts.get("drift_by_layer") or []
    if len(drifts) < 2:
        return ()
    limits = tuple(float(number) for number in range(len(drifts) + 1))
    curve = Curve("running mean", tuple(drift for _, drift in drifts))
    title = f"What {facts['validation_batches']} batches of a validation move, layer by layer"
    return (Plot(title, "layer with running statistics", "standard deviations moved", limits, (curve,), bins=True),)


def _with_model(finding: Finding, answers: Mapping[str, Verification]) -> Finding:
    model, layers = _model_of(finding), finding.verification
    if model is None or layers is None:
        return finding
    whole = answers[_key(model)]
    if whole.verdict is not Verdict.INCONCLUSIVE:
        return finding.verified(whole)
    return finding.verified(replace(layers, reason=f"{layers.reason} ({model.name} as a whole: {whole.reason})"))


def _environment(folder: str, device: str) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": folder, "TMPDIR": folder, "TORCH_HOME": folder, "XDG_CACHE_HOME": folder}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    return environment


def _inconclusive(reason: str) -> Verification:
    return Verification(Verdict.INCONCLUSIVE, reason, framework="torch")
