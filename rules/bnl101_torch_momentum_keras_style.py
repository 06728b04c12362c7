from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules._marks import MOMENTUM_MARKS, NORM_MARKS
from bnlint.rules._momentum import copied_momenta, report

from bnlint.finding import Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts


class TorchMomentumKerasStyle(Rule):
    """A PyTorch BatchNorm has a momentum in Keras's convention.

    ## What it does
    Reports a BatchNorm layer of `torch.nn` whose momentum is at least 0.75 and below 1, given as a number,
    through a constant, a default or `functools.partial`, or set on an existing layer.

    ## Why is this bad?
    PyTorch's momentum is the weight of the new batch (`running = (1 - m) * running + m * batch`); in Keras,
    Flax, Paddle and Caffe it is the weight of the old statistics. `momentum=0.99` copied from there makes the
    running statistics those of the last batch: they remember (2 - m) / m = 1.0 batches instead of 199, and
    every evaluation carries that batch's noise.

    ## Example
    ```python
    nn.BatchNorm2d(64, eps=1e-3, momentum=0.99)
    ```

    ## Use instead
    ```python
    nn.BatchNorm2d(64, eps=1e-3, momentum=0.01)
    ```

    ## When it does not fire
    For layers of other frameworks (MindSpore's and Paddle's momentum 0.9 is right), for the momentum of an
    optimiser, for `momentum=1` (few-shot recipes mean it), when any value that the argument may take is a
    usual one, when it is not known, and with `track_running_stats=False`.

    ## How --verify confirms it
    It feeds the rebuilt layer 500 batches and compares the noise of the running mean with that of one batch's
    mean: 75 % or more confirms, 35 % or less (a long memory) refutes.

    ## Fix safety
    Unsafe: replacing `x` by `1 - x` changes the statistics that evaluation uses. Offered for a number that is
    written in the call. A trained model keeps its statistics until it is trained further.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/pytorch/vision/issues/8250>
    """

    code: ClassVar[str] = "BNL101"
    name: ClassVar[str] = "torch-momentum-keras-style"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("momentum-memory",)
    evidence: ClassVar[int] = 7
    # Momentum can be positional, so its name is no necessary condition. Where it is set as an attribute, the layers and
    # the framework may all stand in other files.
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch", b".momentum"),
        (b"BatchNorm", b"batchnorm", b".momentum"),
    )
    # The number stands behind a name for a momentum, or third in the call.
    needle_pattern: ClassVar[str] = (
        r"(?i:momentum|decay|mom\b)[^\n]{0,60}?[=:(,][ \t]*(?:float\()?(?:0?\.(?:7[5-9]|[89])|1\.?0?\s*-)|"
        r"BatchNorm\w*\([^()\n=]*,[^()\n=]*,[ \t]*0?\.(?:7[5-9]|[89])"
    )
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (MOMENTUM_MARKS, NORM_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        yield from report(self, copied_momenta(file, "torch"))
