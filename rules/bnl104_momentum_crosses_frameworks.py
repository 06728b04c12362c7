from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._momentum import Given, momenta

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Finding, Fix, Location, Safety, Severity
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.others import DISPLAYED
from bnlint.rule import Rule
from bnlint.semantics import ir
from bnlint.semantics.events import FileFacts
from bnlint.semantics.values import Trait


class MomentumCrossesFrameworks(Rule):
    """The momentum of one framework's BatchNorm is handed to the other's as it is.

    ## What it does
    Reports a BatchNorm layer of Keras that is given the `momentum` read from a layer of PyTorch, or the other way
    round, without `1 - momentum` on the way.

    ## Why is this bad?
    PyTorch's momentum is the weight of the new batch in the running statistics, Keras's that of the old statistics. A
    converter that copies PyTorch's default 0.1 makes a Keras layer that remembers 1.2 batches instead of 19; Keras's
    0.99 in PyTorch makes it 1.0 instead of 199. The converted model predicts well until it is trained further.

    ## Example
    ```python
    if isinstance(layer, nn.BatchNorm2d):
        return keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.eps)
    ```

    ## Use instead
    ```python
    if isinstance(layer, nn.BatchNorm2d):
        return keras.layers.BatchNormalization(momentum=1 - layer.momentum, epsilon=layer.eps)
    ```

    ## When it does not fire
    Where anything is computed from the momentum, where it is not known to be that of a layer of the other framework,
    between layers of one framework, and for layers that are only used for inference: `trainable=False`, or put in eval
    mode in the same file. `eps` means the same in both.

    ## How --verify confirms it
    It builds the layer with the momentum that the other has, or has by default, and measures how much of one batch's
    noise stays in the running mean: 75 % or more confirms.

    ## Fix safety
    Unsafe: `1 - momentum` changes how the converted model goes on learning. Offered where the argument is written as
    `layer.momentum`.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/gmalivenko/pytorch2keras/issues/70>
    """

    code: ClassVar[str] = "BNL104"
    name: ClassVar[str] = "momentum-crosses-frameworks"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch", "Keras")
    experiments: ClassVar[tuple[str, ...]] = ("momentum-memory",)
    evidence: ClassVar[int] = 2
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"keras", b"tensorflow", b"tf_slim"),
        (b"BatchNorm", b"batch_norm"),
        (b"momentum",),
    )
    follows_modes: ClassVar[bool] = False
    callers: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"momentum", r"Norm|batch_norm|bn|BN")

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for given in momenta(file):
            (trait,) = given.value if len(given.value) == 1 else (None,)
            if not isinstance(trait, Trait) or trait.name != "momentum":
                continue
            source, target = LAYERS[trait.kind], given.layer
            if source.framework == target.framework or _only_infers(file, given):
                continue
            number = _momentum_of(trait)
            here, there = DISPLAYED[target.framework], DISPLAYED[source.framework]
            meaning = "the new batch" if target.framework == "torch" else "the old statistics"
            spec = given.spec(number)
            if trait.owner is None:
                spec = replace(spec, chosen=(*spec.chosen, "momentum"))
            yield self.finding(
                given.location,
                f"{here}'s {target.momentum} is the weight of {meaning}, and this one is read from a layer of {there}, "
                f"where it is the opposite: {number:g} there must become {support.complement(number)} (1 - momentum)",
                Confidence.CERTAIN,
                given.where.calls,
                _fix(given),
                Experiment("momentum-memory", target.framework, (spec,)),
            )


def _momentum_of(trait: Trait) -> float:
    """The momentum of the layer that it is read from, as it is built or by default."""
    facts = LAYERS[trait.kind]
    written = support.sole_number(trait.owner.arguments.get(facts.momentum)) if trait.owner is not None else None
    default = facts.defaults[facts.momentum]
    assert isinstance(default, float)
    return default if written is None else float(written)


def _only_infers(file: FileFacts, given: Given) -> bool:
    instance = given.built.instance if given.built is not None else None
    return instance is not None and instance in file.put_in_eval and instance not in file.put_in_train


def _fix(given: Given) -> Fix | None:
    node = given.built.instance.argument_nodes.get(given.layer.momentum) if given.built is not None else None
    if not isinstance(node, ir.Attr) or node.span is None:
        return None
    at = Location(given.location.path, *node.span)
    return Fix(Safety.UNSAFE, "convert it with 1 - momentum", (support.insert(at, "1 - "),))
