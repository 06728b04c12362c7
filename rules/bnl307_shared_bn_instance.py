from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import AppliedTwice, FileFacts, Forward
from bnlint.semantics.intent import is_test_file
from bnlint.semantics.values import Instance
from bnlint.source.marks import Pattern


class SharedBnInstance(Rule):
    """One BatchNorm layer normalises what two different layers compute.

    ## What it does
    Reports a BatchNorm layer that `forward()` runs at two places in each call, on the outputs of different layers.

    ## Why is this bad?
    In train mode each place is normalised with the statistics of its own batch, and all looks well. The running
    statistics, of which there is but one set, become a mixture of both: in eval mode neither place is normalised as it
    was in training. Weight and bias are shared too. Most often the layer was meant to be two, as the convolutions
    before it are.

    ## Example
    ```python
    def forward(self, x):
        x = torch.relu(self.bn(self.conv1(x)))
        return torch.relu(self.bn(self.conv2(x)))
    ```

    ## Use instead
    ```python
    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)))
    ```

    ## When it does not fire
    Where the layers before it are shared as well (siamese and recurrent networks), in loops, on paths of which each
    call takes only one, where it is not known what computed the input, for layers without running statistics, and in
    tests. Whether the two distributions differ enough to matter is not known to a linter, which is why this rule is
    not on by default.

    ## How --verify confirms it
    It trains the rebuilt layer on two inputs of different means in turn, and two layers on one each: in eval mode the
    outputs for the first input differ. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: a second layer must be built and named, and checkpoints get new entries.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://github.com/keras-team/keras/issues/8794>
    - <https://github.com/keras-team/keras/issues/6623>
    - <https://github.com/keras-team/keras/issues/11927>
    - <https://github.com/zylo117/Yet-Another-EfficientDet-Pytorch/issues/560>
    """

    code: ClassVar[str] = "BNL307"
    name: ClassVar[str] = "shared-bn-instance"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("shared-statistics",)
    evidence: ClassVar[int] = 3
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"BatchNorm",), (b"def forward",))
    marks: ClassVar[tuple[str | Pattern, ...]] = (
        # One method that calls a layer of this name twice.
        Pattern(
            r"self\.(\w*(?:[bB][nN]|[nN]orm|[bB]atch)\w*)\((?s:(?!\n[ \t]*def ).){1,3000}?self\.\1\(",
            ("bn", "norm", "batch"),
        ),
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file):
            return
        reported: set[Instance] = set()
        for event in file.applied_twice:
            layer = event.layer
            if layer not in reported and support.is_batchnorm(layer) and support.is_mode_dependent(layer):
                reported.add(layer)
                yield self._report(event)

    def _report(self, event: AppliedTwice) -> Finding:
        first, second, layer = event.first, event.second, event.layer
        name = support.subject(second)
        before, after = _source(first), _source(second)
        what = f" of {before} and {after}" if before and after and before != after else ""
        return self.finding(
            second.location,
            f"{name} normalises two different outputs{what}: its running statistics become a mixture of both, with "
            "which eval mode normalises neither as training did; use a layer for each",
            Confidence.CERTAIN if _is_sure(first) and _is_sure(second) else Confidence.LIKELY,
            (
                TraceStep(layer.location, "one layer is built here"),
                TraceStep(first.location, "run here"),
                TraceStep(second.location, "and here, on the output of something else"),
            ),
            None,
            support.experiment("shared-statistics", "torch", (layer,)),
        )


def _source(forward: Forward) -> str | None:
    """The module whose output it is given, as written."""
    names = {origin.receiver for origin in forward.inputs}
    return names.pop() if len(names) == 1 else None


def _is_sure(forward: Forward) -> bool:
    return all(layer.certain for layer in forward.layers)
