from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment, LayerSpec
from bnlint.finding import Confidence, Finding, Fix, Safety, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Forward, PretrainedLoaded
from bnlint.semantics.intent import is_about_freezing, is_test_file
from bnlint.semantics.values import Class, Instance
from bnlint.source.marks import Pattern

# transformers' configurations of BERT and most others have this probability unless told otherwise.
_DROPOUT = LayerSpec("torch.nn.Dropout", {"p": 0.1}, ("p",))


class HfEvalInLightning(Rule):
    """A pretrained model that comes in eval mode is trained by Lightning in that mode.

    ## What it does
    Reports `from_pretrained` of transformers (and others) in the `__init__` of a `LightningModule` whose
    `training_step` runs that model, if nothing puts it in train mode.

    ## Why is this bad?
    `from_pretrained` returns the model in eval mode. From Lightning 2.2 on the trainer keeps the mode that each part is
    in when `fit` begins; before, it put the whole in train mode. So the model is fine-tuned without dropout, and where
    it has BatchNorm with frozen statistics. Lightning's summary tells it in one line ("Modules in eval mode: 228").

    ## Example
    ```python
    class Classifier(lightning.LightningModule):
        def __init__(self, name):
            super().__init__()
            self.bert = AutoModel.from_pretrained(name)

        def training_step(self, batch, index):
            return self.loss(self.bert(**batch).pooler_output)
    ```

    ## Use instead
    ```python
    class Classifier(lightning.LightningModule):
        def __init__(self, name):
            super().__init__()
            self.bert = AutoModel.from_pretrained(name).train()

        def training_step(self, batch, index):
            return self.loss(self.bert(**batch).pooler_output)
    ```

    ## When it does not fire
    Where the code of the file calls `train()` on anything; where the model is frozen (`requires_grad`, `no_grad`,
    `freeze()`, a name that says so) or the optimiser is given the parameters of other parts alone; for processors and
    tokenizers; and in tests. With imports of `pytorch_lightning`, which is as often a version before 2.2, it is no more
    than *possible*.

    ## How --verify confirms it
    It measures what a Dropout layer with `p=0.1`, the value of transformers' configurations, does in train mode and not
    in eval mode. The model itself is not built, since its configuration is elsewhere.

    ## Fix safety
    Unsafe: appending `.train()` to the call switches dropout on, and BatchNorm to the statistics of each batch, as it
    must; a part that is meant to stay as it is needs its own `eval()` then.

    ## References
    - <https://lightning.ai/docs/pytorch/stable/common/trainer.html>
    - <https://github.com/Lightning-AI/pytorch-lightning/issues/20105>
    - <https://github.com/Lightning-AI/pytorch-lightning/issues/20573>
    - <https://github.com/Lightning-AI/pytorch-lightning/issues/20646>
    - <https://github.com/Lightning-AI/pytorch-lightning/issues/19820>
    - <https://github.com/autogluon/autogluon/issues/4965>
    """

    code: ClassVar[str] = "BNL311"
    name: ClassVar[str] = "hf-eval-in-lightning"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-gap",)
    evidence: ClassVar[int] = 7
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"LightningModule",),
        (b".from_pretrained(",),
        (b"def training_step",),
    )
    marks: ClassVar[tuple[str | Pattern, ...]] = (
        Pattern(
            r"\.from_pretrained\(|def (?:training_step|forward|configure_optimizers)\b", ("from_pretrained", "def ")
        ),
        Pattern(r"LightningModule", ("lightningmodule",)),
    )
    callers: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or "train" in file.named or is_test_file(file):
            return
        for load in file.pretrained:
            where = load.where
            if where.functions[-1:] != ("__init__",) or not where.classes:
                continue
            cls = where.classes[-1]
            bases = cls.library_bases()
            if not any(base.endswith("LightningModule") for base in bases) or not _are_optimised(file, load, cls):
                continue
            run = _training_pass(file, load)
            if run is not None:
                is_new = not any(base.startswith("pytorch_lightning") for base in bases)
                yield self._report(load, run, Confidence.LIKELY if is_new else Confidence.POSSIBLE)

    def _report(self, load: PretrainedLoaded, run: Forward, confidence: Confidence) -> Finding:
        name, at = run.receiver or "the model", load.location
        return self.finding(
            at,
            f"{name} comes in eval mode, in which Lightning 2.2 and later train it: nothing is dropped, and BatchNorm "
            "keeps its statistics; call train() on it",
            confidence,
            (TraceStep(run.location, "run in the training step"),),
            Fix(Safety.UNSAFE, "put it in train mode", (support.append(at, ".train()"),)),
            Experiment("mode-gap", "torch", (_DROPOUT,)),
        )


def _are_optimised(file: FileFacts, load: PretrainedLoaded, cls: Class) -> bool:
    """Whether the parameters of the loaded model, or of all of the module, are taken."""
    wholes = (its for its in file.optimised if isinstance(its, Instance))
    return load.target in file.optimised or any(whole.cls is cls for whole in wholes)


def _training_pass(file: FileFacts, load: PretrainedLoaded) -> Forward | None:
    """The pass through the loaded model in the training step, or in the module's ``forward`` that the step runs."""
    passes = [forward for forward in file.forwards if forward.target is load.target]
    if any(run.where.no_grad or run.frozen or is_about_freezing([run.receiver or ""]) for run in passes):
        return None
    steps = [forward for forward in file.forwards if "training_step" in forward.where.functions]
    through = any(load.target in step.parts and step.target is not load.target for step in steps)
    if any(step.frozen for step in steps):
        return None
    for run in passes:
        if run in steps or (through and run.where.functions[-1:] == ("forward",)):
            return run
    return None
