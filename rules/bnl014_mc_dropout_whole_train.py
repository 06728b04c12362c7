from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, Layer
from bnlint.semantics.intent import is_test_file, words

# Names that speak of sampling from Dropout, and those that count the samples where they stand together.
_SAMPLING = frozenset(
    {"mc", "mcdropout", "montecarlo", "monte", "dropout", "uncertainty", "uncertainties", "bayesian", "epistemic",
     "stochastic"}
)  # fmt: skip
_COUNTS = frozenset({"n", "num", "nb", "number", "mc"})
_COUNTED = frozenset({"samples", "sample", "passes", "forwards"})


class McDropoutWholeTrain(Rule):
    """A whole model is put in train mode to sample from its Dropout layers, BatchNorm with it.

    ## What it does
    Reports a forward pass that draws Monte Carlo samples (the names around it speak of dropout, uncertainty or
    samples, and no gradients are recorded or nothing is trained there) while a `train()` has put BatchNorm layers in
    train mode along with the Dropout layers.

    ## Why is this bad?
    Monte Carlo dropout needs Dropout alone in train mode. BatchNorm then normalises with the statistics of the
    samples beside the one in question, so that the spread measures the batch as well, a batch of one is normalised
    with itself or raises an error, and each pass moves the running statistics towards the test data.

    ## Example
    ```python
    model.train()  # for Dropout
    with torch.no_grad():
        samples = torch.stack([model(x) for _ in range(n_samples)])
    ```

    ## Use instead
    ```python
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    with torch.no_grad():
        samples = torch.stack([model(x) for _ in range(n_samples)])
    ```

    ## When it does not fire
    When only the Dropout layers are switched, when BatchNorm is put back in eval mode, for models that are not known
    to have both, in tests, where the pass is trained through, and where no name tells of sampling (BNL002 then
    speaks of plain inference in train mode).

    ## How --verify confirms it
    It sets the rebuilt BatchNorm layers beside a Dropout of p=0, puts all in train mode, and compares with Dropout
    alone in train mode: the outputs differ, and the running statistics move. Layers without them refute it.

    ## Fix safety
    There is no fix: the loop that puts BatchNorm back, or Dropout alone in train mode, belongs where the author
    switches modes, which may be for other layers too.

    ## References
    - <https://arxiv.org/abs/1506.02142>
    - <https://github.com/lightning-uq-box/lightning-uq-box/issues/173>
    - <https://github.com/MIC-DKFZ/nnUNet/issues/170>
    - <https://github.com/keras-team/keras/issues/9412>
    """

    code: ClassVar[str] = "BNL014"
    name: ClassVar[str] = "mc-dropout-whole-train"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mc-dropout",)
    evidence: ClassVar[int] = 4
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm", b"lightning"), (b".train(",))
    marks: ClassVar[tuple[str, ...]] = (
        r"\.\s*train\(",
        r"(?i:dropout|uncertain|monte|bayes|epistemic|stochastic|sample|passes)|\b(?i:mc)_|_(?i:mc)\b|MC",
    )

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for forward in file.forwards:
            way = forward.mode.train
            if forward.framework != "torch" or not forward.mode.surely_train or way is None or way.by is None:
                continue
            live = [layer for layer in forward.layers if layer.mode is not None and layer.mode.surely_train]
            live = [layer for layer in live if support.is_mode_dependent(layer.instance)]
            norms = [layer for layer in live if support.is_batchnorm(layer.instance)]
            dropouts = [layer for layer in live if support.is_dropout(layer.instance)]
            name = _sampling_name(forward)
            if norms and dropouts and name is not None and not _is_training(file, forward):
                yield self._report(forward, norms, name)

    def _report(self, forward: Forward, norms: list[Layer], name: str) -> Finding:
        receiver, way = support.subject(forward), forward.mode.train
        assert way is not None
        s = "s" if support.is_one(norms) else ""
        certain = forward.where.no_grad is not None and any(layer.certain for layer in norms)
        return self.finding(
            way.location,
            f"all of {receiver} is in train mode to sample from its Dropout ({name!r}): "
            f"{support.describe(norms, forward.target)} normalise{s} with the statistics of the samples in the batch "
            f"and move{s} the running ones; put only the Dropout layers in train mode",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            (
                TraceStep(norms[0].instance.location, f"this {support.short_name(norms[0].instance)} is put in it too"),
                *forward.where.calls,
                way.step,
                TraceStep(forward.location, "run here"),
            ),
            None,
            support.experiment("mc-dropout", "torch", (layer.instance for layer in norms)),
        )


def _sampling_name(forward: Forward) -> str | None:
    """The name around the pass that tells of Monte Carlo samples."""
    names = [*reversed(forward.where.functions), *(cls.name for cls in forward.where.classes), *sorted(forward.reads)]
    found = next((name for name in names if words(name) & _SAMPLING), None)
    if found is not None:
        return found
    counts = sorted({name for loop in forward.where.loops for name in loop.reads} | forward.comprehended)
    return next((name for name in counts if words(name) & _SAMPLING or _counts_samples(name)), None)


def _counts_samples(name: str) -> bool:
    its = words(name)
    return bool(its & _COUNTS and its & _COUNTED)


def _is_training(file: FileFacts, forward: Forward) -> bool:
    """Whether this pass, or the function or loop that it is in, trains."""
    if forward.trained:
        return True
    if forward.where.no_grad is not None:
        return False
    where = forward.where
    return any(
        backward.where.functions == where.functions or (where.loops and backward.where.loops[-1:] == where.loops[-1:])
        for backward in file.backwards
    )
