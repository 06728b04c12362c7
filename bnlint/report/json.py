"""JSON for programs: version 1 of a stable format, to which keys are only ever added."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bnlint.finding import Severity, Verdict
from bnlint.outcome import Report

VERSION = 1


def render(report: Report) -> str:
    """The report as one JSON document that any strict reader takes, whatever the findings carry.

    It is pure ASCII, hence UTF-8, and safe on a standard output of any encoding. A number that is not finite
    becomes null; a lone surrogate, as in the name of a file whose bytes are no text, becomes ``\\udcff`` as
    text.
    """
    data = {
        "version": VERSION,
        "findings": [finding.to_json() for finding in report.findings],
        "errors": [diagnostic.to_json() for diagnostic in report.diagnostics],
        "summary": _summary(report),
    }
    return json.dumps(_plain(data), indent=2, allow_nan=False) + "\n"


def _summary(report: Report) -> dict[str, Any]:
    severities = Counter(finding.severity for finding in report.findings)
    verdicts = Counter(f.verification.verdict for f in report.findings if f.verification is not None)
    verified = {verdict.value: verdicts[verdict] for verdict in Verdict}
    return {
        "files": report.files,
        "findings": len(report.findings),
        "by_code": dict(sorted(Counter(finding.code for finding in report.findings).items())),
        "by_severity": {severity.value: severities[severity] for severity in Severity},
        "verification": verified if report.verified else None,
    }


def _plain(value: Any) -> Any:
    """``value`` made of nothing but what JSON knows."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _text(value)


def _text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
