from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _averages as averages
from bnlint.rules import _exports as exports
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.frameworks.functions import PRETRAINED_ARGUMENTS
from bnlint.rule import Rule
from bnlint.semantics.events import Exported, FileFacts, Forward, Layer
from bnlint.semantics.intent import is_test_file, words
from bnlint.semantics.values import Instance, Mystery, only_constant
from bnlint.source.marks import Pattern

_TRAINS = frozenset({"train", "fit", "finetune", "learn"})


class ProfilerPollutes(Rule):
    """A trained model's running statistics are moved by a run on made-up input.

    ## What it does
    Reports `torchsummary.summary` (or torchsummaryX's), and a forward pass of random numbers whose output nobody
    reads, on a model in train mode with BatchNorm and trained weights that is evaluated or saved afterwards, and not
    trained.

    ## Why is this bad?
    In train mode each run updates the running statistics, also under `torch.no_grad()`. With the default momentum one
    batch of noise replaces a tenth of what the training has estimated, in every BatchNorm layer; an `eval()` that comes
    later normalises with that. A loss of three points of ImageNet accuracy was reported.

    ## Example
    ```python
    model = torchvision.models.resnet18(weights="DEFAULT")
    torchsummary.summary(model, (3, 224, 224))
    model.eval()
    ```

    ## Use instead
    ```python
    model = torchvision.models.resnet18(weights="DEFAULT")
    model.eval()
    torchsummary.summary(model, (3, 224, 224))
    ```

    ## When it does not fire
    When the model is not known to be in train mode, to have BatchNorm, or to have trained weights (`load_state_dict`,
    `weights=`, `pretrained=True`) before the call; when the file trains it, which renews the statistics, or
    does nothing with it afterwards; for thop, torchinfo, ptflops, torchstat and `add_graph`, which put the model in
    eval mode by themselves; and in tests.

    ## How --verify confirms it
    It runs a batch of noise through the rebuilt layers in train mode and compares their outputs in eval mode with those
    of layers that were in eval mode before: they differ. Layers without running statistics refute it.

    ## Fix safety
    Unsafe: inserting `model.eval()` before the call leaves the model in eval mode behind it.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://github.com/sksq96/pytorch-summary/issues/67>
    - <https://github.com/torch/torch7/issues/707>
    - <https://github.com/juliagusak/flopco-pytorch/issues/5>
    - <https://github.com/sachinhosmani/torchvista/issues/39>
    """

    code: ClassVar[str] = "BNL310"
    name: ClassVar[str] = "profiler-pollutes"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("noise-run",)
    evidence: ClassVar[int] = 4
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"load_state_dict", b"pretrained", b"weights"),
        (b"summary", b"(torch.rand", b"(torch.ones(", b"(torch.zeros("),
    )
    marks: ClassVar[tuple[str | Pattern, ...]] = (
        Pattern(r"summary\(|\w\(torch\.(?:randn?|ones|zeros)\(", ("summary(", "(torch.")),
        Pattern(r"load_state_dict|pretrained|weights", ("load_state_dict", "pretrained", "weights")),
    )

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        runs: list[Exported | Forward] = [event for event in file.exports if event.how == "profile"]
        runs += [call for call in file.forwards if call.discarded and call.eager_input and call.framework == "torch"]
        for run in runs:
            if run.mode.surely_train and not _is_trained(file, run.target):
                step, use = _weights(file, run), _later_use(file, run)
                layers = averages.batch_norms([one for one in run.layers if one.mode and one.mode.surely_train])
                if step is not None and use is not None and layers:
                    yield self._report(run, layers, step, use)

    def _report(self, run: Exported | Forward, layers: list[Layer], step: TraceStep, use: TraceStep) -> Finding:
        name = exports.subject(run) if isinstance(run, Exported) else support.subject(run)
        how = f"{run.function.rpartition('.')[2]} runs {name}" if isinstance(run, Exported) else f"{name} is run"
        s = "s" if support.is_one(layers) else ""
        return self.finding(
            run.location,
            f"{how} on made-up input in train mode: {support.describe(layers)} update{s} the running statistics that "
            "came with the trained weights; call eval() first",
            Confidence.CERTAIN if any(layer.certain for layer in layers) else Confidence.LIKELY,
            (
                TraceStep(run.target.location, "built here, and a new module is in train mode"),
                step,
                *run.where.calls,
                use,
            ),
            support.eval_before(run),
            support.experiment("noise-run", "torch", (layer.instance for layer in layers)),
        )


def _weights(file: FileFacts, run: Exported | Forward) -> TraceStep | None:
    """Where the model has got trained weights before it is run."""
    target = run.target
    for use in file.state_uses:
        if use.name == "loaded" and use.target is target and use.location < run.location:
            return TraceStep(use.location, "trained weights are loaded here")
    arguments = target.arguments if isinstance(target, Instance) else {}
    for name in sorted(PRETRAINED_ARGUMENTS & arguments.keys()):
        is_known, value = only_constant(arguments[name])
        if is_known and value not in (None, False):
            return TraceStep(target.location, "it comes with trained weights")
    return None


def _later_use(file: FileFacts, run: Exported | Forward) -> TraceStep | None:
    """Where the model is evaluated or saved after the run, with the statistics that it has left."""
    target = run.target
    found = [
        TraceStep(use.location, "saved here") for use in file.state_uses if use.name == "saved" and use.target is target
    ]
    if target in file.put_in_eval:
        found.append(file.put_in_eval[target])
    found += [
        TraceStep(call.location, "run here") for call in file.forwards if call.target is target and not call.discarded
    ]
    return min((step for step in found if step.location > run.location), key=lambda step: step.location, default=None)


def _is_trained(file: FileFacts, target: Instance | Mystery) -> bool:
    """Whether the program may train the model, before or after: new batches replace what the noise has left."""
    if any(target is owner for owner in file.optimised) or any(call.trained for call in file.forwards):
        return True
    return any(words(name) & _TRAINS for name in file.named - {"train"})
