"""What a run has to say. Apart from ``bnlint.finding``, which a run that finds nothing need not wait for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bnlint.finding import Diagnostic, Finding


class Report(NamedTuple):
    """Everything one run has to say; what ``bnlint.report`` renders.

    ``files`` counts the files that were looked at, ``verified`` says whether the findings went through the verifier.
    ``sources`` holds the text of the files that findings or diagnostics name, where it could be decoded, so that a
    report can show their lines.
    """

    findings: tuple[Finding, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    files: int = 0
    verified: bool = False
    sources: Mapping[str, str] = MappingProxyType({})
