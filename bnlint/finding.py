"""What a rule has to say: a finding, with its trace, its fix and, once verified, its verdict.

Lines and columns are 1-based and count characters; an end column is the one after the last character.
Paths are relative to the working directory and ``/``-separated. The ``to_json`` shapes are the public JSON
format: keys are only ever added.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from bnlint.experiment import Experiment


class Severity(str, Enum):
    """How much it matters when the finding is right."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Confidence(str, Enum):
    """How sure the static analysis is that the finding is right."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Safety(str, Enum):
    """``SAFE`` keeps what the program computes; ``UNSAFE`` changes it, as the fix of a mistake must."""

    SAFE = "safe"
    UNSAFE = "unsafe"


class Verdict(str, Enum):
    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, order=True)
class Location:
    path: str
    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True)
class TraceStep:
    """One step of how the reported state came about, in the order of execution."""

    location: Location
    message: str

    def to_json(self) -> dict[str, Any]:
        at = self.location
        return {"path": at.path, "line": at.line, "column": at.column, "message": self.message}


@dataclass(frozen=True)
class Edit:
    """Replace the text of ``location`` by ``replacement``; an empty location is an insertion."""

    location: Location
    replacement: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.location), "replacement": self.replacement}


@dataclass(frozen=True)
class Fix:
    safety: Safety
    message: str
    edits: tuple[Edit, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "safety": self.safety.value,
            "message": self.message,
            "edits": [edit.to_json() for edit in self.edits],
        }


@dataclass(frozen=True)
class Curve:
    """The values of one quantity at a plot's places; None where there is no finite number."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Plot:
    """Measured curves over the same places ``x``.

    In a plot with ``bins`` the places are the limits of bins, one more than there are values. ``reference`` is a value
    that a curve should have.
    """

    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    curves: tuple[Curve, ...]
    bins: bool = False
    reference: Curve | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plot:
        def curve(its: dict[str, Any]) -> Curve:
            return Curve(its["name"], tuple(its["values"]))

        curves = tuple(curve(its) for its in data["curves"])
        reference = curve(data["reference"]) if data["reference"] else None
        return cls(**{**data, "x": tuple(data["x"]), "curves": curves, "reference": reference})


@dataclass(frozen=True)
class Verification:
    """What the machine answered: the verdict, why, and the numbers behind it.

    ``measurements`` holds plain numbers, strings and lists; ``versions`` maps package to version. ``plots`` are
    measured only where a report shows pictures, and are no part of the JSON format.
    """

    verdict: Verdict
    reason: str
    device: str | None = None
    framework: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)
    plots: tuple[Plot, ...] = ()

    def to_json(self) -> dict[str, Any]:
        data = {**asdict(self), "verdict": self.verdict.value}
        del data["plots"]
        return data


@dataclass(frozen=True)
class Diagnostic:
    """A file, path or rule that could not be dealt with; the rest of the run goes on.

    ``path`` is empty where no file is concerned.
    """

    path: str
    line: int
    column: int
    code: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Finding:
    location: Location
    code: str
    name: str
    message: str
    severity: Severity
    confidence: Confidence
    trace: tuple[TraceStep, ...] = ()
    fix: Fix | None = None
    experiment: Experiment | None = None
    verification: Verification | None = None

    @property
    def sort_key(self) -> tuple[Location, str, str]:
        return (self.location, self.code, self.message)

    def verified(self, verification: Verification) -> Finding:
        return replace(self, verification=verification)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self.location),
            "code": self.code,
            "name": self.name,
            "message": self.message,
            "severity": self.severity.value,
            "confidence": self.confidence.value,
            "trace": [step.to_json() for step in self.trace],
            "fix": None if self.fix is None else self.fix.to_json(),
            "verification": None if self.verification is None else self.verification.to_json(),
        }
