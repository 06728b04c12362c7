from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer
from bnlint.semantics.intent import evidence_of_inference, is_deliberate, is_test_code
from bnlint.semantics.values import Instance


class ImplicitTrainMode(Rule):
    """The output of a new PyTorch module is read, and nobody ever chose its mode.

    ## What it does
    Reports a script's call of a module with BatchNorm whose output is printed, compared or converted, where
    the module is still in the train mode it was built in, and the file never calls its `train()` or `eval()`
    and never trains it.

    ## Why is this bad?
    A new PyTorch module is in train mode, a Keras layer that is called directly is in inference mode. Who
    looks at the output of a BatchNorm without choosing a mode sees the input normalised by its own batch:
    zeros for a constant input, and other numbers than the same weights give in Keras or after `eval()`.

    ## Example
    ```python
    model = nn.Sequential(nn.BatchNorm2d(100))
    print(model(torch.ones(20, 100, 35, 45)))  # 0.0 everywhere
    ```

    ## Use instead
    ```python
    model = nn.Sequential(nn.BatchNorm2d(100)).eval()
    print(model(torch.ones(20, 100, 35, 45)))  # 0.999995
    ```

    ## When it does not fire
    When the file sets the module's mode anywhere, hands its parameters to an optimiser or trains at all; in
    tests; when the output is not read, or is that of random numbers and only printed; when the input does not
    come from the script itself; under `no_grad`, where inference-in-train-mode (BNL002) speaks.

    ## How --verify confirms it
    It rebuilds the BatchNorm layers and compares train with eval mode; where the module is a single BatchNorm
    and its input is a known constant, it shows the outputs for that very input. Layers without running
    statistics refute it.

    ## Fix safety
    Unsafe: inserting `model.eval()` changes what is printed. If batch statistics are wanted, call
    `model.train()` instead to say so.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.train>
    - <https://stackoverflow.com/questions/69294892>
    """

    code: ClassVar[str] = "BNL010"
    name: ClassVar[str] = "implicit-train-mode"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-gap",)
    evidence: ClassVar[int] = 3
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"BatchNorm",))
    scripts_only: ClassVar[bool] = True

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or any(backward.where.from_script for backward in file.backwards):
            return
        for forward in file.forwards:
            layers = [layer for layer in forward.layers if _is_live(layer)]
            if layers and _applies(file, forward):
                yield self._report(forward, layers)

    def _report(self, forward: Forward, layers: list[Layer]) -> Finding:
        receiver = support.subject(forward)
        ending = "s" if support.is_one(layers) else ""
        steps = [*support.built_and_mode(forward), *forward.where.calls]
        if forward.read_at is not None:
            steps.append(TraceStep(forward.read_at, "read here"))
        return self.finding(
            forward.location,
            f"the output of {receiver} is read, but nobody chose its mode; a new module is in train mode, so "
            f"{support.describe(layers, forward.target)} normalise{ending} with the statistics of this very "
            "input; call eval() first, or train() if that is meant",
            Confidence.LIKELY,
            tuple(steps),
            support.eval_before(forward),
            support.experiment("mode-gap", "torch", (layer.instance for layer in layers), forward),
        )


def _is_live(layer: Layer) -> bool:
    is_live: bool = support.trains(layer) and support.is_mode_dependent(layer.instance)
    return is_live


def _applies(file: FileFacts, forward: Forward) -> bool:
    target, mode = forward.target, forward.mode
    return (
        forward.framework == "torch"
        and mode.surely_train
        and mode.train is not None
        and mode.train.location == target.location
        and forward.where.from_script
        and forward.where.no_grad is None
        and forward.eager_input
        and forward.read_at is not None
        and not (forward.trained or forward.is_self)
        and not _is_managed(file, forward)
        and not any(support.owns_same_layer(file, owner, forward) for owner in file.optimised)
        and not is_test_code(file, forward)
        and not is_deliberate(forward)
        and evidence_of_inference(file, forward) is None
    )


def _is_managed(file: FileFacts, forward: Forward) -> bool:
    """Whether a ``train()`` or ``eval()`` in the file may concern the target.

    What a managed object owns is known from its own calls; one that is never called may own the target.
    """
    called = {other.target for other in file.forwards}
    return any(
        support.owns_same_layer(file, owner, forward)
        or (owner not in called and not (isinstance(owner, Instance) and support.is_layer(owner)))
        for owner in file.mode_managed
    )
