from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Finding, Severity
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, is_exactly
from bnlint.semantics.intent import is_test_file

#: Weights that others trained with the statistics need them.
_LOADS_OTHERS = frozenset(
    {"load_state_dict_from_url", "load_url", "hf_hub_download", "cached_download", "from_pretrained"}
)


class InRunningStats(Rule):
    """An InstanceNorm with running statistics is no InstanceNorm in eval mode.

    ## What it does
    Reports an InstanceNorm layer of `torch.nn` that is built with `track_running_stats=True`.

    ## Why is this bad?
    In train mode it normalises every sample by its own statistics; in eval mode by averages over the training data, as
    BatchNorm does. The two differ as much as the samples do, and what makes InstanceNorm useful, that a sample's
    contrast has no effect, is gone. Many copies of GAN code switch it on and then evaluate in train mode, or wonder.

    ## Example
    ```python
    nn.InstanceNorm2d(64, affine=True, track_running_stats=True)
    ```

    ## Use instead
    ```python
    nn.InstanceNorm2d(64, affine=True)
    ```

    ## When it does not fire
    Without the flag, where it is not known, in tests, and in files that download weights, which may have been trained
    with the statistics.

    ## How --verify confirms it
    It runs the rebuilt layer with used statistics in both modes: outputs that differ confirm.

    ## Fix safety
    There is no fix: a checkpoint that was saved with the statistics holds them, and its weights were trained with them.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm2d.html>
    - <https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix/issues/395>
    - <https://github.com/pytorch/pytorch/issues/58843>
    - <https://github.com/yunjey/stargan/issues/140>
    """

    code: ClassVar[str] = "BNL114"
    name: ClassVar[str] = "in-running-stats"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-gap",)
    evidence: ClassVar[int] = 3
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"InstanceNorm",))
    needle_pattern: ClassVar[str] = r"track_running_stats|InstanceNorm\dd\([^)]*,[^)]*,[^)]*,[^)]*,\s*True"
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"track_running_stats|InstanceNorm",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file) or file.named & _LOADS_OTHERS:
            return
        for built in file.layers:
            layer = LAYERS.get(built.instance.kind)
            if layer is None or layer.kind != "instancenorm":
                continue
            if is_exactly(built.instance.arguments.get("track_running_stats"), True):
                yield self.finding(
                    built.location,
                    f"this {layer.short_name} keeps running statistics: in eval mode it normalises by averages over "
                    "the training data, as BatchNorm does, and no longer each sample by itself",
                    Confidence.LIKELY,
                    built.where.calls,
                    None,
                    Experiment("mode-gap", "torch", (support.layer_spec(built.instance),)),
                )
