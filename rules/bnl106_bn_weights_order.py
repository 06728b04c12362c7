from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment, LayerSpec
from bnlint.finding import Confidence, Finding, Severity
from bnlint.frameworks.layers import WEIGHTS
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, WeightsOrdered

_KERAS_BATCHNORM = "keras.layers.BatchNormalization"
#: By the order in which Keras has them: the words that say what a weight is.
_WORDS = (
    frozenset({"gamma", "weight", "scale", "w"}),
    frozenset({"beta", "bias", "offset", "shift", "b"}),
    frozenset({"mean", "mu"}),
    frozenset({"var", "variance"}),
)


class BnWeightsOrder(Rule):
    """The weights of a Keras BatchNormalization are given or read in another order than it has them.

    ## What it does
    Reports `layer.set_weights([...])` with four elements, and `... = layer.get_weights()` with four names, that by
    their names are scale, offset, mean and variance, but not in this order.

    ## Why is this bad?
    Keras's order is gamma, beta, moving mean, moving variance. All four have the same shape, so no error is raised when
    two change places: with mean and variance exchanged, the layer subtracts variances and divides by the roots of
    means, and the output is wrong by as much as these differ, or NaN where a mean is negative.

    ## Example
    ```python
    layer.set_weights([bn.weight.numpy(), bn.bias.numpy(), bn.running_var.numpy(), bn.running_mean.numpy()])
    ```

    ## Use instead
    ```python
    layer.set_weights([bn.weight.numpy(), bn.bias.numpy(), bn.running_mean.numpy(), bn.running_var.numpy()])
    ```

    ## When it does not fire
    For lists of another length (`scale=False` or `center=False`), for elements whose names do not tell what they are or
    tell two things, and for lists that are not written out in the call.

    ## How --verify confirms it
    It gives a layer four different weights in this order and in Keras's, and compares the outputs.

    ## Fix safety
    There is no fix: whether the order is wrong or the names are is the author's to say.

    ## References
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/gmalivenko/pytorch2keras/issues/120>
    - <https://github.com/Vladkryvoruchko/PSPNet-Keras-tensorflow/issues/31>
    - <https://github.com/keras-team/keras/issues/2772>
    """

    code: ClassVar[str] = "BNL106"
    name: ClassVar[str] = "bn-weights-order"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("weights-order",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b".set_weights", b".get_weights"), (b"mean", b"mu"), (b"var",))
    follows_modes: ClassVar[bool] = False
    callers: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"set_weights|get_weights", r"mean|mu", r"var")

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for event in file.weights_ordered:
            order = _order(event)
            if order is None or order == (0, 1, 2, 3) or (event.target and event.target.framework == "torch"):
                continue
            names = ("scale", "offset", "mean", "variance")
            stated = ", ".join(names[role] for role in order)
            does = "set_weights is given" if event.sets else "get_weights is unpacked into"
            yield self.finding(
                event.location,
                f"{does} {stated} by name, but the order is {', '.join(WEIGHTS['keras'])}; the shapes are equal, so "
                "nothing else notices",
                Confidence.CERTAIN if event.target and support.is_batchnorm(event.target) else Confidence.LIKELY,
                event.where.calls,
                None,
                Experiment("weights-order", "keras", (_spec(event),), options={"order": _written(order)}),
            )


def _order(event: WeightsOrdered) -> tuple[int, ...] | None:
    """Which weight each expression is; None where the names do not tell."""
    order = []
    for words in event.items:
        roles = [role for role, known in enumerate(_WORDS) if words & known]
        if len(roles) != 1:
            return None
        order.append(roles[0])
    return tuple(order) if len(set(order)) == 4 else None


def _written(order: tuple[int, ...]) -> str:
    return ",".join(WEIGHTS["keras"][role] for role in order)


def _spec(event: WeightsOrdered) -> LayerSpec:
    if event.target is not None and support.is_batchnorm(event.target):
        known: LayerSpec = support.layer_spec(event.target)
        return known
    return LayerSpec(_KERAS_BATCHNORM, {})
