"""The base class of every rule, and the registry that finds them.

A rule is one class in one module. Its docstring *is* its public documentation (``bnlint --explain CODE``),
in the sections named by ``SECTIONS``. Built-in rules are found by walking the package ``bnlint.rules``; a
third party's pack through the entry-point group ``bnlint.rules``, whose entries name a package, a module or
a single ``Rule`` subclass.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from bnlint.errors import UsageError
from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Finding, Fix, Location, Severity, TraceStep
from bnlint.source.marks import Mark, Pattern

if TYPE_CHECKING:
    from bnlint.semantics import FileFacts

ENTRY_POINT_GROUP = "bnlint.rules"
SECTIONS = (
    "What it does",
    "Why is this bad?",
    "Example",
    "Use instead",
    "When it does not fire",
    "How --verify confirms it",
    "Fix safety",
    "References",
)
_CODE = re.compile(r"[A-Z]{3}[0-9]{3}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

#: The code of a file that cannot be analysed and of an internal error; no rule may take it.
FILE_ERROR_CODE = "BNL900"
FILE_ERROR_NAME = "cannot-analyse"

#: Codes that have been considered and have no rule, which none may take: a name, and the reason.
RETIRED = {
    "BNL122": (
        "weight-decay-on-bn",
        "whether weight decay should reach the scale of BatchNorm is contested, and nothing that can be measured on a "
        "layer tells right from wrong",
    ),
    "BNL209": (
        "misnamed-training-argument",
        "a `call` whose flag is not named `training` is what BNL202 reports",
    ),
    "BNL306": (
        "distributed-local-bn",
        "statistics per device are often wanted, and with large batches on each device harmless; it depends on "
        "numbers that the source does not tell",
    ),
    "BNL309": (
        "bn-with-gradient-accumulation",
        "BatchNorm sees the micro-batches, which is a price that nearly all who accumulate gradients pay knowingly",
    ),
    "BNL312": (
        "teacher-in-train-mode",
        "of the teachers in train mode that were looked at, as many were meant so as not; where the mode shows to be "
        "a mistake, BNL002 reports it",
    ),
    "BNL313": (
        "gan-mixed-batch",
        "how a GAN's BatchNorm is to see real and generated samples, and in which mode to sample, is a matter of "
        "design on which its practitioners disagree",
    ),
}


class Rule(ABC):
    """One kind of misuse.

    ``needles`` decide which files are parsed at all: a file concerns the rule only if its bytes contain at
    least one needle of *every* group and, where there is a ``needle_pattern``, what that regular expression matches.
    They must be necessary conditions: a needle that a real case can lack makes the rule miss it. They are data, so that
    they can be kept apart from the rules, which take a while to import.

    ``marks`` are regular expressions, *all* of which are found in a top-level statement that the mistake can stand in
    (docstrings and lines of comments do not count); as ``Pattern`` they come with what is faster to look for. Other
    statements are run only where these need them or, where ``callers`` matter to the rule, where they call them. Where
    there is one, those in which ``excuse`` is found are run as well: what the rule looks for there keeps it silent.
    Rules that do not read modes (``follows_modes`` is false) are content with less of a large file; those that read
    which layer feeds which (``FileFacts.applied``) say so with ``follows_chains``. With ``scripts_only`` a rule needs
    no marks: it speaks of a file's own top-level code alone.

    For its page: ``frameworks`` by their names, the kinds of ``experiments`` that it asks for, and ``evidence``, the
    number of distinct public reports of the mistake that were counted.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity]
    default: ClassVar[bool] = True
    frameworks: ClassVar[tuple[str, ...]] = ()
    experiments: ClassVar[tuple[str, ...]] = ()
    evidence: ClassVar[int] = 0
    needles: ClassVar[tuple[tuple[bytes, ...], ...]]
    needle_pattern: ClassVar[str] = ""
    marks: ClassVar[tuple[str | Pattern, ...]] = ()
    callers: ClassVar[bool] = True
    excuse: ClassVar[str] = ""
    scripts_only: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = True
    follows_chains: ClassVar[bool] = False

    @abstractmethod
    def check(self, file: FileFacts) -> Iterator[Finding]:
        """Read the facts of one file and yield what is wrong; never touches the source text."""

    def finding(
        self,
        location: Location,
        message: str,
        confidence: Confidence,
        trace: tuple[TraceStep, ...] = (),
        fix: Fix | None = None,
        experiment: Experiment | None = None,
    ) -> Finding:
        return Finding(location, self.code, self.name, message, self.severity, confidence, trace, fix, experiment)

    @classmethod
    def documentation(cls) -> str:
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def summary(cls) -> str:
        return cls.documentation().split("\n", 1)[0]

    @classmethod
    def mark(cls) -> Mark:
        patterns = tuple(Pattern(its) if isinstance(its, str) else its for its in cls.marks)
        excuse = Pattern(cls.excuse) if cls.excuse else None
        return Mark(patterns, cls.callers, cls.follows_modes, excuse, cls.scripts_only, cls.follows_chains)

    def concerns(self, data: bytes) -> bool:
        """Whether a file with this content can have the mistake."""
        if not all(any(needle in data for needle in group) for group in self.needles):
            return False
        return not self.needle_pattern or _bytes_pattern(self.needle_pattern).search(data) is not None


@cache
def _bytes_pattern(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode())


@cache
def registry() -> dict[str, Rule]:
    """All installed rules by code, in the order of their codes.

    Raises ``UsageError`` for a pack that cannot be loaded, an incomplete rule or a code taken twice.
    """
    import bnlint.rules

    classes = list(_rules_of(bnlint.rules))
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            classes.extend(_rules_of(entry.load()))
        except Exception as error:
            raise UsageError(
                f"rule pack {entry.name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}; "
                "mend or uninstall it"
            ) from error
    found: dict[str, Rule] = {}
    for rule in classes:
        _validate(rule)
        other = found.setdefault(rule.code, rule())
        if type(other) is not rule:
            raise UsageError(f"{_where(rule)}: code {rule.code} is already taken by {_where(type(other))}")
    return dict(sorted(found.items()))


def _rules_of(pack: object) -> Iterator[type[Rule]]:
    if inspect.isclass(pack):
        if not issubclass(pack, Rule):
            raise TypeError(f"{pack.__qualname__} is no subclass of bnlint.rule.Rule")
        yield pack
        return
    if not isinstance(pack, ModuleType):
        raise TypeError(f"{pack!r} is neither a module nor a Rule")
    modules = [pack]
    if hasattr(pack, "__path__"):
        names = [info.name for info in pkgutil.walk_packages(pack.__path__, pack.__name__ + ".")]
        modules += [importlib.import_module(name) for name in names]
    for module in modules:
        for member in vars(module).values():
            # By metaclass: on Python 3.10 an alias such as list[int] passes for a class.
            if (
                issubclass(type(member), type)
                and issubclass(member, Rule)
                and not inspect.isabstract(member)
                and member.__module__ == module.__name__
            ):
                yield member


def _where(rule: type[Rule]) -> str:
    return f"{rule.__module__}.{rule.__qualname__}"


def _validate(rule: type[Rule]) -> None:
    missing = [name for name in ("code", "name", "severity", "needles") if not hasattr(rule, name)]
    if missing:
        raise UsageError(f"{_where(rule)}: the rule lacks {', '.join(missing)}")
    if not _CODE.fullmatch(rule.code) or rule.code == FILE_ERROR_CODE or rule.code in RETIRED:
        raise UsageError(f"{_where(rule)}: {rule.code!r} is no code of the form ABC123, or is reserved or retired")
    if not _NAME.fullmatch(rule.name):
        raise UsageError(f"{_where(rule)}: {rule.name!r} is no lower-case-with-hyphens name")
    lines = rule.documentation().splitlines()
    absent = [section for section in SECTIONS if f"## {section}" not in lines]
    if absent:
        raise UsageError(f"{_where(rule)}: its documentation lacks the sections {', '.join(absent)}")
