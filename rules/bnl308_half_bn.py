from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity
from bnlint.frameworks.functions import UNIT_ROUNDOFF
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics.events import CastPass, FileFacts, Forward
from bnlint.semantics.intent import is_test_file, is_trained_in_train_mode
from bnlint.semantics.values import Cast, Instance

# From here on the running statistics may stop by this much before those of the batches.
_FAR = 0.02


class HalfBn(Rule):
    """A model with BatchNorm is trained with running statistics that are too coarse to reach those of the batches.

    ## What it does
    Reports the forward pass of a training step of a model that has been cast to `bfloat16` or `float16` (`half()`), if
    it has BatchNorm layers whose momentum is so small that their running statistics come to a stop before they are
    those of the batches.

    ## Why is this bad?
    Each batch moves a running statistic by `momentum` times its distance to it. What is less than half the distance of
    two neighbouring numbers is lost when it is rounded: in `bfloat16`, with 8 significant bits, the statistics stop up
    to 4 % away with the default momentum of 0.1, and some 40 % with 0.01; in `float16`, with 11 bits, up to 5 % with
    0.01. Train mode does not use them, so nothing shows before the model is evaluated. In `float16` a variance above
    65504 also becomes infinite.

    ## Example
    ```python
    model = Net().to(torch.bfloat16)
    for x, y in loader:
        loss = criterion(model(x.to(torch.bfloat16)), y)
        loss.backward()
    ```

    ## Use instead
    ```python
    model = Net()
    for x, y in loader:
        with torch.autocast("cuda", torch.bfloat16):
            loss = criterion(model(x), y)
        loss.backward()
    ```
    Autocast leaves the parameters and statistics in `float32`.

    ## When it does not fire
    For a model that is cast for inference only, or cast back before it is trained; where its BatchNorm layers are cast
    to `float32` (`for m in model.modules(): ...`, `apply`, or a function from elsewhere that is given the model); in
    `float16` with a momentum above 0.025, the default among them, where what is lost is less than 2 %; where the dtype
    or the momentum is not known; for layers without running statistics; and in tests.

    ## How --verify confirms it
    It trains the rebuilt layer in that dtype until its statistics stop, and in `float32`: what the two make of a batch
    in eval mode, computed in `float32`, differs. A layer without running statistics, or with a large momentum, refutes
    it.

    ## Fix safety
    There is no fix: autocast changes more than one line, and which layers are to stay in `float32` is for the author to
    say.

    ## References
    - <https://docs.pytorch.org/docs/stable/amp.html>
    - <https://github.com/NVIDIA/apex/issues/122>
    - <https://github.com/NVIDIA/apex/issues/301>
    - <https://github.com/pytorch/pytorch/issues/126525>
    """

    code: ClassVar[str] = "BNL308"
    name: ClassVar[str] = "half-bn"
    severity: ClassVar[Severity] = Severity.WARNING
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("half-statistics",)
    evidence: ClassVar[int] = 8
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"half()", b".half", b"float16", b"HalfTensor"),
    )
    marks: ClassVar[tuple[str, ...]] = (r"\.half\(|float16|torch\.half\b|HalfTensor",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        passes: dict[Forward, dict[Instance, Cast]] = {}
        for event in file.cast_passes:
            cast = _sole_cast(event)
            if cast is not None and _is_live(event) and _distance(event.layer, cast.dtype) >= _FAR:
                passes.setdefault(event.forward, {})[event.layer] = cast
        for forward, casts in passes.items():
            if is_trained_in_train_mode(file, forward) and len(set(casts.values())) == 1:
                yield self._report(forward, list(casts), next(iter(casts.values())))

    def _report(self, forward: Forward, norms: list[Instance], cast: Cast) -> Finding:
        layers = [layer for layer in forward.layers if layer.instance in norms]
        percent = 100 * max(_distance(norm, cast.dtype) for norm in norms)
        return self.finding(
            forward.location,
            f"{support.subject(forward)} is trained in {cast.dtype}: the running statistics of "
            f"{support.describe(layers, forward.target)} can stop {percent:.2g} % away from those of the batches",
            Confidence.LIKELY,
            (*support.built_and_mode(forward), cast.step, *forward.where.calls),
            experiment=support.experiment("half-statistics", "torch", norms, dtype=cast.dtype),
        )


def _sole_cast(event: CastPass) -> Cast | None:
    """The one dtype that the layer surely has, if that is one with few digits."""
    (cast, *others) = event.casts
    return cast if isinstance(cast, Cast) and not others and cast.dtype in UNIT_ROUNDOFF else None


def _is_live(event: CastPass) -> bool:
    """Whether the layer is a BatchNorm that surely is there, in train mode, with running statistics."""
    trains = any(layer.instance is event.layer and support.trains(layer) for layer in event.forward.layers)
    return trains and support.is_mode_dependent(event.layer)


def _distance(layer: Instance, dtype: str) -> float:
    """How far from a batch's statistics the running ones can stop, relative to them; 0 where that is not known.

    A step of ``a |x - r|`` below half the distance of two numbers, at most ``u |r|``, is lost. Coming from above, ``r``
    then stops ``u / (a - u)`` away from ``x``.
    """
    given = layer.arguments.get("momentum")
    momentum = LAYERS[layer.kind].defaults["momentum"] if given is None else support.sole_number(given)
    unit = UNIT_ROUNDOFF[dtype]
    if not isinstance(momentum, float) or momentum <= 0:
        return 0.0
    return unit / (momentum - unit) if momentum > unit else 1.0
