from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._marks import POSITIONAL_EPS_MARKS

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Edit, Finding, Fix, Location, Safety, Severity
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics import ir
from bnlint.semantics.events import FileFacts, LayerBuilt, numbers

#: The largest eps that anyone gives on purpose; a momentum is larger, or at least 0.01.
LARGEST_MEANT = 1e-2


class PositionalEps(Rule):
    """A number meant as momentum is passed where PyTorch's BatchNorm takes `eps`.

    ## What it does
    Reports a BatchNorm layer of `torch.nn` whose second positional argument (the first, for the lazy layers)
    is a number above 0.01.

    ## Why is this bad?
    The parameter after `num_features` is `eps`, not `momentum`. `nn.BatchNorm2d(64, 0.8)` adds 0.8 to the
    variance and leaves the momentum at its default: at unit variance all outputs shrink by 1 / sqrt(1 + 0.8)
    = 0.745, and more where the variance is smaller.

    ## Example
    ```python
    nn.BatchNorm2d(64, 0.8)  # from Keras: BatchNormalization(momentum=0.8)
    ```

    ## Use instead
    ```python
    nn.BatchNorm2d(64, momentum=0.2)
    ```

    ## When it does not fire
    For numbers up to 0.01, for `eps=` given by name, for layers of other frameworks and home-made ones, and
    when the number is not known.

    ## How --verify confirms it
    It compares the rebuilt layer with the same layer at the default eps, on data of unit variance: a relative
    difference above 1 % confirms.

    ## Fix safety
    Unsafe: `momentum=1 - x` (or `momentum=x` below 0.5, where it is taken for PyTorch's own) changes the
    outputs and the statistics, and what the author meant is a guess. Offered only for a number between 0 and
    1 that is the last positional argument, beside no other momentum.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    """

    code: ClassVar[str] = "BNL107"
    name: ClassVar[str] = "positional-eps"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("eps-gap",)
    evidence: ClassVar[int] = 1
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch",), (b"BatchNorm", b"batchnorm"))
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (POSITIONAL_EPS_MARKS,)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for built in file.layers:
            instance = built.instance
            layer = LAYERS.get(instance.kind)
            if layer is None or layer.framework != "torch" or layer.kind != "batchnorm":
                continue
            if "eps" not in instance.positional:
                continue
            found, only = numbers(instance.arguments.get("eps", frozenset()))
            values = [support.as_float(constant) for constant in found]
            if only and values and min(values) > LARGEST_MEANT:
                yield self._report(built, values[0])

    def _report(self, built: LayerBuilt, eps: float) -> Finding:
        meant = ""
        if 0 < eps < 1 and "momentum" not in built.instance.arguments:
            meant = f"; if momentum is meant, write momentum={_momentum(eps)}"
        return self.finding(
            built.location,
            f"the positional argument {eps:g} is eps, which is added to the variance: at unit variance the "
            f"outputs shrink by a factor of {1 / math.sqrt(1 + eps):.3g}; the momentum stays as it is{meant}",
            Confidence.CERTAIN,
            built.where.calls,
            _fix(built, eps),
            Experiment("eps-gap", "torch", (support.layer_spec(built.instance, eps=eps),)),
        )


def _momentum(number: float) -> str:
    """What the number means as a momentum: from 0.5 on it is taken for one in Keras's convention."""
    return support.complement(number) if number >= 0.5 else repr(number)


def _fix(built: LayerBuilt, eps: float) -> Fix | None:
    instance, arguments = built.instance, built.call.args
    node = instance.argument_nodes.get("eps")
    if not isinstance(node, ir.Const) or node.span is None or node.value != eps or not 0 < eps < 1:
        return None
    positional = [argument for argument in arguments if argument.keyword is None]
    if "momentum" in instance.arguments or any(argument.star for argument in arguments):
        return None
    if not positional or positional[-1].value is not node:
        return None
    text = f"momentum={_momentum(eps)}"
    at = Location(built.location.path, *node.span)
    return Fix(Safety.UNSAFE, f"write {text}", (Edit(at, text),))
