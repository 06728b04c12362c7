from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules._marks import MOMENTUM_MARKS, NORM_MARKS
from bnlint.rules._momentum import copied_momenta, report

from bnlint.finding import Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts


class KerasMomentumTorchStyle(Rule):
    """A Keras BatchNormalization has a momentum in PyTorch's convention.

    ## What it does
    Reports a Keras BatchNormalization layer, `tf.layers.batch_normalization` or a contrib/slim `batch_norm`
    whose momentum (`decay`) is above 0 and at most 0.25.

    ## Why is this bad?
    Keras's momentum is the weight of the old statistics (`moving = m * moving + (1 - m) * batch`); PyTorch's
    is the weight of the new batch. PyTorch's default 0.1 in Keras gives the last batch a weight of 0.9: the
    moving statistics remember 1.2 batches instead of 19, and `evaluate` and `predict` carry that batch's
    noise.

    ## Example
    ```python
    layers.BatchNormalization(momentum=0.1, epsilon=1e-5)
    ```

    ## Use instead
    ```python
    layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    ```

    ## When it does not fire
    For `momentum=0` (meta-learning recipes mean it), when any value that the argument may take is a usual
    one, when it is not known, and when the layer is only ever called with `training=True`, which leaves the
    statistics unused.

    ## How --verify confirms it
    It feeds the rebuilt layer 200 batches and compares the noise of the moving mean with that of one batch's
    mean: 75 % or more confirms, 35 % or less (a long memory) refutes, and so does a frozen layer.

    ## Fix safety
    Unsafe: replacing `x` by `1 - x` changes the statistics that inference uses. Offered for a number that is
    written in the call. A trained model keeps its statistics until it is trained further.

    ## References
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://github.com/huggingface/transformers/issues/19454>
    """

    code: ClassVar[str] = "BNL102"
    name: ClassVar[str] = "keras-momentum-torch-style"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("momentum-memory",)
    evidence: ClassVar[int] = 6
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"keras", b"tensorflow", b"tf_slim"),
        (b"BatchNormalization", b"batch_norm"),
    )
    needle_pattern: ClassVar[str] = r"\.(?:[01]|2[0-5]?\b)|1\.?0?\s*-|\de-\d"
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (MOMENTUM_MARKS, NORM_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        yield from report(self, copied_momenta(file, "keras"))
