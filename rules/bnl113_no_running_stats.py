from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Finding, Severity
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, LayerBuilt, is_exactly
from bnlint.semantics.intent import is_test_file, words

#: What normalises each batch by itself on purpose.
MEANT = frozenset(
    {"meta", "maml", "shot", "fewshot", "continual", "lifelong", "incremental", "generator", "discriminator", "gan",
     "style", "stylization", "adain", "transfer", "domain", "hypernetwork", "hyper", "implicit", "deq", "invertible",
     "adaptation", "tta", "tent"}
)  # fmt: skip


class NoRunningStats(Rule):
    """A BatchNorm without running statistics normalises by the batch in eval mode too.

    ## What it does
    Reports a BatchNorm layer of `torch.nn` that is built with `track_running_stats=False`; it is *certain* where the
    file puts the layer in eval mode.

    ## Why is this bad?
    `eval()` changes nothing about such a layer: a sample's output depends on the samples it is evaluated with, a batch
    of one value a channel raises an error, and exporters write a BatchNorm in training mode. The name suggests that
    it merely saves the work of tracking.

    ## Example
    ```python
    nn.BatchNorm2d(64, track_running_stats=False)
    ```

    ## Use instead
    ```python
    nn.BatchNorm2d(64)  # or nn.GroupNorm(32, 64), which needs no batch
    ```

    ## When it does not fire
    For InstanceNorm, whose default it is; where the flag is not known; where names speak of meta-learning, continual
    learning, generative models, style transfer or adaptation, in which it is meant; in tests; for a flag that is
    cleared after construction, which leaves the statistics in use.

    ## How --verify confirms it
    It runs the rebuilt layer in eval mode on a batch and on a part of it: outputs that differ confirm.

    ## Fix safety
    There is no fix: a model that was trained without running statistics has none to evaluate with.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://github.com/pytorch/pytorch/issues/37823>
    - <https://github.com/pytorch/pytorch/issues/75252>
    - <https://github.com/TengdaHan/DPC/issues/21>
    """

    code: ClassVar[str] = "BNL113"
    name: ClassVar[str] = "no-running-stats"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("eval-dependence",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"BatchNorm",))
    needle_pattern: ClassVar[str] = r"track_running_stats|BatchNorm\dd\([^)]*,[^)]*,[^)]*,[^)]*,\s*False"
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"track_running_stats|BatchNorm",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file):
            return
        for built in file.layers:
            layer = LAYERS.get(built.instance.kind)
            if layer is None or layer.framework != "torch" or not support.is_batchnorm(built.instance):
                continue
            if not is_exactly(built.instance.arguments.get("track_running_stats"), False) or _is_meant(built):
                continue
            evaluated = file.put_in_eval.get(built.instance)
            yield self.finding(
                built.location,
                f"this {layer.short_name} has no running statistics, so eval() leaves it normalising by the batch: "
                "outputs depend on what else is in the batch, and a single value a channel raises an error",
                Confidence.CERTAIN if evaluated is not None else Confidence.LIKELY,
                (*built.where.calls, evaluated) if evaluated is not None else built.where.calls,
                None,
                Experiment("eval-dependence", "torch", (support.layer_spec(built.instance),)),
            )


def _is_meant(built: LayerBuilt) -> bool:
    """Whether a name around tells that this is what the author wants."""
    return any(words(name) & MEANT for name in support.names_around(built.where, built.location.path))
