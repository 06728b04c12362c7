from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import Batches, FileFacts, Forward, Layer
from bnlint.semantics.intent import is_deliberate, is_deliberate_file, is_test_file, is_trained_in_train_mode

# Layers that normalise across processes have more to go by than the batch of one.
_ACROSS_PROCESSES = frozenset({"convert_sync_batchnorm", "convert_syncbn_model"})


class BnBatchOfOne(Rule):
    """A model with BatchNorm is trained on batches of one sample.

    ## What it does
    Reports the forward pass of a training step on the batches of a `DataLoader` with `batch_size=1`, if the model has
    BatchNorm layers in train mode.

    ## Why is this bad?
    The statistics of a batch of one are those of its only sample. Behind convolutions, BatchNorm in train mode then is
    instance normalisation: it takes out what tells one sample's mean and contrast from another's. In eval mode it uses
    the running statistics, averages over all samples, and keeps just that; the weights were not trained for it. Where
    there is but one value per channel, as behind linear layers or global pooling, the forward pass raises `Expected
    more than 1 value per channel when training`.

    ## Example
    ```python
    loader = DataLoader(train_set, batch_size=1, shuffle=True)
    model.train()
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
    ```

    ## Use instead
    ```python
    loader = DataLoader(train_set, batch_size=8, shuffle=True, drop_last=True)
    model.train()
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
    ```
    Where memory does not allow it: `GroupNorm`, or pretrained BatchNorm layers in eval mode.

    ## When it does not fire
    Where the batch size is not written out; with a `collate_fn` or `batch_sampler`; where the input has been reshaped
    since it came out of the loader, or a class of the model may fold another axis into that of the samples; for layers
    in eval mode; for `SyncBatchNorm`; for inference; where names tell that instance normalisation is meant (pix2pix,
    CycleGAN); and in tests. That the *last* batch may have but one sample, without `drop_last=True`, depends on the
    number of samples, which the source does not tell.

    ## How --verify confirms it
    It trains the rebuilt layer for an epoch on samples of different means, each alone in its batch: what it makes of
    them in train mode differs from what it makes of them in eval mode. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: how many samples fit into memory, and what the learning rate is to be then, is for the author to
    say.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://github.com/pytorch/pytorch/issues/7716>
    - <https://github.com/CSAILVision/semantic-segmentation-pytorch/issues/214>
    - <https://arxiv.org/abs/1803.08494> (Group Normalization, figure 1: the error by batch size)
    """

    code: ClassVar[str] = "BNL015"
    name: ClassVar[str] = "bn-batch-of-one"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("batch-of-one",)
    evidence: ClassVar[int] = 12
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"DataLoader(",))
    marks: ClassVar[tuple[str, ...]] = (r"DataLoader\(",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file) or _ACROSS_PROCESSES & file.named or is_deliberate_file(file, ()):
            return
        for forward in file.forwards:
            batches = next(iter(forward.batches)) if len(forward.batches) == 1 else None
            if batches is None or batches.samples != 1 or is_deliberate(forward):
                continue
            if not is_trained_in_train_mode(file, forward):
                continue
            layers = [layer for layer in forward.layers if _is_live(layer)]
            if layers:
                yield self._report(forward, layers, batches)

    def _report(self, forward: Forward, layers: list[Layer], batches: Batches) -> Finding:
        s = "s" if support.is_one(layers) else ""
        return self.finding(
            forward.location,
            f"{support.subject(forward)} is trained on batches of one sample: "
            f"{support.describe(layers, forward.target)} normalise{s} each by its own statistics, and in eval mode by "
            "the average over all",
            Confidence.LIKELY,
            (
                TraceStep(batches.location, "batches of one sample are made here"),
                *support.built_and_mode(forward),
                *forward.where.calls,
            ),
            experiment=support.experiment("batch-of-one", "torch", (layer.instance for layer in layers)),
        )


def _is_live(layer: Layer) -> bool:
    is_live: bool = support.trains(layer) and support.short_name(layer.instance) != "SyncBatchNorm"
    return is_live
