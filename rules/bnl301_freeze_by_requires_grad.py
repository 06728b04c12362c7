from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._marks import MODEL_MARKS, TRAINING_MARKS

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Freeze, Layer
from bnlint.semantics.intent import is_deliberate, is_test_file, modes_in_training, words
from bnlint.source.marks import Pattern

# A teacher's statistics are to stay; those of a mean teacher are averages, and its parameters are written to.
_FROZEN_ALL_THE_SAME = frozenset({"teacher"})
_AVERAGES = frozenset({"ema", "momentum", "moco", "avg", "average", "averaged", "slow"})


class FreezeByRequiresGrad(Rule):
    """A part is frozen by `requires_grad = False` alone, and its BatchNorm goes on moving its statistics.

    ## What it does
    Reports parameters of a module with BatchNorm layers whose gradients are switched off, where the module is then
    trained through while those layers are in train mode.

    ## Why is this bad?
    `requires_grad = False` stops the optimiser, not BatchNorm: in train mode its running statistics follow every
    batch, and the frozen part normalises with batch statistics. Features that were to stay fixed drift, linear probes
    and fine-tuning results are no longer those of the pretrained network.

    ## Example
    ```python
    for p in backbone.parameters():
        p.requires_grad = False
    model.train()
    ```

    ## Use instead
    ```python
    for p in backbone.parameters():
        p.requires_grad = False
    model.train()
    backbone.eval()
    ```

    ## When it does not fire
    When the layers are in eval mode where the part is trained through (also by an override of `train()`), when the
    gradients are switched on again, for parts without BatchNorm or of unknown make, in tests, and for modules whose
    names tell of a GAN or a mean teacher.

    ## How --verify confirms it
    It switches the gradients of the rebuilt layers off and trains on shifted data in train mode: batches are counted
    and the running statistics drift. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: letting the statistics adapt to new data can be meant, and where `eval()` belongs is the author's
    choice.

    ## References
    - <https://github.com/pytorch/pytorch/issues/86590>
    - <https://github.com/pytorch/vision/issues/2079>
    - <https://github.com/Lightning-AI/pytorch-lightning/issues/15062>
    """

    code: ClassVar[str] = "BNL301"
    name: ClassVar[str] = "freeze-by-requires-grad"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("freeze-drift",)
    evidence: ClassVar[int] = 6
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm"), (b"requires_grad",))
    marks: ClassVar[tuple[str | Pattern, ...]] = (TRAINING_MARKS, MODEL_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for forward in file.forwards:
            if forward.framework != "torch" or not forward.frozen or is_deliberate(forward, _FROZEN_ALL_THE_SAME):
                continue
            if not modes_in_training(file, forward):
                continue
            for freeze in sorted(forward.frozen, key=lambda freeze: (freeze.location, freeze.owner.serial)):
                layers = [layer for layer in forward.layers if _moves(layer, freeze)]
                if layers and not freeze.undone and not _is_average(freeze):
                    yield self._report(forward, freeze, layers)

    def _report(self, forward: Forward, freeze: Freeze, layers: list[Layer]) -> Finding:
        mode = layers[0].mode
        ways = [mode.train.step] if mode is not None and mode.train is not None else []
        moves = "moves" if support.is_one(layers) else "move"
        return self.finding(
            freeze.location,
            f"only the gradients are switched off: {support.describe(layers)} in the frozen part {moves} the running "
            "statistics with every batch in train mode; call eval() on that part after train()",
            Confidence.LIKELY,
            (*freeze.where.calls, *ways, *forward.where.calls, TraceStep(forward.location, "trained through here")),
            None,
            support.experiment("freeze-drift", "torch", (layer.instance for layer in layers), how="requires-grad"),
        )


def _is_average(freeze: Freeze) -> bool:
    """Whether names tell of a copy that follows another network by averaging, and gathers statistics of its own."""
    return any(words(name) & _AVERAGES for name in freeze.names)


def _moves(layer: Layer, freeze: Freeze) -> bool:
    return (
        layer.instance in freeze.parts
        and support.is_batchnorm(layer.instance)
        and support.is_mode_dependent(layer.instance)
        and layer.mode is not None
        and layer.mode.surely_train
    )
