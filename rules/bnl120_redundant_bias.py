from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import ClassVar

from bnlint.rules import _chains as chains
from bnlint.rules import _support as support

from bnlint.experiment import Experiment, Scalar
from bnlint.finding import Confidence, Finding, Location, Severity
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics.events import Applied, FileFacts, is_exactly
from bnlint.semantics.values import Instance, only_constant

_WEIGHTED = frozenset({"conv", "depthwise", "linear"})
#: What loads the weights of models that others trained, in which the bias has its place.
_LOADS_PUBLISHED_WEIGHTS = frozenset(
    {"load_state_dict_from_url", "load_url", "load_pretrained", "from_pretrained", "get_file", "load_checkpoint"}
)


class RedundantBias(Rule):
    """The bias of a convolution or linear layer is subtracted again by the BatchNorm behind it.

    ## What it does
    Reports a convolution or linear layer that has a bias (the default) and whose output goes into a BatchNorm
    layer and nowhere else, directly or through pooling. It reads sequential containers, chains in `forward` and
    `call`, and functional chains.

    ## Why is this bad?
    It is not wrong, only wasted: BatchNorm subtracts each channel's mean, and the bias with it; `beta` (torch's
    `bias`) does its work. The bias costs one parameter for each channel, with its optimiser state, and gets no
    gradient: 1e-5 beside 67 for the weights. What it holds is noise, kept in check by weight decay alone.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
    ```

    ## Use instead
    ```python
    nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    ```

    ## When it does not fire
    Where an activation, dropout or padding stands between; where the output, or the layer, is used elsewhere too;
    where the BatchNorm is frozen or put in eval mode (then the bias counts), or normalises along another axis; for
    GroupNorm, LayerNorm and InstanceNorm; in files that load published weights; and where anything of this is
    not known.

    ## How --verify confirms it
    It builds the two layers in double precision, trains them one step, and compares the gradient of the bias
    with that of the weights: below 1e-6 of it confirms, above 1e-3 refutes.

    ## Fix safety
    Unsafe: checkpoints that hold the bias no longer load. Offered where the argument is a constant in the call
    or missing.

    ## References
    - <https://arxiv.org/abs/1502.03167> (section 3.2)
    - <https://github.com/milesial/Pytorch-UNet/pull/325>
    - <https://github.com/matterport/Mask_RCNN/issues/1455>
    """

    code: ClassVar[str] = "BNL120"
    name: ClassVar[str] = "redundant-bias"
    severity: ClassVar[Severity] = Severity.INFO
    default: ClassVar[bool] = False
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch", "Keras")
    experiments: ClassVar[tuple[str, ...]] = ("bias-gradient",)
    evidence: ClassVar[int] = 12
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch", b"keras", b"tensorflow"),
        (b"BatchNorm",),
        (b"Conv", b"Linear", b"Dense"),
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    follows_chains: ClassVar[bool] = True
    marks: ClassVar[tuple[str, ...]] = chains.CHAIN_MARKS

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if file.named & _LOADS_PUBLISHED_WEIGHTS or not file.complete:
            return
        uses: dict[Instance, list[Applied]] = defaultdict(list)
        absorbed: dict[Applied, tuple[Applied, list[Applied]]] = {}
        for applied in file.applied:
            if chains.what(applied.layer) in _WEIGHTED:
                uses[applied.layer].append(applied)
            if chains.is_batchnorm(applied.layer) and not _is_frozen(applied.layer, file):
                source, between = chains.before(applied, frozenset({"pool", "identity"}))
                chain = [*between, source] if source is not None else []
                if source is not None and all(one.read_once and _keeps_means(one.layer) for one in chain):
                    absorbed[source] = (applied, between)
        places: dict[Location, list[Instance]] = defaultdict(list)
        for layer in uses:
            if layer.location.path == file.path:  # what another file builds is told there
                places[layer.location].append(layer)
        for layers in places.values():  # a place may build layers for several callers
            if all(_is_absorbed(layer, uses[layer], absorbed) for layer in layers):
                first = uses[layers[0]][0]
                yield self._report(first, *absorbed[first])

    def _report(self, applied: Applied, norm: Applied, between: list[Applied]) -> Finding:
        layer, facts = applied.layer, chains.neighbour(applied.layer)
        features = support.sole_number(layer.arguments.get(facts.features)) if facts.features else None
        wasted = f"{features:g} parameters" if features else "a parameter for each channel"
        return self.finding(
            layer.location,
            f"the bias of this {facts.short_name} does nothing: {chains.short_name(norm.layer)} in line "
            f"{norm.layer.location.line} subtracts each channel's mean and the bias with it; {facts.bias}=False saves "
            f"{wasted}, but checkpoints that hold the bias no longer load",
            Confidence.CERTAIN if not between else Confidence.LIKELY,
            chains.trace_of(norm),
            chains.set_argument(applied, facts.bias, "False"),
            _experiment(norm.layer, layer),
        )


def _is_absorbed(
    layer: Instance, uses: list[Applied], absorbed: Mapping[Applied, tuple[Applied, list[Applied]]]
) -> bool:
    """Whether whatever the layer gives goes into a norm that takes its bias off."""
    norms = [absorbed[one][0] for one in uses if one in absorbed]
    return (
        bool(uses) and len(norms) == len(uses) and _has_bias(layer) and all(_absorbs(its.layer, layer) for its in norms)
    )


def _is_frozen(norm: Instance, file: FileFacts) -> bool:
    """Whether it may normalise by its running statistics in training: the bias counts then."""
    frozen = not is_exactly(norm.arguments.get("trainable", frozenset()), True) and "trainable" in norm.arguments
    return frozen or norm in file.put_in_eval or any(norm in freeze.parts for freeze in file.freezes)


def _keeps_means(layer: Instance) -> bool:
    """Whether a constant that is added before a layer comes out of it as such: not where zeros are averaged in."""
    averages = chains.what(layer) == "pool" and "Avg" in layer.kind and layer.framework == "torch"
    return not averages or chains.constant_of(layer, "padding", 0) == (True, 0)


def _has_bias(layer: Instance) -> bool:
    facts = chains.neighbour(layer)
    if chains.constant_of(layer, "activation", None) not in ((True, None), (True, "linear")):
        return False
    known, bias = chains.constant_of(layer, facts.bias, True)
    return known and bias is True


def _absorbs(norm: Instance, layer: Instance) -> bool:
    """Whether the layer normalises over everything but the dimension that the bias is spread over."""
    facts = chains.neighbour(layer)
    if facts.framework == "torch":
        if facts.what != "linear":
            return LAYERS[norm.kind].kind == "batchnorm"
        # Of a sequence, BatchNorm1d normalises each step: then its size is another.
        return norm.kind.endswith("1d") and _is_same(norm, "num_features", layer, facts.features)
    known, axis = chains.constant_of(norm, "axis", -1)
    layout = layer.arguments.get("data_format")
    last = layout is None or only_constant(layout) in ((True, None), (True, "channels_last"))
    if known and axis == 1 and facts.rank > 3:
        return layout is not None and only_constant(layout) == (True, "channels_first")
    return known and last and axis in (-1, facts.rank - 1)


def _is_same(one: Instance, name: str, other: Instance, its: str) -> bool:
    node = one.argument_nodes.get(name)
    if node is not None and node == other.argument_nodes.get(its):
        return True
    size = support.sole_number(one.arguments.get(name))
    return size is not None and size == support.sole_number(other.arguments.get(its))


def _experiment(norm: Instance, layer: Instance) -> Experiment:
    spec = support.layer_spec(norm)
    options: dict[str, Scalar] = {"before": chains.neighbour(layer).short_name, "between": ""}
    if chains.neighbour(layer).framework == "keras":
        options["data_format"] = "channels_first" if spec.arguments.get("axis") == 1 else "channels_last"
    return Experiment("bias-gradient", str(layer.framework), (spec,), options=options)
