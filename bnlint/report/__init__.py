"""From a finished run to what its reader gets: one module a format.

A format's module is imported only when it is used, so that a command that prints no report need not wait for
the terminal renderer.
"""

from __future__ import annotations

from typing import TextIO

from bnlint.finding import Report

FORMATS = ("text", "json")


def write(report: Report, format: str, stream: TextIO) -> None:
    """Write ``report`` to ``stream`` in one of ``FORMATS``."""
    if format == "json":
        from bnlint.report import json

        stream.write(json.render(report))
    elif format == "text":
        from bnlint.report import text

        text.render(report, text.console_for(stream))
    else:
        raise ValueError(f"no report format {format!r}; there are {', '.join(FORMATS)}")
