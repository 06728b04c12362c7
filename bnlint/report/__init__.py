"""From a finished run to what its reader gets: one module a format.

A format's module is imported only when it is used, so that a run that has nothing to show need not wait for the
terminal renderer.
"""

from __future__ import annotations

from typing import TextIO

from bnlint.outcome import Report

FORMATS = ("text", "json", "html")


def write(report: Report, format: str, stream: TextIO) -> None:
    """Write ``report`` to ``stream`` in one of ``FORMATS``."""
    if format == "json":
        from bnlint.report import json

        stream.write(json.render(report))
    elif format == "html":
        from bnlint.report import html

        stream.write(html.render(report))
    elif format == "text" and not report.findings and not report.diagnostics:
        from bnlint.report.summary import summary

        stream.write(summary(report) + "\n")
    elif format == "text":
        from bnlint.report import text

        text.render(report, text.console_for(stream))
    else:
        raise ValueError(f"no report format {format!r}; there are {', '.join(FORMATS)}")
