from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment, LayerSpec
from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.others import DISPLAYED
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts
from bnlint.semantics.values import Trait


class EpsNotCarried(Rule):
    """A BatchNorm takes the statistics of another framework's, but not its eps.

    ## What it does
    Reports a BatchNorm layer that is built without eps and is given the running variance of a layer of the other
    framework, in code that never sets eps.

    ## Why is this bad?
    PyTorch's default eps is 1e-5, Keras's 1e-3. Both add it to the variance, so the converted layer computes something
    else: 5e-4 off at variance 1, 5 % at variance 0.01, and the error grows with every layer. Ports were found wrong by
    it after much searching.

    ## Example
    ```python
    norm = keras.layers.BatchNormalization()
    norm.build((None, bn.num_features))
    norm.set_weights([bn.weight.numpy(), bn.bias.numpy(), bn.running_mean.numpy(), bn.running_var.numpy()])
    ```

    ## Use instead
    ```python
    norm = keras.layers.BatchNormalization(epsilon=bn.eps)
    norm.build((None, bn.num_features))
    norm.set_weights([bn.weight.numpy(), bn.bias.numpy(), bn.running_mean.numpy(), bn.running_var.numpy()])
    ```

    ## When it does not fire
    With any eps in the call, or a `**` that may hold one; where the file sets the eps of any layer later; where the
    variance is computed with on the way; where the layers are not known, as behind renamed state dicts and in files
    of weights, whose names do not tell the eps that was trained with; and between layers of one framework.

    ## How --verify confirms it
    It gives two PyTorch layers with the two eps the same statistics, as both frameworks divide by the root of variance
    plus eps, and compares their outputs in eval mode: a relative difference above 1e-4 confirms.

    ## Fix safety
    There is no fix: the eps to carry is that of the layers the weights were trained in, which the source need not show.

    ## References
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/gzuidhof/nn-transfer/issues/3>
    - <https://github.com/huggingface/transformers/issues/19454>
    - <https://github.com/qqwweee/keras-yolo3/issues/451>
    """

    code: ClassVar[str] = "BNL105"
    name: ClassVar[str] = "eps-not-carried"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("eps-carried",)
    evidence: ClassVar[int] = 4
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"keras", b"tensorflow", b"tf_slim"),
        (b"BatchNorm",),
        (b"running_var",),
    )
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"running_var|moving_variance",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if file.sets_eps:
            return
        built = {layer.instance: layer for layer in file.layers}
        for carried in file.variances_carried:
            target, source = LAYERS.get(carried.target.kind), LAYERS[carried.source.kind]
            if target is None or target.framework == source.framework or carried.target not in built:
                continue
            if target.eps in carried.target.arguments:
                continue
            own, theirs = _default_eps(carried.target.kind), _eps_of(carried.source)
            if theirs is None or own == theirs:
                continue
            known = carried.source.owner is not None
            by_default = "" if known else "by default "
            here, there = DISPLAYED[target.framework], DISPLAYED[source.framework]
            yield self.finding(
                built[carried.target].location,
                f"this layer has {here}'s default {target.eps} {own:g}, but takes the statistics of a layer of "
                f"{there}, whose {source.eps} is {by_default}{theirs:g}: its outputs are "
                f"{_relative_error(own - theirs, 1):.2g} off at variance 1, and "
                f"{_relative_error(own - theirs, 0.01):.2g} at variance 0.01",
                Confidence.CERTAIN if known else Confidence.LIKELY,
                (*carried.where.calls, TraceStep(carried.location, "given the other layer's statistics here")),
                None,
                # The rebuilt layer is PyTorch's in either case: the formula is one.
                Experiment(
                    "eps-carried",
                    "torch",
                    (LayerSpec("torch.nn.BatchNorm2d", {"num_features": 16, "eps": own}, ("num_features",)),),
                    options={"eps_of_source": theirs},
                ),
            )


def _relative_error(difference: float, variance: float) -> float:
    """Of ``1 / sqrt(variance + eps)``, to first order in the difference of eps."""
    return abs(difference) / variance / 2


def _default_eps(kind: str) -> float:
    facts = LAYERS[kind]
    default = facts.defaults[facts.eps]
    assert isinstance(default, float)
    return default


def _eps_of(trait: Trait) -> float | None:
    """The eps of the layer that the statistics come from: its own, or where nothing is known of it the default."""
    eps = LAYERS[trait.kind].eps
    if trait.owner is None or eps not in trait.owner.arguments:
        return _default_eps(trait.kind)
    written: float | None = support.sole_number(trait.owner.arguments[eps])
    return written
