from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _averages as averages
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import AveragedModel, FileFacts, Layer, is_exactly
from bnlint.semantics.intent import is_test_file

_OWN_AVERAGE = frozenset({"avg_fn", "multi_avg_fn"})


class SwaNoUpdateBn(Rule):
    """A model of averaged weights is used with the BatchNorm statistics of the last weights alone.

    ## What it does
    Reports `torch.optim.swa_utils.AveragedModel` around a model with BatchNorm that is evaluated or saved, where
    nothing in the file calls `update_bn` or its like.

    ## Why is this bad?
    `AveragedModel` averages parameters and copies buffers: its running means and variances are those of the model
    that was averaged last. They describe the activations of those weights, not of the averaged ones, and stochastic
    weight averaging goes far from the last weights. How much that costs differs; some report that `update_bn` made
    their averages worse, which is why this rule is not on by default.

    ## Example
    ```python
    swa_model = AveragedModel(model)
    for epoch in range(epochs):
        train(model, loader)
        swa_model.update_parameters(model)
    swa_model.eval()
    ```

    ## Use instead
    ```python
    swa_model = AveragedModel(model)
    for epoch in range(epochs):
        train(model, loader)
        swa_model.update_parameters(model)
    update_bn(loader, swa_model)
    swa_model.eval()
    ```

    ## When it does not fire
    With `use_buffers=True`, with an averaging function of its own (`avg_fn`, `multi_avg_fn`), which as a rule is an
    exponential average that stays near the last weights, when the averaged model is put in train mode anywhere, in
    files that never call `update_parameters` (they load what was averaged elsewhere), in tests, and for models that
    are not known to have BatchNorm.

    ## How --verify confirms it
    It averages rebuilt layers over steps of training and compares the average in eval mode before and after
    `update_bn`. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: `update_bn` needs a loader of training data, and a place after the last update.

    ## References
    - <https://docs.pytorch.org/docs/stable/optim.html#taking-care-of-batch-normalization>
    - <https://github.com/DeNA/HandyRL/issues/299>
    - <https://github.com/mosaicml/composer/issues/624>
    - <https://github.com/timgaripov/swa/issues/7>
    - <https://github.com/huggingface/pytorch-image-models/issues/224>
    """

    code: ClassVar[str] = "BNL303"
    name: ClassVar[str] = "swa-no-update-bn"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("swa-buffers",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"AveragedModel",),)
    marks: ClassVar[tuple[str, ...]] = (r"AveragedModel|" + averages.RENEWING_MARKS,)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file) or averages.renews_statistics(file):
            return
        if "update_parameters" not in file.named or file.named & _OWN_AVERAGE:
            return
        for event in file.averaged_models:
            layers = averages.batch_norms(event.layers)
            if layers and _is_swa(event) and not event.parts & file.put_in_train:
                use = _first_use(file, event)
                if use is not None:
                    yield self._report(event, layers, use)

    def _report(self, event: AveragedModel, layers: list[Layer], use: TraceStep) -> Finding:
        s = "s" if support.is_one(layers) else ""
        return self.finding(
            event.location,
            "the average of a model's weights is used without update_bn: "
            f"{support.describe(layers)} normalise{s} with the running statistics of the last weights, not of the "
            "averaged ones",
            Confidence.CERTAIN if any(layer.certain for layer in layers) else Confidence.LIKELY,
            (*event.where.calls, TraceStep(event.location, "the averaged copy is made here"), use),
            None,
            support.experiment("swa-buffers", "torch", (layer.instance for layer in layers), update_bn=False),
        )


def _is_swa(event: AveragedModel) -> bool:
    """Whether parameters are averaged evenly, and buffers not at all."""
    if event.arguments.keys() & _OWN_AVERAGE:
        return False
    buffers = event.arguments.get("use_buffers")
    return buffers is None or is_exactly(buffers, False)


def _first_use(file: FileFacts, event: AveragedModel) -> TraceStep | None:
    """Where the averaged copy is evaluated or saved."""
    found = [TraceStep(use.location, "saved here") for use in file.state_uses if _is_saved(use.name, use.target, event)]
    found += [file.put_in_eval[part] for part in event.parts if part in file.put_in_eval]
    found += [
        TraceStep(forward.location, "evaluated here")
        for forward in file.forwards
        if forward.mode.surely_eval and event.parts & {forward.target}
    ]
    return min(found, key=lambda step: step.location, default=None)


def _is_saved(name: str, target: object, event: AveragedModel) -> bool:
    return name == "saved" and target in event.parts
