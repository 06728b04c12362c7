"""Findings -> distinct experiments per framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bnlint.experiment import Experiment
from bnlint.finding import Finding, Verdict, Verification

FRAMEWORKS = ("torch", "keras")

#: Where a finding's answer is: a framework and an index into its batch, or the answer itself.
Place = tuple[str, int] | Verification


@dataclass
class Plan:
    """``batches`` holds what to run, per framework; ``places`` has one entry per finding, in order."""

    batches: dict[str, list[Experiment]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)


def plan(findings: Sequence[Finding]) -> Plan:
    """Sort the findings' experiments by framework; identical experiments are run once."""
    planned = Plan()
    seen: dict[str, tuple[str, int]] = {}
    for finding in findings:
        experiment = finding.experiment
        hindrance = _hindrance(experiment)
        if experiment is None or hindrance:
            planned.places.append(Verification(Verdict.INCONCLUSIVE, hindrance))
            continue
        experiment = replace(experiment, model=None)  # its layers are measured alike in whatever model
        key = json.dumps(experiment.to_json(), sort_keys=True)
        if key not in seen:
            batch = planned.batches.setdefault(experiment.framework, [])
            seen[key] = (experiment.framework, len(batch))
            batch.append(experiment)
        planned.places.append(seen[key])
    return planned


def _hindrance(experiment: Experiment | None) -> str:
    """Why this experiment cannot even be tried, or ''."""
    if experiment is None:
        return "the rule has no experiment for this finding"
    if not experiment.layers:
        return experiment.unknown or "the source does not tell which layers to rebuild"
    if experiment.framework not in FRAMEWORKS:
        return f"{experiment.framework!r} is no framework that can be measured ({', '.join(FRAMEWORKS)})"
    return ""
