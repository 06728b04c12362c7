"""What rules about neighbouring layers share: walking up a chain, and the arguments of its layers."""

from __future__ import annotations

from bnlint.rules import _support as support

from bnlint.experiment import Scalar
from bnlint.finding import Edit, Fix, Location, Safety, TraceStep
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.neighbours import NEIGHBOURS, Neighbour
from bnlint.semantics import ir
from bnlint.semantics.events import Applied
from bnlint.semantics.values import Instance, Value, only_constant

#: Keep each channel's values apart from those of others, and the channels where they are.
POINTWISE = frozenset({"activation", "identity"})
KEEPS_CHANNELS = POINTWISE | {"dropout", "pool", "resize"}
#: What tells of a layer that normalises in a class, and of the method in which layers may be applied.
CHAIN_MARKS = (r"[Bb]atch_?[Nn]orm|BN\b|def (?:forward|call)\b", r"[Bb]atch_?[Nn]orm|BN\b")
_SHARED = frozenset({"tf1.layers.batch_normalization", "tf1.contrib.batch_norm"})


def what(layer: Instance) -> str:
    """What a layer does, as ``Neighbour.what`` or ``LayerFacts.kind``; empty where that is not known."""
    if layer.cls is not None:
        return ""
    neighbour = NEIGHBOURS.get(layer.kind)
    if neighbour is not None:
        return neighbour.what
    return LAYERS[layer.kind].kind if layer.kind in LAYERS else ""


def neighbour(layer: Instance) -> Neighbour:
    return NEIGHBOURS[layer.kind]


def is_batchnorm(layer: Instance) -> bool:
    return what(layer) == "batchnorm" and layer.kind not in _SHARED


def before(applied: Applied, through: frozenset[str]) -> tuple[Applied | None, list[Applied]]:
    """The nearest application before this one that does something else than ``through``, and those between."""
    between: list[Applied] = []
    source = applied.source
    while source is not None and what(source.layer) in through and source not in between:
        between.append(source)
        source = source.source
    return (None if source in between else source), between


def constant_of(layer: Instance, name: str, default: Scalar) -> tuple[bool, Scalar]:
    """Whether an argument is known, and what it is."""
    value: Value | None = layer.arguments.get(name)
    if value is None:
        return True, default
    return only_constant(value)


def short_name(layer: Instance) -> str:
    return layer.kind.rpartition(".")[2]


def is_called(applied: Applied) -> bool:
    """Whether the layer stands where it is applied, so that its call is all there is to show."""
    return applied.construction is None


def trace_of(*chain: Applied) -> tuple[TraceStep, ...]:
    """The calls that lead to the first of them, and where each layer is built."""
    steps = [TraceStep(one.layer.location, f"this {short_name(one.layer)}") for one in chain]
    return (*chain[0].where.calls, *steps)


def set_argument(applied: Applied, name: str, text: str) -> Fix | None:
    """Write ``name=text`` into the call that builds the layer."""
    call, layer = applied.construction, applied.layer
    if call is None or call.span is None or any(argument.star for argument in call.args):
        return None
    node = layer.argument_nodes.get(name)
    if isinstance(node, ir.Const) and node.span is not None:
        edit = Edit(Location(layer.location.path, *node.span), text)
    elif name in layer.arguments:
        return None
    else:
        line, column = call.span.end_line, call.span.end_column - 1
        comma = ", " if call.args and not call.trailing_comma else " " if call.args else ""
        edit = support.insert(Location(layer.location.path, line, column, line, column), f"{comma}{name}={text}")
    return Fix(Safety.UNSAFE, f"write {name}={text}", (edit,))
