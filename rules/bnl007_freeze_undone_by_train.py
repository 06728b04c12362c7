from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._marks import MODEL_MARKS, TRAINING_MARKS

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer
from bnlint.semantics.intent import is_test_file, modes_in_training
from bnlint.semantics.values import Instance
from bnlint.source.marks import Pattern


class FreezeUndoneByTrain(Rule):
    """BatchNorm layers were frozen with `eval()`, and a later `train()` of the whole model thaws them.

    ## What it does
    Reports a `train()` that puts BatchNorm layers back into train mode which an earlier `eval()` of a part (of the
    layers, of a backbone, in the constructor) had frozen, where the model is then trained.

    ## Why is this bad?
    `train()` reaches every module inside. The frozen running statistics move again from the first batch on: features
    that were to stay fixed drift (77 % after 50 steps of shifted data in one measurement), and nothing warns.

    ## Example
    ```python
    model.backbone.eval()  # freeze its BatchNorm
    for epoch in range(epochs):
        model.train()
        train_one_epoch(model)
    ```

    ## Use instead
    ```python
    for epoch in range(epochs):
        model.train()
        model.backbone.eval()
        train_one_epoch(model)
    ```

    ## When it does not fire
    When the part is put in eval mode again after the `train()`, when its gradients are switched on again for a second
    stage of training, when the class overrides `train()` to keep it frozen,
    when the `eval()` was one of the whole model (a validation), and where the model is not trained afterwards.

    ## How --verify confirms it
    It freezes the rebuilt layers with `eval()`, calls `train()` on the module that holds them and trains on shifted
    data: batches are counted and the running statistics drift. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: the freeze belongs after every `train()`, or into an override of it, which is the author's choice.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.train>
    - <https://github.com/pytorch/pytorch/issues/66073>
    - <https://github.com/jfzhang95/pytorch-deeplab-xception/issues/140>
    - <https://github.com/Lightning-AI/pytorch-lightning/issues/2551>
    """

    code: ClassVar[str] = "BNL007"
    name: ClassVar[str] = "freeze-undone-by-train"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("freeze-drift",)
    evidence: ClassVar[int] = 7
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm"), (b".train(",))
    marks: ClassVar[tuple[str | Pattern, ...]] = (TRAINING_MARKS, MODEL_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for forward in file.forwards:
            if forward.framework == "torch" and modes_in_training(file, forward):
                thawed = [layer for layer in forward.layers if _is_thawed(layer) and not _is_released(file, layer)]
                if thawed:
                    yield self._report(file, forward, thawed)

    def _report(self, file: FileFacts, forward: Forward, layers: list[Layer]) -> Finding:
        mode = layers[0].mode
        assert mode is not None and mode.train is not None and mode.train.thawed is not None
        way, frozen = mode.train, mode.train.thawed
        whole = next((call for call in file.mode_calls if call.location == way.location), None)
        receiver = whole.receiver if whole is not None and whole.receiver else support.subject(forward)
        calls = whole.where.calls if whole is not None else ()
        does = "is" if support.is_one(layers) else "are"
        return self.finding(
            way.location,
            f"train() on {receiver} undoes the eval() in line {frozen.location.line} that froze a part of it: "
            f"{support.describe(layers)} {does} in train mode again, and the running statistics move; "
            "call eval() on the part after each train(), or override train()",
            Confidence.CERTAIN if any(layer.certain for layer in layers) else Confidence.LIKELY,
            (
                *frozen.calls,
                TraceStep(frozen.location, "a part is put in eval mode here"),
                *(call for call in calls if call not in frozen.calls),
                way.step,
                TraceStep(forward.location, "trained here"),
            ),
            None,
            _experiment(layers),
        )


def _is_thawed(layer: Layer) -> bool:
    mode = layer.mode
    whole = mode.train.by if mode is not None and mode.train is not None else None
    if isinstance(whole, Instance) and whole.cls is not None and whole.cls.lookup("train"):
        return False  # a train() of its own, which may well freeze again what it thaws
    return (
        support.is_batchnorm(layer.instance)
        and support.is_mode_dependent(layer.instance)
        and mode is not None
        and mode.train is not None
        and mode.train.thawed is not None
    )


def _is_released(file: FileFacts, layer: Layer) -> bool:
    """Whether the program also switches the gradients of the frozen part on again: a second stage is meant."""
    return any(freeze.undone and layer.instance in freeze.parts for freeze in file.freezes)


def _experiment(layers: list[Layer]) -> Experiment:
    drift: Experiment = support.experiment(
        "freeze-drift", "torch", (layer.instance for layer in layers), how="eval-then-train"
    )
    return drift
