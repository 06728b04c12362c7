"""Level 2: a project's own models, cut out of its sources, built where they can do no harm, and measured."""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnlint.cache import ResultCache
from bnlint.cli import main
from bnlint.experiment import Experiment, LayerSpec, ModelSpec
from bnlint.finding import Finding, Verdict, Verification
from bnlint.semantics.project import Project
from bnlint.verify import runner, verify
from bnlint.verify.models import process
from bnlint.verify.models.cut import CannotCut, cut

pytest.importorskip("torch")

FILES = {
    "net/__init__.py": "",
    "net/blocks.py": """\
        import torch.nn as nn
        raise SystemExit("a script's own code is never run")
        class Block(nn.Module):
            def __init__(self, before, after, norm=nn.BatchNorm2d):
                super().__init__()
                self.conv = nn.Conv2d(before, after, 3, padding=1)
                self.bn = norm(after)
            def forward(self, x):
                return self.bn(self.conv(x)).relu()
        """,
    "net/model.py": """\
        import os
        import torch
        from torch import nn
        from .blocks import Block
        from . import blocks
        print("never run")
        WIDTH = 8
        class Net(nn.Module):
            def __init__(self, num_classes, width=WIDTH):
                super().__init__()
                self.first = Block(3, width)
                self.second = blocks.Block(width, width)
                self.head = nn.Linear(width * 28 * 28, num_classes)
            def forward(self, x):
                return self.head(self.second(self.first(x)).flatten(1))
        class Unused(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)
            def forward(self, x):
                return self.layer(x)
        class Dropping(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)
            def forward(self, x):
                return self.drop(self.layer(x))
        class Writing(Unused):
            def __init__(self):
                super().__init__()
                open("KEPT", "w").write("no")
        class Deleting(Unused):
            def __init__(self):
                super().__init__()
                os.remove("KEPT")
        class Connecting(Unused):
            def __init__(self):
                super().__init__()
                import urllib.request
                urllib.request.urlopen("http://127.0.0.1:9/")
        class Starting(Unused):
            def __init__(self):
                super().__init__()
                os.system("true")
        class Loading(Unused):
            def __init__(self):
                super().__init__()
                state = torch.load("weights.pt")
                self.load_state_dict({k: v for k, v in state["model"].items()})
        class TwoInputs(Unused):
            def forward(self, x, y):
                return self.bn(x + y)
        class OtherInputs(Unused):
            def forward(self, x, y):
                return self.bn(self.layer(x)) * y.reshape(len(y), 3, 2)
        class Wrapped(nn.Module):
            def __init__(self, body, sizes, norm):
                super().__init__()
                self.body, self.head, self.norm = body, nn.Linear(*sizes), norm(sizes[1])
            def forward(self, x):
                return self.norm(self.head(self.body(x)))
        class Switched(Dropping):
            def __init__(self, dropping=False):
                super().__init__()
                if not dropping:
                    self.drop = nn.Identity()
                    self.bn = nn.BatchNorm1d(4)
        class Stuck(Unused):
            def __init__(self, flavour):
                super().__init__()
        """,
}

USE = """\
import torch
from torch import nn
from net.model import {name}, Block, Unused
classes = 10
net = {call}
net.load_state_dict(torch.load("weights.pt"))
with torch.no_grad():
    print(net(test_x))
"""


CALLS = {
    "Net(classes)": "",
    "Net(len(test_x))": "",
    "Unused()": "",
    "Dropping()": "",
    "Loading()": "",
    "Switched(len(test_x) > 1)": "does not tell all of its arguments",
    "Writing()": "wants to write KEPT",
    "Deleting()": "wants to change KEPT",
    "Connecting()": "wants to use the network",
    "Starting()": "wants to start a program",
    "TwoInputs()": "",
    "OtherInputs()": "no input was found that it takes, of 2 inputs with one shape,",
    "Wrapped(Unused(), [4, 6], nn.BatchNorm1d)": "",
    "Wrapped(body=Block(4, len(test_x)), sizes=[4, 6], norm=nn.BatchNorm1d)": "does not tell its argument after",
    "Stuck(len(test_x))": "does not tell its argument flavour",
}


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The verification of the one finding in each of the programs that use a model wrongly, by the call that builds it.

    All in one run, since starting processes is what takes long.
    """
    folder = tmp_path_factory.mktemp("models")
    kept = folder / "KEPT"
    kept.write_text("as it was")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("KEPT", str(kept)))
    for number, call in enumerate(CALLS):
        (folder / f"use_{number:02}.py").write_text(USE.format(name=call.partition("(")[0], call=call))
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["--verify-models", "--no-cache", "--device", "cpu", "--format", "json"]) == 1
    assert kept.read_text() == "as it was"
    assert "never run" not in output.getvalue()
    findings = json.loads(output.getvalue())["findings"]
    assert [finding["path"] for finding in findings] == [f"use_{number:02}.py" for number in range(len(CALLS))]
    return {call: finding["verification"] for call, finding in zip(CALLS, findings, strict=True)}


def test_a_model_of_several_files_is_built_and_measured(verified: dict[str, dict[str, Any]]) -> None:
    its = verified["Net(classes)"]
    numbers = its["measurements"]
    assert its["verdict"] == "confirmed"
    assert numbers["model"] == "Net" and numbers["norm_layers"] == 2 and numbers["layers_moved"] == 2
    assert numbers["input"].startswith("16x3x28x28")
    assert numbers["batch_dependence_train"] > 1e-4 > numbers["batch_dependence_eval"]
    assert {name for name, _ in numbers["drift_by_layer"]} == {"first.bn", "second.bn"}


def test_an_argument_that_the_source_does_not_tell_is_chosen_and_named(verified: dict[str, dict[str, Any]]) -> None:
    assert verified["Net(len(test_x))"]["measurements"]["chosen"] == ["num_classes=10"]


def test_a_layer_that_the_output_does_not_depend_on_refutes(verified: dict[str, dict[str, Any]]) -> None:
    its = verified["Unused()"]
    assert its["verdict"] == "refuted" and "does not show" in its["reason"]
    assert its["measurements"]["gap"] == 0


def test_dropout_is_told_from_batch_norm(verified: dict[str, dict[str, Any]]) -> None:
    its = verified["Dropping()"]
    assert its["verdict"] == "confirmed" and "drops values" in its["reason"]
    assert its["measurements"]["gap"] == 0 and its["measurements"]["dropout_gap"] > 0.1


def test_several_inputs_are_tried_with_one_shape(verified: dict[str, dict[str, Any]]) -> None:
    its = verified["TwoInputs()"]
    assert its["verdict"] == "confirmed" and its["measurements"]["gap"] > 0.1
    assert its["measurements"]["input"] == "16x4, normal, mean 0, sd 1 and 16x4, normal, mean 0, sd 1"


def test_models_classes_and_lists_among_the_arguments_are_built_too(verified: dict[str, dict[str, Any]]) -> None:
    its = verified["Wrapped(Unused(), [4, 6], nn.BatchNorm1d)"]
    assert its["verdict"] == "confirmed" and "chosen" not in its["measurements"]
    # That of Unused is measured as well, though its output does not depend on it.
    assert its["measurements"]["norm_layers"] == 2
    assert dict(its["measurements"]["drift_by_layer"]).keys() == {"norm", "body.bn"}


def test_weights_are_not_needed(verified: dict[str, dict[str, Any]]) -> None:
    assert verified["Loading()"]["verdict"] == "refuted"


@pytest.mark.parametrize("call", [call for call, said in CALLS.items() if said])
def test_what_cannot_be_built_keeps_the_verdict_on_its_layers(verified: dict[str, dict[str, Any]], call: str) -> None:
    its = verified[call]
    assert its["verdict"] == "confirmed" and "model" not in its["measurements"]
    assert CALLS[call] in its["reason"]


def test_only_what_the_class_needs_is_cut_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(textwrap.dedent(text))
    pieces = cut(Project(), [("net/model.py", "Net")])
    assert set(pieces) == {"net/model.py", "net/blocks.py"}
    source = pieces["net/model.py"]["source"]
    assert "print" not in source and "Unused" not in source and "import os" not in source
    assert source.splitlines()[6] == "WIDTH = 8"
    assert pieces["net/model.py"]["links"] == {
        "Block": ("net/blocks.py", "Block"),
        "blocks": ("net/blocks.py", ""),
    }
    with pytest.raises(CannotCut, match="defines no Other"):
        cut(Project(), [("net/model.py", "Other")])


def test_a_verdict_on_a_model_is_kept_until_its_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_finding: Callable[..., Finding]
) -> None:
    monkeypatch.chdir(tmp_path)
    measured: list[str] = []
    answer = Verification(Verdict.REFUTED, "made up", "cpu", "torch", {"torch": "2"}, {"model": "Net"})

    def measure(question: process.Question, *others: object) -> tuple[Verification, bool]:
        measured.append(question.spec.name)
        return answer, True

    def run(batches: dict[str, list[Experiment]], *others: object) -> dict[str, list[runner.Answer]]:
        return {framework: [(answer, False)] * len(experiments) for framework, experiments in batches.items()}

    monkeypatch.setattr(process, "_measured", measure)
    monkeypatch.setattr(runner, "run", run)
    layer = LayerSpec("torch.nn.BatchNorm2d", {"num_features": 8})

    def ask(width: int = 8, device: str = "cpu", cached: bool = True) -> int:
        spec = ModelSpec("net.py", "Net", {"width": width})
        finding = make_finding(Experiment("mode-gap", "torch", (layer,), model=spec))
        del measured[:]
        with ResultCache.open(".") as cache:
            (verified,) = verify([finding], device, models=True, cache=cache if cached else None)
        assert verified.verification == answer
        return len(measured)

    code = "from torch import nn\nclass Net(nn.Module):\n    pass\n"
    Path("net.py").write_text(code)
    assert (ask(), ask()) == (1, 0)
    assert ask(cached=False) == 1
    assert (ask(width=9), ask(device="auto")) == (1, 1)
    Path("net.py").write_text(f"{code}print(Net())\n")
    assert ask() == 0
    Path("net.py").write_text(code.replace("pass", "size = 1"))
    assert (ask(), ask()) == (1, 0)
