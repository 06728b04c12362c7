from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, ModeCall
from bnlint.semantics.intent import is_test_file


class EvalInsideForward(Rule):
    """A module's own `forward()` calls `self.eval()` or `self.train()`.

    ## What it does
    Reports `self.eval()` and `self.train()` in the `forward()` of a PyTorch module, and `self.eval()` in its
    `training_step()`. It is off by default: some authors mean it.

    ## Why is this bad?
    The mode is the caller's to choose. After the first `forward()` that calls `self.eval()` training goes on in eval
    mode: BatchNorm's running statistics stay as they are and Dropout drops nothing. A `self.train()` there puts the
    model back into train mode at inference.

    ## Example
    ```python
    def forward(self, x, inference=False):
        if inference:
            self.eval()
        return self.layers(x)
    ```

    ## Use instead
    ```python
    def forward(self, x):
        return self.layers(x)

    @torch.no_grad()
    def predict(self, x):
        was_training = self.training
        self.eval()
        y = self(x)
        self.train(was_training)
        return y
    ```

    ## When it does not fire
    In other methods (`predict()`, `encode()`), for parts of the module (a frozen backbone), where the mode is restored
    in the same method (`self.train(was_training)`), for modules without BatchNorm and Dropout, and in tests.

    ## How --verify confirms it
    It runs a module over a few batches whose `forward()` makes that call: in train mode no batch is counted and the
    running statistics stay, or in eval mode they move. Layers without running statistics or with `p=0` refute it.

    ## Fix safety
    There is no fix: who is to choose the mode instead is the author's decision.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval>
    - <https://github.com/airctic/icevision/pull/1100>
    """

    code: ClassVar[str] = "BNL012"
    name: ClassVar[str] = "eval-inside-forward"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-in-forward",)
    evidence: ClassVar[int] = 0
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch", b"timm", b"lightning"),
        (b"self.eval(", b"self.train("),
        (b"def forward", b"def training_step"),
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"\bself\.(?:eval|train)\(", r"def (?:forward|training_step)\b")

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for call in file.mode_calls:
            method = call.where.functions[-1] if call.where.functions else ""
            overrules = method == "forward" or (method == "training_step" and call.wanted is False)
            if call.is_self and call.wanted is not None and overrules and not _is_restored(file, call):
                yield from self._report(call, method)

    def _report(self, call: ModeCall, method: str) -> Iterator[Finding]:
        layers = [layer for layer in call.layers if support.is_mode_dependent(layer.instance)]
        if not layers and not call.owns_unknown:
            return
        name = "train" if call.wanted else "eval"
        owned = support.describe(layers) if layers else "any BatchNorm and Dropout in it"
        s = "s" if layers and support.is_one(layers) else ""
        effect = f"run{s} in train mode at inference" if call.wanted else f"stay{s} in eval mode in training"
        yield self.finding(
            call.location,
            f"{method}() itself puts the module in {name} mode, whatever its caller has chosen: {owned} {effect}; "
            "leave the mode to the caller",
            Confidence.CERTAIN if any(layer.certain for layer in layers) else Confidence.LIKELY,
            (*call.where.calls, TraceStep(call.location, f"{name} mode is set here, in every such call of {method}()")),
            None,
            support.experiment("mode-in-forward", "torch", (layer.instance for layer in layers), method=name),
        )


def _is_restored(file: FileFacts, call: ModeCall) -> bool:
    """Whether the same method sets a saved mode again."""
    return any(
        other.target is call.target and other.wanted is None and other.where.functions == call.where.functions
        for other in file.mode_calls
    )
