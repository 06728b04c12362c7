"""Findings and verdicts as the cache keeps them: JSON that loses nothing, unlike the public one.

It is read only where it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from bnlint.experiment import Experiment
from bnlint.finding import (
    Confidence,
    Edit,
    Finding,
    Fix,
    Location,
    Plot,
    Safety,
    Severity,
    TraceStep,
    Verdict,
    Verification,
)


def freeze(findings: Iterable[Finding]) -> str:
    """The findings of one file as text."""
    return json.dumps([asdict(finding) for finding in findings])


def thaw(text: str) -> tuple[Finding, ...]:
    """Undo ``freeze``. Raises ``ValueError`` for a text that it did not make."""
    try:
        return tuple(_finding(data) for data in json.loads(text))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"these are no findings: {error}") from error


def freeze_verification(verification: Verification) -> str:
    """A verdict as text."""
    return json.dumps(asdict(verification))


def thaw_verification(text: str) -> Verification:
    """Undo ``freeze_verification``. Raises ``ValueError`` for a text that it did not make."""
    try:
        data = json.loads(text)
        plots = tuple(Plot.from_json(plot) for plot in data["plots"])
        return Verification(**{**data, "verdict": Verdict(data["verdict"]), "plots": plots})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no verdict: {error}") from error


def _finding(data: dict[str, Any]) -> Finding:
    fix, experiment = data["fix"], data["experiment"]
    return Finding(
        location=Location(**data["location"]),
        code=data["code"],
        name=data["name"],
        message=data["message"],
        severity=Severity(data["severity"]),
        confidence=Confidence(data["confidence"]),
        trace=tuple(TraceStep(Location(**step["location"]), step["message"]) for step in data["trace"]),
        fix=None
        if fix is None
        else Fix(
            Safety(fix["safety"]),
            fix["message"],
            tuple(Edit(Location(**edit["location"]), edit["replacement"]) for edit in fix["edits"]),
        ),
        experiment=None if experiment is None else Experiment.from_json(experiment),
    )
