from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules._marks import NORM_MARKS
from bnlint.rules._momentum import copied_momenta_of_others, report

from bnlint.finding import Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts


class MomentumConvention(Rule):
    """A BatchNorm of Paddle, MindSpore, Flax, Haiku, MXNet or OneFlow has a momentum in another's convention.

    ## What it does
    Reports a BatchNorm layer of Paddle, MindSpore, Flax (linen and nnx), MXNet (Gluon and the operator) or Haiku
    (`decay_rate`) with a momentum above 0 and at most 0.25, and one of OneFlow from 0.75 to below 1.

    ## Why is this bad?
    In the first five a momentum is the weight of the old statistics, as in Keras; in OneFlow it is the weight of the
    new batch, as in PyTorch. A number copied from the other side gives the last batch nearly all the weight: the
    statistics remember 1.2 batches instead of 19, and inference carries that batch's noise. PyTorch's code is easily
    taken for theirs, since the layers have the same names.

    ## Example
    ```python
    from paddle import nn

    norm = nn.BatchNorm2D(64, momentum=0.1, epsilon=1e-5)
    ```

    ## Use instead
    ```python
    from paddle import nn

    norm = nn.BatchNorm2D(64, momentum=0.9, epsilon=1e-5)
    ```

    ## When it does not fire
    For a momentum of exactly 0 or 1, when any value that it may take is a usual one, when it is not known, and where
    the statistics are never updated or never used (`use_global_stats=True`, `use_running_average=True`,
    `use_batch_statistics` other than None, `track_running_stats=False`). MindSpore announces PyTorch's convention for
    what comes after version 2.9; an older one is assumed. The rule is off by default: select it where you port models.

    ## How --verify confirms it
    These frameworks are not run. PyTorch's layer with the same weight of the new batch makes the same update, so it is
    that layer that is fed 500 batches, and the noise of its running mean is compared with that of one batch's mean:
    75 % or more confirms, 35 % or less (a long memory) refutes. Where a framework stores the biased variance or
    corrects for the first batches, that is left out.

    ## Fix safety
    Unsafe: replacing `x` by `1 - x` changes the statistics that inference uses. Offered for a number that is written in
    the call. A trained model keeps its statistics until it is trained further.

    ## References
    - <https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/nn/BatchNorm2D_en.html>
    - <https://www.mindspore.cn/docs/en/stable/api_python/nn/mindspore.nn.BatchNorm2d.html>
    - <https://flax.readthedocs.io/en/latest/api_reference/flax.linen/layers.html>
    - <https://dm-haiku.readthedocs.io/en/latest/api.html>
    - <https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/gluon/nn/index.html>
    """

    code: ClassVar[str] = "BNL901"
    name: ClassVar[str] = "momentum-convention"
    severity: ClassVar[Severity] = Severity.ERROR
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("Paddle", "MindSpore", "Flax", "Haiku", "MXNet", "OneFlow")
    experiments: ClassVar[tuple[str, ...]] = ("momentum-memory",)
    evidence: ClassVar[int] = 7
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"paddle", b"mindspore", b"flax", b"haiku", b"mxnet", b"oneflow"),
        (b"BatchNorm",),
    )
    needle_pattern: ClassVar[str] = r"\.(?:[01]|2[0-5]?\b|7[5-9]|[89])|1\.?0?\s*-|\de-\d"
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"momentum|decay_rate|BatchNorm\w*\(", NORM_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        yield from report(self, copied_momenta_of_others(file))
