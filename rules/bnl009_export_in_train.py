from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _exports as exports
from bnlint.rules import _support as support
from bnlint.rules._marks import MODEL_MARKS

from bnlint.assumptions import Assumptions
from bnlint.experiment import Experiment, Scalar
from bnlint.finding import Confidence, Finding, Severity
from bnlint.frameworks.functions import DYNAMO_BY_DEFAULT
from bnlint.rule import Rule
from bnlint.semantics.events import Exported, FileFacts, Layer, is_exactly
from bnlint.semantics.intent import is_test_file


class ExportInTrain(Rule):
    """A module is exported, fused or prepared for quantization in the mode that does not suit this.

    ## What it does
    Reports what is given a module in train mode: `torch.export.export`; `torch.onnx.export`, if the module has
    Dropout and the exporter is, or may be, that of `dynamo=True`; `fuse_modules`, `prepare_fx` and other functions
    that fuse BatchNorm into a convolution; `torch.jit.freeze`. And `prepare_qat` of a module in eval mode.

    ## Why is this bad?
    `torch.export` writes train mode into the program: BatchNorm normalises with the statistics of each batch and
    moves its buffers, Dropout drops, and `eval()` on the exported module raises `NotImplementedError`. The newer
    ONNX exporter, the default since torch 2.9, writes BatchNorm as inference in either mode, but leaves Dropout
    live, with no more than a warning: two runs of the file differ. Fusing, freezing and `prepare_qat` raise an error
    in the wrong mode, but only when that line is reached.

    ## Example
    ```python
    model = Classifier()
    model.load_state_dict(torch.load("model.pt"))
    program = torch.export.export(model, (torch.rand(1, 3, 224, 224),))
    ```

    ## Use instead
    ```python
    model = Classifier()
    model.load_state_dict(torch.load("model.pt"))
    model.eval()
    program = torch.export.export(model, (torch.rand(1, 3, 224, 224),))
    ```

    ## When it does not fire
    When the mode is not known on every path, in tests, where `train()` stands in the very call, in files that do
    quantization-aware training, for `torch.onnx.export` with `dynamo=False` or a PyTorch before 2.9 (they
    export in eval mode), with `training=`, or of a module with BatchNorm alone, and for fusing what has no BatchNorm.

    ## How --verify confirms it
    It exports the rebuilt layers in train mode and compares the result, run twice, with the layers in eval mode.
    Layers without running statistics or with `p=0` refute it.

    ## Fix safety
    Unsafe: inserting `model.eval()` changes what is exported, as it must. It is offered only where no later training
    step can be left in eval mode by it. For `prepare_qat` there is none: where training begins is the author's choice.

    ## References
    - <https://docs.pytorch.org/docs/stable/export.html>
    - <https://docs.pytorch.org/docs/stable/onnx_export.html>
    - <https://github.com/pytorch/pytorch/issues/87679>
    - <https://github.com/pytorch/pytorch/issues/75252>
    - <https://github.com/pytorch/tutorials/issues/2661>
    - <https://github.com/microsoft/onnxscript/issues/1791>
    """

    code: ClassVar[str] = "BNL009"
    name: ClassVar[str] = "export-in-train"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("export-parity",)
    evidence: ClassVar[int] = 9
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (
            *(b"torch.export", b"torch.onnx", b"export.export", b"onnx.export", b"freeze("),
            *(b"fuse_modules", b"fuse_fx", b"fuse_conv_bn_eval", b"fuse_linear_bn_eval", b"fx.experimental"),
            *(b"prepare_fx", b"prepare_qat"),
        ),
    )
    marks: ClassVar[tuple[str, ...]] = (
        r"(?<!self\.)\b(?:export\w*|fuse\w*|prepare\w*|convert_fx|freeze)\(",
        MODEL_MARKS,
    )

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for event in file.exports:
            if event.how == "qat":
                if event.mode.surely_eval:
                    yield self._report_quantization(event)
            elif (
                event.how not in ("trace", "profile") and event.mode.surely_train and not exports.is_meant(file, event)
            ):
                layers = _concerned(event, file.assumptions)
                if layers or (event.how == "export" and exports.is_managed_unknown(event)):
                    yield self._report(file, event, layers)

    def _report(self, file: FileFacts, event: Exported, layers: list[Layer]) -> Finding:
        sure = exports.confidence(event, layers)
        new = is_exactly(event.arguments.get("dynamo"), True) or file.assumptions.torch.at_least(*DYNAMO_BY_DEFAULT)
        if event.how == "onnx" and not new:
            sure = Confidence.LIKELY  # an older torch would take the older exporter
        return self.finding(
            event.location,
            _message(event, layers, file.assumptions),
            sure,
            exports.trace(event, layers),
            exports.fix(file, event),
            _experiment(event, layers),
        )

    def _report_quantization(self, event: Exported) -> Finding:
        name = event.function.rpartition(".")[2]
        return self.finding(
            event.location,
            f"{exports.subject(event)} is in eval mode, but {name} prepares for training and raises an AssertionError "
            "for it; call train() first",
            Confidence.CERTAIN if event.alone else Confidence.LIKELY,
            exports.trace(event, []),
            None,
            _experiment(event, event.layers),
        )


def _concerned(event: Exported, assumptions: Assumptions) -> list[Layer]:
    """The layers that this function treats wrongly."""
    layers: list[Layer] = exports.live_layers(event)
    if event.how == "onnx":
        asked = event.arguments.get("dynamo")
        legacy = is_exactly(asked, False) or (asked is None and assumptions.torch.at_least(*DYNAMO_BY_DEFAULT) is False)
        if "training" in event.arguments or legacy:
            return []
        layers = [layer for layer in layers if support.is_dropout(layer.instance)]
    elif event.how == "fuse":
        layers = [layer for layer in layers if support.is_batchnorm(layer.instance)]
    return layers


def _message(event: Exported, layers: list[Layer], assumptions: Assumptions) -> str:
    receiver, name = exports.subject(event), event.function
    if event.how == "onnx":
        since = f"torch {'.'.join(map(str, DYNAMO_BY_DEFAULT))}"
        source = assumptions.torch.source if assumptions.torch.at_least(*DYNAMO_BY_DEFAULT) else "which is assumed here"
        by_default = f", the default since {since} ({source}),"
        assumed = "" if is_exactly(event.arguments.get("dynamo"), True) else by_default
        drops = exports.does(layers, event.target, "", "drop{s} values in the file")
        return (
            f"{receiver} is in train mode, and the exporter of dynamo=True{assumed} keeps Dropout live: {drops}; "
            "call eval() first"
        )
    if event.how == "export":
        if not layers:
            effect = (
                f"what {receiver} is made of is not known here; BatchNorm and Dropout in it keep that mode for ever"
            )
        else:
            effect = exports.does(
                layers, event.target, "normalise{s} with the statistics of each batch", "drop{s} values"
            )
        return (
            f"{receiver} is exported in train mode, and eval() on what {name} gives is not possible: {effect}; "
            "call eval() first"
        )
    if event.how == "fuse":
        return (
            f"{receiver} is in train mode, but {name} folds BatchNorm for inference and raises an AssertionError for "
            f"{support.describe(layers, None)}; call eval() first"
        )
    return f"{receiver} is in train mode, and {name} raises a RuntimeError for that; call eval() first"


def _experiment(event: Exported, layers: list[Layer]) -> Experiment:
    if event.how == "qat":
        return Experiment("export-parity", "torch", unknown="prepare_qat itself checks the mode; there is no output")
    instances = [layer.instance for layer in layers]
    options: dict[str, Scalar] = {"exporter": event.function}
    if event.how == "onnx":
        options["dynamo"] = True if is_exactly(event.arguments.get("dynamo"), True) else None
    made: Experiment = support.experiment("export-parity", "torch", instances, **options)
    return made
