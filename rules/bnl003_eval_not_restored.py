from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._marks import MODEL_MARKS, TRAINING_MARKS

from bnlint.finding import Confidence, Finding, Location, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward
from bnlint.semantics.intent import is_test_file, modes_in_training
from bnlint.semantics.state import Way
from bnlint.source.marks import Pattern


class EvalNotRestored(Rule):
    """Validation inside a training loop leaves the model in eval mode, and training goes on in it.

    ## What it does
    Follows the mode of each module through loops and reports an `eval()` inside a loop after which the next turn of
    that loop trains the same module, without a `train()` in between.

    ## Why is this bad?
    From the second turn on BatchNorm normalises with its running statistics, which no longer move, while the weights
    before it do; Dropout drops nothing. The first epoch, or the steps up to the first validation, train another
    network than the rest. Nothing fails, the loss only jumps.

    ## Example
    ```python
    model.train()
    for epoch in range(epochs):
        for x, y in train_loader:
            step(model, x, y)
        model.eval()
        validate(model)
    ```

    ## Use instead
    ```python
    for epoch in range(epochs):
        model.train()
        for x, y in train_loader:
            step(model, x, y)
        model.eval()
        validate(model)
    ```

    ## When it does not fire
    When `train()` is called anywhere in that loop for the module, also under a condition; when the mode is saved and
    restored; when the module is in eval mode from the start (fine-tuning with frozen statistics); when the tests on
    the way to the `eval()` and to the training step exclude each other (`if phase == "train"`); for modules that
    surely own neither BatchNorm nor Dropout; in tests.

    ## How --verify confirms it
    It takes the rebuilt layers through two epochs with an `eval()` between them: in the second, no batch is counted
    and the running statistics stay where they are, while with `train()` restored they move. Layers without running
    statistics, or with `p=0`, refute it.

    ## Fix safety
    There is no fix: whether `train()` belongs at the top of the loop, after the validation or into the helper is the
    author's choice.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval>
    - <https://github.com/wkentaro/pytorch-fcn/issues/57>
    - <https://github.com/joeynmt/joeynmt/issues/184>
    - <https://github.com/optuna/optuna/issues/1725>
    """

    code: ClassVar[str] = "BNL003"
    name: ClassVar[str] = "eval-not-restored"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("second-epoch",)
    evidence: ClassVar[int] = 10
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm", b"lightning"), (b"for ", b"while "))
    marks: ClassVar[tuple[str | Pattern, ...]] = (TRAINING_MARKS, MODEL_MARKS, r"\b(?:for|while)\b")

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for forward in file.forwards:
            if forward.framework == "keras" or forward.is_self:
                continue
            for mode in modes_in_training(file, forward):
                way = mode.eval
                loop = _common_loop(forward, way) if way is not None and mode.train is not None else None
                if way is not None and loop is not None and _is_forgotten(file, forward, way, loop):
                    yield from self._report(file, forward, way, mode.train)
                    break

    def _report(self, file: FileFacts, forward: Forward, way: Way, train: Way | None) -> Iterator[Finding]:
        layers = [layer for layer in forward.layers if support.is_mode_dependent(layer.instance)]
        if not layers and not forward.owns_unknown:
            return
        receiver = support.subject(forward)
        owned = support.describe(layers, forward.target) if layers else "any BatchNorm and Dropout in it"
        stays = "stays" if layers and support.is_one(layers) else "stay"
        call = next(call for call in file.mode_calls if call.location == way.location)
        steps = [train.step] if train is not None else []
        steps += [*call.where.calls, way.step, TraceStep(forward.location, "trained here in the loop's next turn")]
        certain = any(layer.certain and support.is_batchnorm(layer.instance) for layer in layers)
        yield self.finding(
            way.location,
            f"{receiver} is put in eval mode inside the loop and stays in it when the next turn trains it: from then "
            f"on {owned} {stays} in eval mode; call {receiver}.train() before training goes on",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            tuple(steps),
            None,
            support.experiment("second-epoch", "torch", (layer.instance for layer in layers), forward),
        )


def _common_loop(forward: Forward, way: Way) -> Location | None:
    """The innermost loop around both the ``eval()`` and the training step."""
    loops = [loop.location for loop in forward.where.loops]
    return next((loop for loop in reversed(loops) if loop in way.loops), None)


def _is_forgotten(file: FileFacts, forward: Forward, way: Way, loop: Location) -> bool:
    """Whether it is a plain ``eval()`` and nothing in the loop sets the module, or what holds it, to train mode."""
    evals = [call for call in file.mode_calls if call.location == way.location and call.wanted is False]
    if not evals:
        return False
    return not any(
        call.wanted is not False
        and loop in (its.location for its in call.where.loops)
        and (call.target in forward.parts or call.target is way.by)
        for call in file.mode_calls
    )
