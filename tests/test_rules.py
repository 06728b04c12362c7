"""Every rule against its fixtures: what is found, what is not, what the fix does, and what the machine says.

``fixtures/<rule>/`` holds programs with ``# expect: CODE`` at the end of the first line of every expected
finding.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from bnlint.assumptions import Assumptions, Versions
from bnlint.engine import lint_bytes, lint_text
from bnlint.experiment import Experiment, LayerSpec, Scalar
from bnlint.finding import Confidence, Edit, Finding, Safety, Verdict
from bnlint.rule import SECTIONS, Rule, registry
from bnlint.semantics.project import Project
from bnlint.verify import verify

FIXTURES = Path(__file__).parents[1] / "fixtures"
RULES = [rule for rule in registry().values() if rule.code.startswith("BNL")]
FOLDERS = {rule.name: rule for rule in RULES}
FILES = sorted(path for path in FIXTURES.glob("*/*.py") if path.parent.name in FOLDERS)
BAD = [path for path in FILES if "# expect:" in path.read_text("utf-8")]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def rules_for(path: Path) -> list[Rule]:
    """The rules that are on, and the one that the program is about: what is merely wasteful is so in many of them."""
    return [rule for rule in RULES if rule.default or rule is FOLDERS[path.parent.name]]


def findings_in(path: Path) -> tuple[Finding, ...]:
    result = lint_bytes(path.read_bytes(), path.name, rules_for(path))
    assert not result.diagnostics
    return result.findings


def expected_in(path: Path) -> set[tuple[str, int]]:
    lines = enumerate(path.read_text("utf-8").splitlines(), start=1)
    return {
        (code, number)
        for number, line in lines
        if (mark := re.search(r"# expect: ([A-Z0-9 ]+)$", line))
        for code in mark[1].split()
    }


def applied(text: str, edits: tuple[Edit, ...]) -> str:
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for edit in sorted(edits, key=lambda edit: edit.location, reverse=True):
        at = edit.location
        begin, end = starts[at.line - 1] + at.column - 1, starts[at.end_line - 1] + at.end_column - 1
        text = text[:begin] + edit.replacement + text[end:]
    return text


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_fixture_has_the_findings_that_it_marks(path: Path) -> None:
    assert {(finding.code, finding.location.line) for finding in findings_in(path)} == expected_in(path)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_rule_has_enough_bad_and_good_fixtures(name: str) -> None:
    own = [path for path in FILES if path.parent.name == name]
    bad = [path for path in own if path.name.startswith("bad_")]
    assert len(bad) >= 3 and len(own) - len(bad) >= 3
    for path in own:
        codes = {code for code, _ in expected_in(path)}
        assert (FOLDERS[name].code in codes) if path in bad else not codes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_documentation_is_complete(rule: object) -> None:
    text = type(rule).documentation()  # type: ignore[attr-defined]
    summary, _, rest = text.partition("\n\n")
    assert summary.endswith(".") and "\n" not in summary
    sections = re.split(r"^## (.+)\n", rest, flags=re.M)[1:]
    assert tuple(sections[::2]) == SECTIONS
    assert all(len(body.strip()) > 20 for body in sections[1::2])
    examples = re.findall(r"```python\n(.*?)```", rest, flags=re.S)
    assert len(examples) == 2 and examples[0] != examples[1]
    for example in examples:
        ast.parse(example)


@pytest.mark.parametrize("path", BAD, ids=name_of)
def test_a_finding_says_what_and_where_in_one_line_and_has_an_experiment(path: Path) -> None:
    for finding in findings_in(path):
        assert "\n" not in finding.message and finding.message[-1] not in ".:; "
        assert all(step.message[0].islower() or "()" in step.message for step in finding.trace)
        assert finding.experiment is not None
        assert finding.experiment.layers or finding.experiment.unknown


@pytest.mark.parametrize("path", BAD, ids=name_of)
def test_a_fix_removes_its_finding_and_nothing_else_changes(path: Path) -> None:
    text = path.read_text("utf-8")
    before = findings_in(path)
    for finding in before:
        if finding.fix is None:
            continue
        assert finding.fix.safety is (Safety.SAFE if finding.code == "BNL210" else Safety.UNSAFE)
        fixed = applied(text, finding.fix.edits)
        ast.parse(fixed)
        left = lint_text(fixed, path.name, rules_for(path)).findings
        # Neither this finding nor a new one in its place; a fix may remove others along with its own.
        assert {kind(one, fixed) for one in left} <= {kind(one, text) for one in before} - {kind(finding, text)}
        touched = {edit.location.line for edit in finding.fix.edits}
        matcher = difflib.SequenceMatcher(None, text.splitlines(), fixed.splitlines(), autojunk=False)
        for tag, first, last, _, _ in matcher.get_opcodes():
            assert tag == "equal" or set(range(first + 1, max(last, first + 1) + 1)) <= touched


def kind(finding: Finding, text: str) -> tuple[str, str, int]:
    """A finding by its rule and its line's own text, since a fix moves lines; the n-th of equal lines."""
    lines = text.splitlines()
    line = lines[finding.location.line - 1]
    return finding.code, line, lines[: finding.location.line].count(line)


def test_a_rule_offers_a_fix_somewhere_or_says_why_there_is_none() -> None:
    fixed = {finding.code for path in BAD for finding in findings_in(path) if finding.fix}
    without = {rule.code for rule in RULES if "## Fix safety\nThere is no fix: " in type(rule).documentation()}
    assert fixed.isdisjoint(without)
    assert fixed | without == {rule.code for rule in RULES}


def test_a_rule_names_the_kinds_of_its_experiments() -> None:
    kinds: dict[str, set[str]] = {rule.code: set() for rule in RULES}
    for path in BAD:
        for finding in findings_in(path):
            if finding.experiment is not None:
                kinds[finding.code].add(finding.experiment.kind)
    assert kinds == {rule.code: set(rule.experiments) for rule in RULES}


# The same questions, asked of layers for which the rule's claim is false.
NULLS: Mapping[str, dict[str, Scalar]] = {
    "BNL001": {"track_running_stats": False},
    "BNL002": {"track_running_stats": False},
    "BNL003": {"track_running_stats": False},
    "BNL004": {"track_running_stats": False, "affine": False},
    "BNL005": {"track_running_stats": False, "affine": False},
    "BNL006": {},
    "BNL007": {"track_running_stats": False},
    "BNL008": {"track_running_stats": False},
    "BNL009": {"track_running_stats": False},
    "BNL010": {"track_running_stats": False},
    "BNL011": {"track_running_stats": False},
    "BNL012": {"track_running_stats": False},
    "BNL013": {"p": 0.0},
    "BNL014": {"track_running_stats": False},
    "BNL015": {"track_running_stats": False},
    "BNL101": {"momentum": 0.1},
    "BNL102": {"momentum": 0.9},
    "BNL103": {"momentum": 0.4},
    "BNL104": {"momentum": 0.9},
    "BNL105": {"eps": 1e-5},
    "BNL106": {},
    "BNL107": {"eps": 1e-5},
    "BNL111": {"axis": -1},
    "BNL112": {"num_features": 16},
    "BNL120": {},
    "BNL121": {},
    "BNL113": {"track_running_stats": True},
    "BNL114": {"track_running_stats": False},
    "BNL201": {"trainable": False},
    "BNL202": {"trainable": False},
    "BNL203": {"trainable": False},
    "BNL204": {"trainable": False},
    "BNL205": {"trainable": False},
    "BNL206": {"trainable": False},
    "BNL207": {"trainable": False},
    "BNL208": {"trainable": False},
    "BNL210": {"trainable": False},
    "BNL220": {"trainable": False},
    "BNL221": {"trainable": False},
    "BNL301": {"track_running_stats": False},
    "BNL302": {"track_running_stats": False},
    "BNL303": {"track_running_stats": False},
    "BNL304": {"track_running_stats": False},
    "BNL305": {"track_running_stats": False},
    "BNL307": {"track_running_stats": False},
    "BNL308": {"momentum": 0.9},
    "BNL310": {"track_running_stats": False},
    "BNL311": {"p": 0.0},
    "BNL901": {"momentum": 0.1},
}


# Where it is not the layer that makes the claim true.
NULL_OPTIONS: Mapping[str, dict[str, Scalar]] = {
    "BNL006": {"fault": "none"},
    "BNL111": {"data_format": "channels_last"},
    "BNL112": {"before": "Conv1d", "features": 16, "rank": 3},
    "BNL120": {"between": "ReLU"},
    "BNL121": {"rate": 0.0},
    "BNL105": {"eps_of_source": 1e-5},
    "BNL106": {"order": "gamma,beta,moving_mean,moving_variance"},
}


def norms_of(finding: Finding) -> list[LayerSpec]:
    """The layers that a null case changes: those with BatchNorm, else InstanceNorm, or Dropout where it is about p."""
    layers = finding.experiment.layers if finding.experiment else ()
    kinds = ("Dropout",) if "p" in NULLS[finding.code] else ("BatchNorm", "InstanceNorm")
    found = ([layer for layer in layers if kind in layer.kind] for kind in kinds)
    return next((those for those in found if those), [])


def null_of(finding: Finding) -> Finding:
    assert finding.experiment is not None
    norms = norms_of(finding)
    changed = [LayerSpec(norm.kind, {**norm.arguments, **NULLS[finding.code]}, norm.chosen) for norm in norms]
    options = {**finding.experiment.options, **NULL_OPTIONS.get(finding.code, {})}
    experiment: Experiment = replace(finding.experiment, layers=tuple(changed), options=options)
    return replace(finding, experiment=experiment)


@pytest.fixture(scope="module")
def measured() -> tuple[list[Finding], list[Finding]]:
    """Each distinct experiment of the bad fixtures, and one null case per rule, measured in one run."""
    if any(find_spec(package) is None for package in ("torch", "keras")):
        pytest.skip("torch and keras are not installed")
    claims = [
        finding
        for path in BAD
        for finding in findings_in(path)
        if finding.experiment is not None and finding.experiment.layers
    ]
    # One for each rule: of the first finding that there is, which for exports is torch.export and not what raises.
    nulls = list({finding.code: null_of(finding) for finding in reversed(claims) if norms_of(finding)}.values())
    answers = verify([*claims, *nulls], "cpu")
    return answers[: len(claims)], answers[len(claims) :]


def test_every_bad_finding_with_layers_is_confirmed(measured: tuple[list[Finding], list[Finding]]) -> None:
    claims, _ = measured
    assert {finding.code for finding in claims} == set(NULLS)
    for finding in claims:
        assert finding.verification is not None
        if "must be installed" not in finding.verification.reason:  # onnx, onnxruntime and onnxscript
            assert finding.verification.verdict is Verdict.CONFIRMED, (finding, finding.verification.reason)


@pytest.mark.parametrize("code", NULLS)
def test_the_null_case_is_refuted(measured: tuple[list[Finding], list[Finding]], code: str) -> None:
    (null,) = (finding for finding in measured[1] if finding.code == code)
    assert null.verification is not None
    assert null.verification.verdict is Verdict.REFUTED, null.verification.reason


@pytest.mark.parametrize("indent, is_fixed", [("    ", True), ("\t", False), ("  ", False)])
def test_a_line_is_inserted_only_where_its_indentation_is_sure(indent: str, is_fixed: bool) -> None:
    code = f"""import torch
net = torch.nn.BatchNorm1d(3)
def predict(x):
{indent}with torch.no_grad():
{indent}{indent}return net(x)
"""
    (finding,) = lint_text(code, "program.py", RULES).findings
    assert finding.code == "BNL002" and (finding.fix is not None) is is_fixed


def test_dropout_that_is_off_by_default_is_no_more_than_possible() -> None:
    code = """import torch.nn.functional as F
from torch import nn
class Attention(nn.Module):
    def __init__(self, rate={rate}):
        super().__init__()
        self.rate = rate
    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate)
"""
    for rate, confidence in (("0.0", Confidence.POSSIBLE), ("0.1", Confidence.LIKELY)):
        (finding,) = lint_text(code.format(rate=rate), "program.py", RULES).findings
        assert finding.code == "BNL013" and finding.confidence is confidence


@pytest.mark.parametrize(
    "torch, confidence, said",
    [
        (Versions(), Confidence.LIKELY, "which is assumed here"),
        (Versions((2, 13), (2, 14), "uv.lock"), Confidence.CERTAIN, "uv.lock"),
        (Versions((2, 4), (2, 5), "uv.lock"), None, ""),
    ],
)
def test_the_exporter_depends_on_the_version(torch: Versions, confidence: Confidence | None, said: str) -> None:
    code = """import torch
from torch import nn
net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
torch.onnx.export(net, torch.ones(1, 8), "net.onnx")
"""
    project = Project(assumptions=Assumptions(torch=torch))
    found = [f for f in lint_text(code, "program.py", RULES, project).findings if f.code == "BNL009"]
    assert [finding.confidence for finding in found] == ([confidence] if confidence else [])
    assert all(said in finding.message for finding in found)
