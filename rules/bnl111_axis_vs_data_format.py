from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _chains as chains
from bnlint.rules import _support as support

from bnlint.experiment import CHOSEN_FEATURES, Experiment, LayerSpec
from bnlint.finding import Confidence, Finding, Severity
from bnlint.frameworks.neighbours import DATA_FORMATS
from bnlint.rule import Rule
from bnlint.semantics.events import Applied, FileFacts
from bnlint.semantics.values import Instance, only_constant

# What the dimension behind the batch of a convolution's output, and its last, are made of, channels aside, by rank.
_SPATIAL = {4: ("row", "column"), 5: ("slice", "column")}
# More channels than this at one end of a shape, and it may as well be an extent.
_MOST_COLOURS = 4
_WORDS = frozenset({"data_format", "dim_ordering"})
_LAYOUT_IS_A_SETTING = frozenset(
    {"image_data_format", "set_image_data_format", "image_dim_ordering", "set_image_dim_ordering", "Permute"}
)


class AxisVsDataFormat(Rule):
    """A Keras BatchNormalization normalises another axis than that of the channels.

    ## What it does
    Reports a BatchNormalization behind a two- or three-dimensional convolution whose `axis` is where the other
    `data_format` would have the channels: `axis=-1` (the default) behind `data_format="channels_first"`, or
    `axis=1` behind `"channels_last"` (the default). Activations, dropout, pooling and padding may stand
    between. It reads `Sequential` models, `add()`, functional chains and `call()` methods.

    ## Why is this bad?
    Every column (or row) of the image gets a mean, a variance, a gamma and a beta of its own, shared by all
    channels: 6 values instead of 4 for 4 filters on images 6 wide. Nothing fails. The model trains and is worse, and
    the layer no longer fits images of another size.

    ## Example
    ```python
    model.add(Conv2D(32, 3, data_format="channels_first"))
    model.add(BatchNormalization())
    ```

    ## Use instead
    ```python
    model.add(Conv2D(32, 3, data_format="channels_first"))
    model.add(BatchNormalization(axis=1))
    ```

    ## When it does not fire
    When the axis or the layout is computed or not known; when anything else stands between, such as `Reshape`,
    `Permute` or `Flatten`; for one-dimensional convolutions and dense layers (normalising each time step may be
    meant); for axes that are the channels of neither layout. Where neither the convolution nor the file says which
    layout it has, the default counts only if an input shape that is written out ends in 1 to 4 channels (otherwise
    the finding is merely *possible*, and there is none where a shape begins with them).

    ## How --verify confirms it
    It builds the convolution and the layer on images whose sides and channels all differ: gamma with another
    number of values than there are filters confirms, one for each filter refutes.

    ## Fix safety
    Unsafe: the axis of the channels changes the shapes of the layer's weights, so that saved ones no longer
    load, and what the model computes. Offered where the axis is written as a number or not at all.

    ## References
    - <https://keras.io/api/layers/normalization_layers/batch_normalization/>
    - <https://github.com/sharathadavanne/seld-dcase2021/issues/8>
    - <https://github.com/DCASE-REPO/dcase2018_baseline/issues/18>
    - <https://github.com/Zeta36/chess-alpha-zero/issues/90>
    """

    code: ClassVar[str] = "BNL111"
    name: ClassVar[str] = "axis-vs-data-format"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("Keras",)
    experiments: ClassVar[tuple[str, ...]] = ("axis-layout",)
    evidence: ClassVar[int] = 8
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"keras", b"tensorflow"),
        (b"BatchNorm",),
        (b"Conv",),
    )
    needle_pattern: ClassVar[str] = (
        r"channels_first|dim_ordering|axis\s*=\s*(?:1|-3|-4)\b|Normalization\(\s*(?:1|-3|-4)\b|AXIS\s*="
    )
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    follows_chains: ClassVar[bool] = True
    marks: ClassVar[tuple[str, ...]] = (r"BatchNorm|def call\b", r"BatchNorm")

    def check(self, file: FileFacts) -> Iterator[Finding]:
        for applied in file.applied:
            if applied.layer.framework != "keras" or not chains.is_batchnorm(applied.layer):
                continue
            conv, _ = chains.before(applied, chains.KEEPS_CHANNELS)
            if conv is None or chains.what(conv.layer) not in ("conv", "depthwise"):
                continue
            rank = chains.neighbour(conv.layer).rank
            known, axis = chains.constant_of(applied.layer, "axis", -1)
            if rank < 4 or not known or not isinstance(axis, int) or not -rank <= axis < rank:
                continue
            layout, confidence = _layout_of(conv.layer, file)
            channels = 1 if layout == "channels_first" else rank - 1
            if layout is not None and axis % rank == rank - channels:
                yield self._report(applied, conv, axis, rank, layout, confidence)

    def _report(
        self, applied: Applied, conv: Applied, axis: int, rank: int, layout: str, confidence: Confidence
    ) -> Finding:
        first = layout == "channels_first"
        extent = _SPATIAL[rank][1 if first else 0]
        written = f"axis={axis}" if "axis" in applied.layer.arguments else "the default axis=-1"
        given = " (the default)" if not _WORDS & conv.layer.arguments.keys() else ""
        if not given and not _WORDS & conv.layer.argument_nodes.keys():
            given = " (which the file sets for all)"
        right = "1" if first else "-1"
        return self.finding(
            applied.layer.location,
            f"{written} is not the axis of the channels: {chains.short_name(conv.layer)} in line "
            f"{conv.layer.location.line} gives {layout}{given}, so that each {extent} is normalised by itself, with a "
            f"gamma and beta of its own, instead of each filter's output; write axis={right}",
            confidence,
            chains.trace_of(conv),
            chains.set_argument(applied, "axis", right),
            _experiment(applied.layer, conv.layer, layout),
        )


def _layout_of(conv: Instance, file: FileFacts) -> tuple[str | None, Confidence]:
    """The layout of a convolution's output and how sure that is; None where it cannot be told."""
    given = conv.arguments.get("data_format", conv.arguments.get("dim_ordering"))
    if given is not None:
        known, word = only_constant(given)
        if word is not None or not known:
            explicit = _WORDS & conv.argument_nodes.keys()
            return DATA_FORMATS.get(str(word)), Confidence.CERTAIN if explicit else Confidence.LIKELY
    if file.named & _LAYOUT_IS_A_SETTING:
        return None, Confidence.POSSIBLE
    ends = {_channels_of(shape) for shape in file.input_shapes if shape is not None}
    if "channels_first" in ends:
        return None, Confidence.POSSIBLE
    return "channels_last", Confidence.LIKELY if "channels_last" in ends else Confidence.POSSIBLE


def _channels_of(shape: tuple[int | None, ...]) -> str | None:
    """The layout that the shape of an image, without the batch, looks like."""
    if len(shape) not in (3, 4):
        return None
    first, last = (size is not None and 1 <= size <= _MOST_COLOURS for size in (shape[0], shape[-1]))
    if first == last:
        return None
    return "channels_first" if first else "channels_last"


def _experiment(norm: Instance, conv: Instance, layout: str) -> Experiment:
    spec = support.layer_spec(norm)
    filters = support.sole_number(conv.arguments.get("filters"))
    chosen = () if filters else ("filters",)
    spec = LayerSpec(spec.kind, spec.arguments, (*spec.chosen, *chosen))
    options = {"before": chains.neighbour(conv).short_name, "data_format": layout}
    return Experiment("axis-layout", "keras", (spec,), options={**options, "filters": int(filters or CHOSEN_FEATURES)})
