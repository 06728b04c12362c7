"""The JSON report: the shape that issue 2 promises, and valid JSON whatever the findings carry."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest

from bnlint.finding import (
    Confidence,
    Diagnostic,
    Edit,
    Finding,
    Fix,
    Location,
    Safety,
    Severity,
    TraceStep,
    Verdict,
    Verification,
)
from bnlint.outcome import Report
from bnlint.report import write


def finding(code: str = "BNL002", severity: Severity = Severity.ERROR, **more: Any) -> Finding:
    place = Location(more.pop("path", "src/m.py"), 3, 5, 4, 10)
    return Finding(place, code, "some-name", "what is wrong", severity, Confidence.LIKELY, **more)


def verification(verdict: Verdict, **measurements: Any) -> Verification:
    return Verification(verdict, "why", "cpu", "torch", {"torch": "2.13.0"}, measurements)


def text_of(report: Report) -> str:
    stream = io.StringIO()
    write(report, "json", stream)
    return stream.getvalue()


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def parsed(report: Report) -> Any:
    return json.loads(text_of(report), parse_constant=refuse)


def test_nothing_found() -> None:
    assert parsed(Report((), files=57)) == {
        "version": 1,
        "findings": [],
        "errors": [],
        "summary": {
            "files": 57,
            "findings": 0,
            "by_code": {},
            "by_severity": {"error": 0, "warning": 0, "info": 0},
            "verification": None,
        },
    }


def test_one_finding_in_full() -> None:
    full = finding(
        trace=(TraceStep(Location("src/net.py", 1, 2, 1, 9), "built here"),),
        fix=Fix(Safety.UNSAFE, "insert it", (Edit(Location("src/m.py", 3, 1, 3, 1), "m.eval()\n"),)),
        verification=verification(Verdict.CONFIRMED, gap=0.5, chosen=["channels=16"]),
    )
    assert parsed(Report((full,), files=1, verified=True))["findings"] == [
        {
            "path": "src/m.py",
            "line": 3,
            "column": 5,
            "end_line": 4,
            "end_column": 10,
            "code": "BNL002",
            "name": "some-name",
            "message": "what is wrong",
            "severity": "error",
            "confidence": "likely",
            "trace": [{"path": "src/net.py", "line": 1, "column": 2, "message": "built here"}],
            "fix": {
                "safety": "unsafe",
                "message": "insert it",
                "edits": [
                    {
                        "path": "src/m.py",
                        "line": 3,
                        "column": 1,
                        "end_line": 3,
                        "end_column": 1,
                        "replacement": "m.eval()\n",
                    }
                ],
            },
            "verification": {
                "verdict": "confirmed",
                "reason": "why",
                "device": "cpu",
                "framework": "torch",
                "versions": {"torch": "2.13.0"},
                "measurements": {"gap": 0.5, "chosen": ["channels=16"]},
            },
        }
    ]


def test_what_is_absent_is_null() -> None:
    (only,) = parsed(Report((finding(),)))["findings"]
    assert (only["trace"], only["fix"], only["verification"]) == ([], None, None)


def test_diagnostics_are_the_errors() -> None:
    report = Report((), (Diagnostic("bad.py", 2, 7, "BNL900", "no text"),), files=1)
    assert parsed(report)["errors"] == [
        {"path": "bad.py", "line": 2, "column": 7, "code": "BNL900", "message": "no text"}
    ]


def test_summary_counts() -> None:
    findings = (
        finding("BNL101", Severity.WARNING, verification=verification(Verdict.CONFIRMED)),
        finding("BNL002", verification=verification(Verdict.CONFIRMED)),
        finding("BNL101", Severity.WARNING, verification=verification(Verdict.REFUTED)),
        finding("BNL999", Severity.INFO),
    )
    summary = parsed(Report(findings, files=9, verified=True))["summary"]
    assert summary == {
        "files": 9,
        "findings": 4,
        "by_code": {"BNL002": 1, "BNL101": 2, "BNL999": 1},
        "by_severity": {"error": 1, "warning": 2, "info": 1},
        "verification": {"confirmed": 2, "refuted": 1, "inconclusive": 0},
    }
    assert list(summary["by_code"]) == ["BNL002", "BNL101", "BNL999"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(number: float) -> None:
    carrying = finding(verification=verification(Verdict.INCONCLUSIVE, gap=number, several=[1.5, number]))
    (only,) = parsed(Report((carrying,), verified=True))["findings"]
    assert only["verification"]["measurements"] == {"gap": None, "several": [1.5, None]}


def test_lone_surrogates_become_text_that_strict_readers_take() -> None:
    report = Report((finding(path="caf\udce9.py"),), (Diagnostic("x\udcff.py", 1, 1, "BNL900", "m"),))
    data = parsed(report)
    assert data["findings"][0]["path"] == "caf\\udce9.py"
    assert data["errors"][0]["path"] == "x\\udcff.py"
    json.dumps(data, ensure_ascii=False).encode("utf-8")  # no surrogate is left


def test_proper_unicode_survives() -> None:
    assert parsed(Report((finding(path="café/日本😀.py"),)))["findings"][0]["path"] == "café/日本😀.py"


def test_foreign_values_become_text() -> None:
    carrying = finding(verification=verification(Verdict.CONFIRMED, shape=(2, 3), what={1: complex(1, 2)}))
    (only,) = parsed(Report((carrying,)))["findings"]
    assert only["verification"]["measurements"] == {"shape": [2, 3], "what": {"1": "(1+2j)"}}


def test_ends_with_one_newline_and_needs_no_more_than_ascii() -> None:
    text = text_of(Report((finding(path="é.py"),)))
    assert text.endswith("}\n") and not text.endswith("\n\n")
    assert text.isascii()


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="xml"):
        write(Report(()), "xml", io.StringIO())
