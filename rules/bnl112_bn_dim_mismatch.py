from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _chains as chains
from bnlint.rules import _support as support

from bnlint.experiment import CHOSEN_FEATURES, Experiment, Scalar
from bnlint.finding import Confidence, Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import Applied, FileFacts
from bnlint.semantics.values import Instance

# The numbers of dimensions that a BatchNorm takes. A linear layer may be fed more, and gives as many as it gets.
_RANKS = {"1d": (2, 3), "2d": (4,), "3d": (5,)}


class BnDimMismatch(Rule):
    """A BatchNorm of PyTorch does not fit what the layer before it gives.

    ## What it does
    Reports a BatchNorm layer behind a convolution of another number of dimensions (`BatchNorm1d` behind `Conv2d`),
    a `BatchNorm2d` or `BatchNorm3d` behind `Flatten` and `Linear`, and one whose `num_features` is not the number of
    features that the convolution or linear layer gives. Activations, dropout and pooling may stand between.

    ## Why is this bad?
    The forward pass raises: "expected 2D or 3D input (got 4D input)", "running_mean should contain 64 elements not
    32". That is found at once where the code is run; this finds it where it is not, in a branch or a variant of the
    model that no test builds.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm1d(64))
    ```

    ## Use instead
    ```python
    nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64))
    ```

    ## When it does not fire
    Where anything else stands between (`Rearrange`, `permute`, `Flatten`, `Unflatten`, `PixelShuffle`, `GLU` and the
    like change dimensions or channels); for sizes that are not numbers; behind `Linear` unless a `Flatten` stands
    before it, since it may be fed images or sequences; for lazy layers and SyncBatchNorm's dimensions.

    ## How --verify confirms it
    It runs the layers, built alike, on a batch of random numbers: an exception confirms, none refutes.

    ## Fix safety
    There is no fix: which of the two layers has the wrong size, the author must tell.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html>
    - <https://github.com/ruotianluo/self-critical.pytorch/issues/44>
    - <https://github.com/LTH14/rcg/issues/9>
    """

    code: ClassVar[str] = "BNL112"
    name: ClassVar[str] = "bn-dim-mismatch"
    severity: ClassVar[Severity] = Severity.ERROR
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("norm-fit",)
    evidence: ClassVar[int] = 4
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"BatchNorm",),
        (b"Conv", b"Linear"),
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    follows_chains: ClassVar[bool] = True
    marks: ClassVar[tuple[str, ...]] = chains.CHAIN_MARKS

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for applied in file.applied:
            norm = applied.layer
            if norm.framework != "torch" or not chains.is_batchnorm(norm) or "Lazy" in norm.kind:
                continue
            source, between = chains.before(applied, chains.POINTWISE | {"dropout", "pool"})
            what = chains.what(source.layer) if source is not None else ""
            if source is None or what not in ("conv", "linear"):
                continue
            rank = _rank_of(source, between)
            sizes = [
                support.sole_number(norm.arguments.get("num_features")),
                support.sole_number(source.layer.arguments.get(chains.neighbour(source.layer).features)),
            ]
            if rank is None:
                continue
            if rank not in _RANKS.get(norm.kind[-2:], (rank,)):
                yield self._report(applied, source, rank, f"takes {_text(norm)} dimensions, and gets {rank}")
            elif None not in sizes and sizes[0] != sizes[1]:
                yield self._report(applied, source, rank, f"is for {sizes[0]:g} features, and gets {sizes[1]:g}")

    def _report(self, applied: Applied, source: Applied, rank: int, text: str) -> Finding:
        norm, facts = applied.layer, chains.neighbour(source.layer)
        features = support.sole_number(source.layer.arguments.get(facts.features))
        options: dict[str, Scalar] = {"before": facts.short_name, "rank": rank}
        own = support.sole_number(norm.arguments.get("num_features"))
        options["features"] = int(features or own or CHOSEN_FEATURES)
        return self.finding(
            norm.location,
            f"this {chains.short_name(norm)} {text}, from {facts.short_name} in line {source.layer.location.line}: the "
            "forward pass raises",
            Confidence.CERTAIN if facts.what == "conv" else Confidence.LIKELY,
            chains.trace_of(source),
            None,
            Experiment("norm-fit", "torch", (support.layer_spec(norm),), options=options),
        )


def _rank_of(source: Applied, between: list[Applied]) -> int | None:
    """The number of dimensions of what a layer gives, if only one is possible."""
    rank = chains.neighbour(source.layer).rank
    if rank:
        return rank if all(_keeps(one.layer, rank) for one in between) else None
    first, _ = chains.before(source, chains.POINTWISE | {"dropout", "linear"})
    flat = first is not None and chains.what(first.layer) == "flatten" and not first.layer.arguments
    return 2 if flat and all(chains.what(one.layer) != "pool" for one in between) else None


def _keeps(layer: Instance, rank: int) -> bool:
    return chains.what(layer) != "pool" or bool(chains.neighbour(layer).rank == rank)


def _text(norm: Instance) -> str:
    return " or ".join(str(rank) for rank in _RANKS[norm.kind[-2:]])
