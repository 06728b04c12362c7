"""The last line of a report as text; for a run that found nothing, the whole of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnlint.outcome import Report

if TYPE_CHECKING:
    from bnlint.finding import Finding


def summary(report: Report) -> str:
    """The last line: how much was found, and what became of it."""
    findings = report.findings
    checked = _count(report.files, "file")
    problems = f"; {_count(len(report.diagnostics), 'problem')}" if report.diagnostics else ""
    if not findings:
        if not report.files:
            return f"No Python files to check{problems}."
        return f"No findings in {checked}{problems}."
    from bnlint.finding import Severity

    if report.verified:
        return f"{_count(len(findings), 'finding')}: {_verdicts(findings)}{problems}"
    severities = Counter(finding.severity for finding in findings)
    kinds = ", ".join(
        str(severities[kind]) + " info" if kind is Severity.INFO else _count(severities[kind], kind.value)
        for kind in Severity
        if severities[kind]
    )
    places = _count(len({finding.location.path for finding in findings}), "file")
    return f"{_count(len(findings), 'finding')} in {places} ({kinds}); {checked} checked{problems}"


def _verdicts(findings: Sequence[Finding]) -> str:
    """``2 confirmed, 1 refuted, 0 inconclusive · cpu · torch 2.13.0``"""
    from bnlint.finding import Verdict

    verifications = [finding.verification for finding in findings if finding.verification is not None]
    counts = Counter(verification.verdict for verification in verifications)
    told = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict]
    if len(verifications) < len(findings):
        told.append(f"{len(findings) - len(verifications)} without experiment")
    devices = dict.fromkeys(verification.device for verification in verifications if verification.device)
    versions = {name: version for verification in verifications for name, version in verification.versions.items()}
    parts = [", ".join(told), ", ".join(devices), versions_of(versions)]
    return " · ".join(part for part in parts if part)


def versions_of(versions: dict[str, str]) -> str:
    """``torch 2.13.0, keras 3.15.1``"""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
