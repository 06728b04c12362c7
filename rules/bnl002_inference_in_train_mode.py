from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._marks import INFERENCE_MARKS, MODEL_MARKS

from bnlint.finding import Confidence, Finding, Fix, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer
from bnlint.semantics.intent import Evidence, evidence_of_inference
from bnlint.source.marks import Pattern


class InferenceInTrainMode(Rule):
    """A PyTorch model is run for inference while it is in train mode.

    ## What it does
    Follows the mode of each module through the file and reports a forward pass that is inference (it runs
    under `torch.no_grad()` or `torch.inference_mode()`, in a function such as `validate`, or on data such as
    `test_loader`) while the module and its BatchNorm, InstanceNorm or Dropout layers are in train mode on
    every path.

    ## Why is this bad?
    A new module is in train mode, and neither `no_grad` nor `load_state_dict` changes that. BatchNorm then
    normalises with the statistics of the inference batch, so that the output for a sample depends on the
    samples beside it, and the running statistics move towards the inference data with every call. Dropout
    goes on dropping.

    ## Example
    ```python
    model.train()
    for x, y in train_loader:
        step(model, x, y)
    with torch.no_grad():
        for x, y in test_loader:
            correct += (model(x).argmax(1) == y).sum()
    ```

    ## Use instead
    ```python
    model.eval()
    with torch.no_grad():
        for x, y in test_loader:
            correct += (model(x).argmax(1) == y).sum()
    ```

    ## When it does not fire
    When the mode is not known on every path, for layers that the model's class never applies as it is built (a Dropout
    for an option that is off), in tests, in a loop that also trains or that goes through the
    training data or, after `train()`, drops every output (statistics are estimated anew that way), in a
    model's own methods, where nobody reads what a made-up input gives (a probe for shapes), and where names
    tell that train mode is meant: generators of a GAN, mean teachers, adaptation at test time, Monte Carlo
    dropout, few-shot episodes.

    ## How --verify confirms it
    It rebuilds the layers and compares their outputs in train and eval mode on running statistics as after
    training: the outputs differ, depend on the rest of the batch, and the running statistics move. Layers
    without running statistics or with `p=0` refute it.

    ## Fix safety
    Unsafe: inserting `model.eval()` changes the results, as it must. It is offered only where no later
    training step can be left in eval mode by it.

    ## References
    - <https://docs.pytorch.org/docs/stable/notes/autograd.html#evaluation-mode-nn-module-eval>
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    """

    code: ClassVar[str] = "BNL002"
    name: ClassVar[str] = "inference-in-train-mode"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-gap",)
    evidence: ClassVar[int] = 19
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm", b"lightning"),)
    marks: ClassVar[tuple[str | Pattern, ...]] = (INFERENCE_MARKS, MODEL_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete:
            return
        for forward in file.forwards:
            if forward.framework == "keras" or not forward.mode.surely_train:
                continue
            layers = [layer for layer in forward.layers if _is_live(layer)]
            if not layers and not _may_own_layers(file, forward):
                continue
            evidence = evidence_of_inference(file, forward)
            if evidence is not None:
                yield self._report(file, forward, layers, evidence)

    def _report(self, file: FileFacts, forward: Forward, layers: list[Layer], evidence: Evidence) -> Finding:
        receiver = support.subject(forward)
        if not layers:
            return self._report_unknown(file, forward, evidence)
        norms = [layer for layer in layers if support.is_batchnorm(layer.instance)]
        certain = evidence.strong and any(layer.certain for layer in norms)
        return self.finding(
            forward.location,
            f"{receiver} is in train mode, but this is inference, because {evidence}: "
            f"{_effect(forward, layers, evidence)}",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            _trace(forward, norms),
            _fix(file, forward),
            support.experiment("mode-gap", "torch", (layer.instance for layer in layers), forward),
        )

    def _report_unknown(self, file: FileFacts, forward: Forward, evidence: Evidence) -> Finding:
        """What the model owns is not known; it is likely to depend on the mode where the program manages it."""
        receiver = support.subject(forward)
        return self.finding(
            forward.location,
            f"{receiver} is in train mode, but this is inference, because {evidence}: what {receiver} is made of is "
            "not known here; BatchNorm in it normalises with the statistics of the inference data, and Dropout drops",
            Confidence.LIKELY if forward.target in file.mode_managed else Confidence.POSSIBLE,
            _trace(forward, []),
            _fix(file, forward),
            support.experiment("mode-gap", "torch", (), forward),
        )


def _may_own_layers(file: FileFacts, forward: Forward) -> bool:
    """Whether a model whose make is not known is one that the program puts in modes, or trains."""
    managed = forward.target in file.mode_managed or forward.target in file.optimised
    return forward.owns_unknown and not forward.layers and managed


def _is_live(layer: Layer) -> bool:
    return layer.mode is not None and layer.mode.surely_train and support.is_mode_dependent(layer.instance)


def _effect(forward: Forward, layers: list[Layer], evidence: Evidence) -> str:
    """What the layers do in train mode."""
    norms = [layer for layer in layers if not support.is_dropout(layer.instance)]
    dropouts = [layer for layer in layers if support.is_dropout(layer.instance)]
    effects = []
    if norms:
        s = "s" if support.is_one(norms) else ""
        effects.append(
            f"{support.describe(norms, forward.target)} normalise{s} with the statistics of the inference "
            f"data and move{s} the running statistics" + (", even under no_grad" if evidence.no_grad else "")
        )
    if dropouts:
        s = "s" if support.is_one(dropouts) else ""
        effects.append(f"{support.describe(dropouts, forward.target)} drop{s} values")
    return "; ".join(effects)


def _trace(forward: Forward, norms: list[Layer]) -> tuple[TraceStep, ...]:
    steps = support.built_and_mode(forward)
    inner = [layer.instance for layer in norms if layer.instance is not forward.target]
    if inner:
        kind = support.short_name(inner[0])
        what = f"this {kind} normalises with batch statistics in train mode"
        steps.append(TraceStep(inner[0].location, what))
    steps += forward.where.calls
    if forward.where.no_grad is not None:
        steps.append(TraceStep(forward.where.no_grad.location, "run under no_grad here"))
    return tuple(steps)


def _fix(file: FileFacts, forward: Forward) -> Fix | None:
    """Offered only where a training step later in the same loop puts the module back into train mode."""
    step = forward.mode.train
    for loop in forward.where.loops:
        trains = any(loop.location in (its.location for its in event.where.loops) for event in file.backwards)
        inside = (
            step is not None
            and step.location != forward.target.location
            and loop.location.line <= step.location.line <= loop.location.end_line
        )
        if trains and not inside:
            return None
    fix: Fix | None = support.eval_before(forward)
    return fix
