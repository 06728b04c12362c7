"""What names say about purpose, seen through BNL002: which names make it speak, and which keep it silent."""

from __future__ import annotations

import pytest

from bnlint.engine import lint_text
from bnlint.rule import registry
from bnlint.semantics.intent import words

RULES = [registry()["BNL002"]]
HEAD = "import torch\nfrom torch import nn\nnet = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))\n"


def speaks(code: str, path: str = "program.py", head: str = HEAD) -> bool:
    result = lint_text(head + code, path, RULES)
    assert not result.diagnostics
    return bool(result.findings)


def function(name: str = "run", loop: str = "batches", receiver: str = "net", *, no_grad: bool = False) -> str:
    context = "torch.no_grad()" if no_grad else "open('log')"
    alias = "" if receiver == "net" else f"    {receiver} = net\n"
    body = f"    with {context}:\n        for x in {loop}:\n            print({receiver}(x))\n"
    return f"def {name}({loop}):\n{alias}{body}"


def test_names_are_split_in_snake_and_camel_case() -> None:
    assert words("evalOneEpoch") == {"eval", "one", "epoch", "evaloneepoch"}
    assert {"mc", "dropout", "predict"} <= words("mc_dropout_predict")
    assert {"net", "g"} <= words("self.netG")
    assert "eval" not in words("retrieval")


@pytest.mark.parametrize("name", ["validate", "evaluate", "test_epoch", "runInference", "predict_all", "eval_once"])
def test_a_function_for_inference_is_evidence(name: str) -> None:
    assert speaks(function(name, loop="test_data" if name.startswith("test_") else "batches"))


@pytest.mark.parametrize("name", ["run", "main", "medieval", "contest", "train_and_validate", "fit_and_predict"])
def test_other_functions_are_none(name: str) -> None:
    assert not speaks(function(name))


@pytest.mark.parametrize("data", ["test_loader", "valloader", "x_test", "validationSet", "testset", "valids"])
def test_data_for_inference_is_evidence(data: str) -> None:
    assert speaks(function(loop=data))


@pytest.mark.parametrize("data", ["val", "valid", "latest", "values", "interval_data", "train_loader", "train_test"])
def test_other_data_is_none(data: str) -> None:
    assert not speaks(function(loop=data))


def test_no_grad_is_evidence_except_over_the_training_data() -> None:
    assert speaks(function(no_grad=True))
    assert not speaks(function(no_grad=True, loop="train_loader"))
    assert speaks(function(no_grad=True, loop="train_loader").replace("x in train_loader", "x in test_loader"))


@pytest.mark.parametrize(
    "changes",
    [
        {"receiver": "netG"},
        {"receiver": "teacher"},
        {"receiver": "ema_model"},
        {"name": "mc_dropout_predict"},
        {"name": "update_bn_before_test"},
        {"name": "adapt"},
        {"loop": "query_test_set"},
        {"loop": "noise"},
    ],
)
def test_names_that_tell_of_deliberate_train_mode_silence(changes: dict[str, str]) -> None:
    assert not speaks(function(**changes, no_grad=True))


@pytest.mark.parametrize("path", ["test_net.py", "net_test.py", "conftest.py", "tests/helper.py", "a/test/b.py"])
def test_test_files_are_left_alone(path: str) -> None:
    tests = function("evaluate", "test_loader") + "def test_evaluate():\n    evaluate([])\n"
    assert speaks(tests)
    assert not speaks(tests, path)
    assert not speaks("import pytest\n" + function("evaluate", "test_loader"))


@pytest.mark.parametrize("path", ["test_net.py", "net_test.py", "a/test/b.py"])
def test_a_script_that_tests_a_network_is_no_test_of_a_program(path: str) -> None:
    assert speaks(function("evaluate", "test_loader"), path)


def test_names_alone_do_not_tell_validation_from_training_within_one_function() -> None:
    code = """
def train(loader, val_loader, optimizer):
    for x in loader:
        net(x).sum().backward()
        optimizer.step()
    for x in val_loader:
        with {context}:
            print(net(x))
"""
    assert not speaks(code.format(context="open('log')"))
    assert speaks(code.format(context="torch.no_grad()"))


def test_nothing_in_a_loop_that_trains_is_inference_unless_its_data_says_so() -> None:
    code = """
def run(loader, {held_out}, optimizer):
    for x in loader:
        with torch.no_grad():
            print(net({held_out}))
        net(x).sum().backward()
        optimizer.step()
"""
    assert not speaks(code.format(held_out="more"))
    assert speaks(code.format(held_out="x_val"))


def test_a_probe_that_nobody_reads_is_left_alone() -> None:
    assert not speaks("with torch.no_grad():\n    shape = net(torch.zeros(2, 3)).shape\n")
    assert speaks("with torch.no_grad():\n    print(net(torch.zeros(2, 3)))\n")


def test_no_fix_where_training_goes_on_in_the_same_loop() -> None:
    code = """
{before}optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(9):
{inside}    for x in torch.load("train"):
        net(x).sum().backward()
        optimizer.step()
    with torch.no_grad():
        print(net(torch.load("held out")))
"""
    outside = HEAD + code.format(before="net.train()\n", inside="")
    inside = HEAD + code.format(before="", inside="    net.train()\n")
    (without,), (with_fix,) = (lint_text(text, "program.py", RULES).findings for text in (outside, inside))
    assert without.fix is None and with_fix.fix is not None
