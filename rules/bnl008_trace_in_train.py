from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _exports as exports
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import Exported, FileFacts, Layer
from bnlint.semantics.intent import is_test_file


class TraceInTrain(Rule):
    """A module is traced by `torch.jit.trace` while it is in train mode.

    ## What it does
    Follows the mode of each module through the file and reports a call of `torch.jit.trace` or
    `torch.jit.trace_module` on one that is in train mode on every path, and has BatchNorm, InstanceNorm or Dropout
    layers in train mode.

    ## Why is this bad?
    A trace records operations, and the mode as a constant in them. The traced module normalises with the statistics
    of whatever batch it is given and drops values for ever: `eval()` on it changes a flag, but not the graph. To
    trace, the module is run several times, which moves its running statistics towards the example input. With
    BatchNorm alone there is not even a warning.

    ## Example
    ```python
    model = torchvision.models.resnet18(weights="DEFAULT")
    traced = torch.jit.trace(model, torch.rand(1, 3, 224, 224))
    traced.save("resnet18.pt")
    ```

    ## Use instead
    ```python
    model = torchvision.models.resnet18(weights="DEFAULT")
    model.eval()
    traced = torch.jit.trace(model, torch.rand(1, 3, 224, 224))
    traced.save("resnet18.pt")
    ```

    ## When it does not fire
    When the mode is not known on every path, in tests, where `train()` stands in the very call, and for
    `torch.jit.script`, which keeps both modes. A module whose make is not known is reported only if the program
    itself has put it in train mode.

    ## How --verify confirms it
    It traces the rebuilt layers in train mode, calls `eval()` on the result, and compares that with a trace made in
    eval mode: the outputs differ, depend on the rest of the batch, and tracing has moved the running statistics.
    Layers without running statistics refute it.

    ## Fix safety
    Unsafe: inserting `model.eval()` changes what is traced, as it must. It is offered only where no later training
    step can be left in eval mode by it.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.jit.trace.html>
    - <https://github.com/pytorch/pytorch/issues/14027>
    - <https://github.com/pytorch/pytorch/issues/15216>
    - <https://github.com/pytorch/pytorch/issues/29177>
    - <https://github.com/pytorch/pytorch/issues/71929>
    """

    code: ClassVar[str] = "BNL008"
    name: ClassVar[str] = "trace-in-train"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("trace-parity",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"jit",), (b"trace(", b"trace_module("))
    marks: ClassVar[tuple[str, ...]] = (r"(?:\bjit\.|(?<![.\w]))trace(?:_module)?\(",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for event in file.exports:
            if event.how != "trace" or not event.mode.surely_train or exports.is_meant(file, event):
                continue
            layers = exports.live_layers(event)
            if layers or exports.is_managed_unknown(event):
                yield self._report(file, event, layers)

    def _report(self, file: FileFacts, event: Exported, layers: list[Layer]) -> Finding:
        receiver = exports.subject(event)
        if layers:
            effect = exports.does(
                layers,
                event.target,
                "normalise{s} with the statistics of each batch in what is traced, and tracing moves the running ones",
                "drop{s} values in what is traced",
            )
        else:
            effect = (
                f"what {receiver} is made of is not known here; BatchNorm and Dropout in it keep that mode for ever"
            )
        return self.finding(
            event.location,
            f"{receiver} is traced in train mode, which no later eval() undoes: {effect}; call eval() first",
            exports.confidence(event, layers) if layers else Confidence.LIKELY,
            exports.trace(event, layers),
            exports.fix(file, event),
            support.experiment("trace-parity", "torch", (layer.instance for layer in layers)),
        )
