from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _chains as chains
from bnlint.rules import _support as support

from bnlint.experiment import Experiment, Scalar
from bnlint.finding import Confidence, Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import Applied, FileFacts, is_exactly, numbers
from bnlint.semantics.values import Instance, SavedMode, Unknown

#: A probability up to this changes the variance by less than a fifth, where the mean is as large as the deviation.
SMALLEST_FELT = 1 / 9
_PASSED_ON = frozenset({"activation", "identity", "pool", "flatten", "resize"})
# Gaussian and alpha dropout keep the variance, or try to.
_ZEROING = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "SpatialDropout1D", "SpatialDropout2D",
            "SpatialDropout3D")  # fmt: skip


class DropoutBeforeBn(Rule):
    """Dropout feeds a BatchNorm, whose running variance is then not that of inference.

    ## What it does
    Reports a Dropout layer with a known probability above 0.11 whose output goes into a BatchNorm layer, directly
    or through activations, pooling, `Flatten` and at most one linear layer.

    ## Why is this bad?
    Dropout keeps the mean and raises the variance: by 1 / (1 - p) and more where the mean is not zero. BatchNorm
    learns that variance in training; in eval mode Dropout is off, the variance is lower, and the outputs shrink. At
    p = 0.5 and a mean of one standard deviation the variance behind BatchNorm is 0.33 instead of 1, so that all
    later layers see values of 0.58 of the size they were trained on.

    ## Example
    ```python
    nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(64))
    ```

    ## Use instead
    ```python
    nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5))
    ```

    ## When it does not fire
    For Dropout behind the last BatchNorm; where a convolution stands between (wide residual networks do that on
    purpose, and it matters less); for a probability that is small, 0 or not known; for DropBlock, DropPath, Gaussian
    and alpha dropout; for `F.dropout` that is on in both modes; for a BatchNorm without running statistics.

    ## How --verify confirms it
    It trains the two layers' statistics on 400 batches of inputs whose mean is their standard deviation, and
    measures the variance of the outputs in eval mode over that in train mode: below 0.8 confirms, above 0.95 refutes.

    ## Fix safety
    There is no fix: another order of layers is another model, which must be trained anew.

    ## References
    - <https://arxiv.org/abs/1801.05134>
    - <https://github.com/luigibonati/mlcolvar/issues/205>
    - <https://github.com/keras-team/keras/issues/473>
    """

    code: ClassVar[str] = "BNL121"
    name: ClassVar[str] = "dropout-before-bn"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch", "Keras")
    experiments: ClassVar[tuple[str, ...]] = ("dropout-shift",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch", b"keras", b"tensorflow"),
        (b"BatchNorm",),
        (b"Dropout", b"dropout"),
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    follows_chains: ClassVar[bool] = True
    marks: ClassVar[tuple[str, ...]] = chains.CHAIN_MARKS

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for applied in file.applied:
            norm = applied.layer
            if not chains.is_batchnorm(norm) or is_exactly(norm.arguments.get("track_running_stats"), False):
                continue
            source, between = chains.before(applied, _PASSED_ON)
            if source is not None and chains.what(source.layer) == "linear":
                between.append(source)
                source, more = chains.before(source, _PASSED_ON)
                between += more
            judged = _probability(source) if source is not None else None
            if source is not None and judged is not None:
                yield self._report(source, applied, between, *judged)

    def _report(
        self, dropout: Applied, norm: Applied, between: list[Applied], p: float, confidence: Confidence
    ) -> Finding:
        weighted = [chains.short_name(one.layer) for one in reversed(between)]
        through = f" (through {', '.join(weighted)})" if weighted else ""
        options: dict[str, Scalar] = {"dropout": chains.short_name(dropout.layer), "rate": p}
        return self.finding(
            dropout.location if chains.is_called(dropout) else dropout.layer.location,
            f"this dropout feeds {chains.short_name(norm.layer)} in line {norm.layer.location.line}{through}: its "
            f"running variance is that of inputs with dropout on, so in eval mode outputs shrink, at p={p:g} to a "
            f"variance of down to {(1 - p) / (1 + p):.2f}; put dropout behind the last BatchNorm",
            confidence,
            chains.trace_of(norm),
            None,
            Experiment("dropout-shift", str(norm.layer.framework), (support.layer_spec(norm.layer),), options=options),
        )


def _probability(dropout: Applied) -> tuple[float, Confidence] | None:
    """The probability and how sure it is; None for what is no dropout that shifts the variance by much."""
    layer = dropout.layer
    if chains.short_name(layer) not in _ZEROING or layer.cls is not None:
        return None
    if chains.is_called(dropout) and not _follows_the_mode(layer):
        return None
    name = "rate" if layer.framework == "keras" else "p"
    value = layer.arguments.get(name)
    if value is None:
        return (0.5, Confidence.CERTAIN) if layer.framework == "torch" else None
    found, only = numbers(value)
    others = [atom for atom in value if atom not in found]
    by_default = bool(found) and all(constant.from_default for constant in found)
    if not found or not (only or (by_default and all(isinstance(atom, Unknown) for atom in others))):
        return None
    p = min(support.as_float(constant) for constant in found)
    sure = only and len(found) == 1
    return (p, Confidence.CERTAIN if sure else Confidence.LIKELY) if SMALLEST_FELT < p < 1 else None


def _follows_the_mode(function: Instance) -> bool:
    """Whether ``F.dropout`` is off in eval mode: it is given ``self.training``."""
    return any(isinstance(atom, SavedMode) for atom in function.arguments.get("training", frozenset()))
