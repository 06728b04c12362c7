from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Layer, StatisticsDropped
from bnlint.semantics.intent import is_deliberate_file, is_test_file, words
from bnlint.semantics.values import Mystery

# What is averaged or adapted without its statistics keeps its own on purpose.
_KEEPS_ITS_OWN = frozenset({"fed", "federated", "fedbn", "client", "clients", "server", "domain", "domains", "source"})


class StatsDroppedOnLoad(Rule):
    """A checkpoint is loaded without the running statistics of its BatchNorm layers.

    ## What it does
    Reports `load_state_dict(state, strict=False)` where `state` had the keys of `running_mean` and `running_var` taken
    out before, into a model with BatchNorm layers that the file does not train.

    ## Why is this bad?
    The layers get their weight and bias, and keep the mean 0 and variance 1 of a new layer as running statistics. In
    eval mode they hardly normalise at all, and what comes after them was trained on something else. `strict=False`
    keeps `load_state_dict` from saying so.

    ## Example
    ```python
    state = {k: v for k, v in torch.load("net.pt").items() if "running_" not in k}
    model.load_state_dict(state, strict=False)
    model.eval()
    ```

    ## Use instead
    ```python
    model.load_state_dict(torch.load("net.pt"))
    model.eval()
    ```

    ## When it does not fire
    Where only `num_batches_tracked` is left out, which is harmless, or the keys of a head; where the result of
    `load_state_dict` is read, which names the missing keys; for models without BatchNorm that keeps running statistics
    (InstanceNorm's, left out of old checkpoints, are not used by default); where the file takes the parameters of the
    model to train them, which renews the statistics; where names tell that each model is to keep its own (federated
    learning, adaptation to other domains); and in tests.

    ## How --verify confirms it
    It trains the rebuilt layer, and loads its state into a new one with and without the running statistics: the
    outputs in eval mode differ. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: the keys may be left out because their shapes do not fit, which is for the author to mend.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.load_state_dict>
    - <https://github.com/MeiguangJin/Learning-to-Extract-a-Video-Sequence-from-a-Single-Motion-Blurred-Image/issues/1>
    """

    code: ClassVar[str] = "BNL305"
    name: ClassVar[str] = "stats-dropped-on-load"
    severity: ClassVar[Severity] = Severity.ERROR
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("stats-dropped",)
    evidence: ClassVar[int] = 0
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"load_state_dict",), (b"running_",), (b"False",))
    marks: ClassVar[tuple[str, ...]] = (r"load_state_dict\(|[\"'][\w.]*running_",)
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file) or is_deliberate_file(file, ()) or any(_KEEPS_ITS_OWN & words(n) for n in file.defines):
            return
        for load in file.statistics_dropped:
            layers = [layer for layer in load.layers if _keeps_statistics(layer)]
            if layers and not _is_trained(file, load):
                yield self._report(load, layers)

    def _report(self, load: StatisticsDropped, layers: list[Layer]) -> Finding:
        built = [] if isinstance(load.target, Mystery) else [TraceStep(load.target.location, "built here")]
        s = "s" if support.is_one(layers) else ""
        return self.finding(
            load.location,
            f"{load.receiver or 'the model'} is given a state without running_mean and running_var: "
            f"{support.describe(layers)} keep{s} the mean 0 and variance 1 of a new layer, and strict=False does not "
            "say so",
            Confidence.LIKELY,
            (*built, load.step, *load.where.calls),
            experiment=support.experiment("stats-dropped", "torch", (layer.instance for layer in layers)),
        )


def _keeps_statistics(layer: Layer) -> bool:
    return layer.certain and support.is_batchnorm(layer.instance) and support.is_mode_dependent(layer.instance)


def _is_trained(file: FileFacts, load: StatisticsDropped) -> bool:
    """Whether the parameters of the model, or of a part of it, are taken anywhere."""
    mine = {layer.instance for layer in load.layers} | {load.target}
    return not mine.isdisjoint(file.optimised) or any(
        forward.target in file.optimised and not mine.isdisjoint(forward.parts) for forward in file.forwards
    )
