"""Have models built and measured, each in a process of its own, and judge what comes back.

A finding keeps the verdict on its layers where its model cannot be measured; the reason then says why not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from bnlint.experiment import Experiment, ModelSpec
from bnlint.finding import Curve, Finding, Plot, Verdict, Verification
from bnlint.semantics.project import Project
from bnlint.verify.judges.models import judge_model
from bnlint.verify.models.cut import CannotCut, Pieces, builder, cut
from bnlint.verify.recall import Recall
from bnlint.verify.runner import Child, engine_of, for_engine, missing

#: By framework, the kinds of experiments whose claim a whole model can show, each with the kind that it is measured as.
KINDS = {
    "torch": {"mode-gap": "mode-gap", "second-epoch": "mode-gap"},
    "keras": {kind: kind for kind in ("inference-gap", "tape-step", "training-literal", "fit-epoch")},
}
#: What is judged of a ``fit-epoch``; that a model was fitted before is not in its code.
HOWS = frozenset({"no-training-parameter", "hard-coded-false", "graph-literal-false"})
#: Seconds for one model, the import of its framework included.
TIME_LIMIT = 120.0
#: Variables that the process gets: none that could hold a secret.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Question:
    """A model, what is asked of it, and what it needs of the project (or why that cannot be taken out)."""

    framework: str
    kind: str
    how: str
    spec: ModelSpec
    pieces: Pieces | str

    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def verify_models(
    findings: Sequence[Finding], device: str, path: Sequence[str], recall: Recall, time_limit: float = TIME_LIMIT
) -> list[Finding]:
    """The findings, verified by their layers already, with the verdict on the models that could be measured.

    ``path`` is where the processes may import from; what ``recall`` knows is not measured again.
    """
    project = Project()  # which threads cannot share
    asked = [_question(project, finding.experiment) for finding in findings]
    distinct = {question.key(): question for question in asked if question is not None}
    answers = {key: recall.recall(key) for key in distinct}
    waiting = [key for key, answer in answers.items() if answer is None]
    with ThreadPoolExecutor(max_workers=max(1, min(len(waiting), os.cpu_count() or 1))) as threads:
        measured = threads.map(lambda key: _measured(distinct[key], device, time_limit, path), waiting)
        for key, (answer, lasts) in zip(waiting, measured, strict=True):
            answers[key] = answer
            if lasts:
                recall.remember(key, answer)
    return [
        finding if question is None else _with_model(finding, question.spec, answers[question.key()])
        for finding, question in zip(findings, asked, strict=True)
    ]


def _question(project: Project, experiment: Experiment | None) -> Question | None:
    if experiment is None or experiment.model is None:
        return None
    kind = KINDS.get(experiment.framework, {}).get(experiment.kind)
    how = str(experiment.options.get("how", ""))
    if kind is None or (kind == "fit-epoch" and how not in HOWS):
        return None
    spec = experiment.model
    try:
        if not spec.name:
            spec = replace(spec, name=builder(project, spec.path, spec.line))
        pieces = cut(project, ((its.path, its.name) for its in spec.inner() if its.path))
        return Question(experiment.framework, kind, how, spec, pieces)
    except CannotCut as error:
        reason = str(error)
    except SyntaxError as error:
        reason = f"{spec.path} cannot be parsed: {error.msg}"
    return Question(experiment.framework, kind, how, spec, reason)


def _measured(question: Question, device: str, time_limit: float, path: Sequence[str]) -> tuple[Verification, bool]:
    """The verdict on a model, and whether it will be the same the next time."""
    framework, spec = question.framework, question.spec

    def inconclusive(reason: str) -> tuple[Verification, bool]:
        return Verification(Verdict.INCONCLUSIVE, reason, framework=framework), False

    if isinstance(question.pieces, str):
        return inconclusive(question.pieces)
    engine = engine_of(framework, path)
    if engine is None:
        return inconclusive(missing(framework))
    with tempfile.TemporaryDirectory(prefix="bnlint-", ignore_cleanup_errors=True) as folder:
        request = {
            "framework": framework,
            "device": device,
            "limit": time_limit,
            "path": list(path),
            "model": asdict(spec),
            "pieces": question.pieces,
            "kind": question.kind,
        }
        try:
            child = Child(request, _environment(engine, device, folder), folder)
        except OSError as error:
            return inconclusive(f"no child process could be started: {error}")
        try:
            answers, ending = child.finish()
        finally:
            child.kill()
    if 0 not in answers:
        return inconclusive(ending)
    answer = answers[0]
    if "error" in answer:
        return inconclusive(answer["error"])
    verdict, reason = judge_model(question.kind, question.how, answer["facts"])
    if verdict is Verdict.REFUTED and _is_guessed(spec, answer["facts"]):
        verdict, reason = Verdict.INCONCLUSIVE, f"{reason}; but the source does not tell all of its arguments"
    measurements = {"model": spec.name, **answer["facts"]}
    plots = _plots(answer["facts"])
    return Verification(verdict, reason, answer["device"], framework, answer["versions"], measurements, plots), True


def _is_guessed(spec: ModelSpec, facts: dict[str, Any]) -> bool:
    """Whether an argument was chosen that could have made the model another: with Dropout, or with BatchNorm."""
    return any(its.unknown for its in spec.inner()) or any("=" in choice for choice in facts.get("chosen", ()))


def _plots(facts: dict[str, Any]) -> tuple[Plot, ...]:
    """How far a validation in train mode moves each layer, in the order in which the model has them."""
    drifts = facts.get("drift_by_layer") or []
    if len(drifts) < 2:
        return ()
    limits = tuple(float(number) for number in range(len(drifts) + 1))
    curve = Curve("running mean", tuple(drift for _, drift in drifts))
    title = f"What {facts['validation_batches']} batches of a validation move, layer by layer"
    return (Plot(title, "layer with running statistics", "standard deviations moved", limits, (curve,), bins=True),)


def _with_model(finding: Finding, spec: ModelSpec, whole: Verification | None) -> Finding:
    layers = finding.verification
    if whole is None or layers is None:
        return finding
    if whole.verdict is not Verdict.INCONCLUSIVE:
        return finding.verified(whole)
    name = spec.name or "the model"
    return finding.verified(replace(layers, reason=f"{layers.reason} ({name} as a whole: {whole.reason})"))


def _environment(engine: str, device: str, folder: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    kept |= {"HOME": folder, "TMPDIR": folder, "TORCH_HOME": folder, "XDG_CACHE_HOME": folder}
    return kept | for_engine(engine, device, folder)
