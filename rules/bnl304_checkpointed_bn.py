from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics import ir
from bnlint.semantics.events import Checkpointed, FileFacts, Layer, is_exactly
from bnlint.semantics.intent import is_test_file
from bnlint.semantics.ir import nodes
from bnlint.semantics.values import Instance
from bnlint.source.marks import Pattern


class CheckpointedBn(Rule):
    """A checkpointed BatchNorm layer updates its running statistics twice in each step.

    ## What it does
    Reports calls of `torch.utils.checkpoint.checkpoint` and `checkpoint_sequential` with a module or function that
    runs BatchNorm layers.

    ## Why is this bad?
    To save memory, what is checkpointed is run once in the forward pass and once more in the backward pass. Each run
    in train mode updates the running statistics: a momentum of 0.1 acts as one of 0.19, and `num_batches_tracked`,
    by which `momentum=None` averages, counts every batch twice. The statistics remember half as many batches, and are
    noisier. As a rule that is mild, which is why this rule is not on by default.

    ## Example
    ```python
    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False)
    ```

    ## Use instead
    ```python
    def __init__(self, block, momentum=0.1):
        super().__init__()
        self.block = block
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1 - math.sqrt(1 - momentum)

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False)
    ```

    ## When it does not fire
    For layers without running statistics or that are in eval mode, under `torch.no_grad()`, where nothing is run
    anew, where the momentum is computed from a square root or set anywhere in the file, in tests, for
    `checkpoint_sequential` with one segment, and for wrappers of other libraries, which may take care of it.

    ## How --verify confirms it
    It takes one step with the rebuilt layer checkpointed and one without: the former counts two batches and moves the
    running statistics further. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: the momentum belongs to the layer, which may be run elsewhere without a checkpoint.

    ## References
    - <https://docs.pytorch.org/docs/stable/checkpoint.html>
    - <https://github.com/pytorch/pytorch/issues/62471>
    - <https://github.com/pytorch/pytorch/issues/96136>
    - <https://github.com/gpleiss/efficient_densenet_pytorch/issues/73>
    - <https://github.com/pfnet/pytorch-pfn-extras/pull/117>
    - <https://github.com/facebookresearch/fairscale/issues/1035>
    """

    code: ClassVar[str] = "BNL304"
    name: ClassVar[str] = "checkpointed-bn"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("checkpoint-updates",)
    evidence: ClassVar[int] = 8
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"checkpoint(", b"checkpoint_sequential("))
    needle_pattern: ClassVar[str] = r"utils(?:\.| import )(?:\(?[\w\s,]*)?checkpoint\b"
    marks: ClassVar[tuple[str | Pattern, ...]] = (
        Pattern(r"c(?<!\wc)heckpoint(?:_sequential)?\(", ("checkpoint(", "checkpoint_sequential(")),
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file) or file.momentum_sets:
            return
        for event in file.checkpointed:
            layers = _layers(event)
            if layers and event.where.no_grad is None:
                yield self._report(event, layers)

    def _report(self, event: Checkpointed, layers: list[Layer]) -> Finding:
        first = layers[0].instance
        s, its = ("s", "its") if support.is_one(layers) else ("", "their")
        momentum = support.sole_number(first.arguments.get("momentum")) if "momentum" in first.arguments else None
        if "momentum" not in first.arguments:
            momentum = float(LAYERS[first.kind].defaults["momentum"])  # type: ignore[arg-type]
        acts = (
            "" if momentum is None else f", as if {its} momentum were {1 - (1 - momentum) ** 2:.4g}, not {momentum:g}"
        )
        but = ", but for its last segment," if event.in_segments else ""
        steps = [TraceStep(first.location, f"this {support.short_name(first)} is run twice")]
        return self.finding(
            event.location,
            f"{event.what or 'what is checkpointed'}{but} is run again in the backward pass, so that "
            f"{support.describe(layers)} update{s} {its} running statistics twice in each step{acts}",
            Confidence.CERTAIN if any(layer.certain for layer in layers) else Confidence.LIKELY,
            (*steps, *event.where.calls),
            None,
            support.experiment("checkpoint-updates", "torch", (layer.instance for layer in layers)),
        )


def _layers(event: Checkpointed) -> list[Layer]:
    """The layers that are run under the checkpoint and update their statistics."""
    found: dict[Instance, Layer] = {}
    for forward in event.forwards:
        for layer in forward.layers:
            instance = layer.instance
            counts = support.is_batchnorm(instance) and support.is_mode_dependent(instance)
            if counts and not (layer.mode is not None and layer.mode.surely_eval) and not _is_corrected(instance):
                found.setdefault(instance, layer)
    return list(found.values())


def _is_corrected(layer: Instance) -> bool:
    """Whether the momentum takes account of the second run, ``1 - sqrt(1 - m)``, or there is none."""
    value = layer.arguments.get("momentum")
    if value is not None and (is_exactly(value, None) or support.is_zero(value)):
        return True
    inside = list(nodes(layer.argument_nodes.get("momentum", ())))
    roots = any(isinstance(node, (ir.Name, ir.Attr)) and "sqrt" in _name(node) for node in inside)
    return roots or any(isinstance(node, ir.Binary) and node.op == "**" for node in inside)


def _name(node: ir.Name | ir.Attr) -> str:
    return node.id if isinstance(node, ir.Name) else node.name
