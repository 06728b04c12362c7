"""How far measured values are from the thresholds, at worst.

    python benchmarks/margins.py               # 20 seeds, some minutes
    python benchmarks/margins.py --seeds 3
    python benchmarks/margins.py --kind half-statistics

Needs a checkout and an environment with bnlint and both frameworks. Each distinct experiment of the bad fixtures must
be confirmed and its null case, as tests/test_rules.py has it, refuted, with inputs drawn anew for every seed; on the
CPU. The margin of a kind is its smallest measured value over the threshold above which it is confirmed, and its
largest one over the threshold up to which it is refuted, over all cases and seeds. Where a verdict rests on something
exact (a flag, an exception, a statistic that stays to the last bit) there is no such number.

Prints the table of docs/verification.md, and says which verdicts are not what they should be.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bnlint.experiment import Experiment
from bnlint.finding import Finding, Verdict
from bnlint.verify import fixture
from bnlint.verify.backends import Backend, open_backend
from bnlint.verify.child import _answer
from bnlint.verify.verdict import KINDS, judge, reported

CHECKOUT = Path(__file__).resolve().parent.parent
#: How the thresholds are told that go with the measurements.
_TOLD = re.compile(
    r"([\w /]+): confirmed (above|from|below) ([\d.e+-]+)(?![\d.]| times)"
    r"(?:, refuted (?:up to|at|above) ([\d.e+-]+))?"
)


@dataclass
class Margins:
    """What was seen of a kind of experiment, for a framework."""

    cases: dict[Verdict, set[str]] = field(default_factory=lambda: defaultdict(set))
    confirmed: list[float] = field(default_factory=list)
    refuted: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--kind", choices=sorted(KINDS), help="only experiments of this kind (default all)")
    options = parser.parse_args()
    cases = [(experiment, expected) for experiment, expected in all_cases() if options.kind in (None, experiment.kind)]
    margins: dict[tuple[str, str], Margins] = defaultdict(Margins)
    backends: dict[str, Backend] = {}
    versions: dict[str, str] = {}
    for framework in sorted({experiment.framework for experiment, _ in cases}, reverse=True):
        backends[framework] = open_backend(framework, "cpu")
        versions |= backends[framework].versions
    for seed in range(options.seeds):
        print(f"seed {seed + 1} of {options.seeds}", file=sys.stderr)
        fixture.SEED = seed
        for experiment, expected in cases:
            answer = _answer(backends[experiment.framework], experiment, {})
            look(answer["layers"], experiment, expected, seed, margins[experiment.kind, experiment.framework])
    show(margins, options.seeds, versions)


def all_cases() -> Iterator[tuple[Experiment, Verdict]]:
    """The distinct experiments of the bad fixtures, and the null cases, with what must come out."""
    rules = load("tests/test_rules.py")
    claims = [
        finding
        for path in rules.BAD
        for finding in rules.findings_in(path)
        if finding.experiment is not None and finding.experiment.layers
    ]
    nulls = {finding.code: rules.null_of(finding) for finding in reversed(claims) if rules.norms_of(finding)}
    yield from distinct(claims, Verdict.CONFIRMED)
    yield from distinct(nulls.values(), Verdict.REFUTED)


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location("rules_under_test", CHECKOUT / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distinct(findings: Iterable[Finding], expected: Verdict) -> Iterator[tuple[Experiment, Verdict]]:
    seen = set()
    for finding in findings:
        experiment = finding.experiment
        assert experiment is not None
        # What a source has as input and how many layers are alike is no other question.
        key = json.dumps([experiment.kind, experiment.options, sorted({name_of(its) for its in experiment.layers})])
        if key not in seen:
            seen.add(key)
            yield experiment, expected


def name_of(layer: Any) -> str:
    return json.dumps([layer.kind, {name: value for name, value in layer.arguments.items() if name != "num_features"}])


def look(layers: list[Any], experiment: Experiment, expected: Verdict, seed: int, margins: Margins) -> None:
    verdict, reason = judge(experiment.kind, layers)
    name = f"{experiment.kind} of {', '.join(layer.kind for layer in experiment.layers[:3])}"
    if "must be installed" in reason:
        return
    margins.cases[expected].add(json.dumps(experiment.to_json()))
    if verdict is not expected:
        margins.wrong.append(f"seed {seed}, {name}: {verdict.value}, {reason}")
        return
    measured = reported(experiment.kind, layers)
    told = _TOLD.match(KINDS[experiment.kind].tolerance)
    if told is None:
        return
    quantity, way, confirmed_at, refuted_at = told.groups()
    value = measured.get(quantity, measured.get(f"{quantity}_as_written"))
    if not isinstance(value, (int, float)):
        return
    if verdict is Verdict.CONFIRMED:
        threshold = float(confirmed_at)
        margins.confirmed.append(threshold / value if way == "below" else value / threshold)
    elif refuted_at is not None and float(refuted_at) and value is not None:
        threshold = float(refuted_at)
        margins.refuted.append(threshold / value if way == "below" else value / threshold)


def show(margins: dict[tuple[str, str], Margins], seeds: int, versions: dict[str, str]) -> None:
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{seeds} seeds, CPU, {told}.\n")
    print("| kind | framework | cases confirmed / refuted | smallest over threshold | largest over threshold |")
    print("| --- | --- | --- | --- | --- |")
    for (kind, framework), seen in sorted(margins.items()):
        counts = f"{len(seen.cases[Verdict.CONFIRMED])} / {len(seen.cases[Verdict.REFUTED])}"
        least = f"{min(seen.confirmed):.3g}" if seen.confirmed else "exact"
        most = f"{max(seen.refuted):.2g}" if seen.refuted else "exact"
        print(f"| `{kind}` | {framework} | {counts} | {least} | {most} |")
    wrong = [line for seen in margins.values() for line in seen.wrong]
    print(f"\n{len(wrong)} verdicts were not what they should be.")
    for line in wrong:
        print(f"- {line}")


if __name__ == "__main__":
    main()
