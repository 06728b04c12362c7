"""How many samples a batch has, told by the loader that it comes from."""

from __future__ import annotations

from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.project import Project
from bnlint.semantics.reuse import Reuse
from bnlint.semantics.values import UNKNOWN, Atom, Class, Function, Instance, Mystery, Value, only_constant
from bnlint.source.parse import Source

#: The parameters of a loader up to that by which it is told how to put samples together.
_POSITIONAL = 4
_OWN_BATCHES = ("batch_sampler", "collate_fn")


class Batches(Reuse):
    """Adds ``Forward.batches``. A loader and what comes out of it are mysteries, whose parents lead back to it."""

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self.loaders: dict[Mystery, events.Batches] = {}
        self._regrouping: dict[Class, bool] = {}

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        first = arguments.at(0) or UNKNOWN
        if name in known.SAME_BATCHES and all(self._batches_of(atom) for atom in first):
            return first
        if name in known.DATA_LOADERS and (samples := _samples(arguments)) is not None:
            loader = self.mystery((id(node), "loader"), "loader", node.span)
            self.loaders[loader] = events.Batches(self.location(node.span), samples)
            return frozenset({loader})
        return super().call_library(name, arguments, node)

    def forward(self, target: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        value = super().forward(target, arguments, node)
        if self.loaders:
            _, event = self.event(node, events.Forward, id(target))
            if isinstance(event, events.Forward):
                given = {self._batches_of(atom) for atom in arguments.at(0) or UNKNOWN}
                told = given != {None} and not any(map(self._regroups, event.parts))
                event.batches |= given if told else {None}
        return value

    def _batches_of(self, atom: Atom | None) -> events.Batches | None:
        """Of which loader something is a batch, or a part of one with all its samples."""
        while isinstance(atom, Mystery):
            if atom in self.loaders:
                return self.loaders[atom]
            atom = atom.parent
        return None

    def _regroups(self, part: Instance | Mystery) -> bool:
        """Whether the code of a module's class may give its layers more samples, or fewer, than it is given."""
        if not isinstance(part, Instance) or part.cls is None:
            return False
        if part.cls not in self._regrouping:
            methods = [atom for cls in part.cls.ancestors() for held in cls.attributes.values() for atom in held]
            self._regrouping[part.cls] = any(
                isinstance(node, ir.Call) and _changes_first_axis(node)
                for method in methods
                if isinstance(method, Function)
                for node in ir.nodes(method.node.body)
            )
        return self._regrouping[part.cls]


def _samples(arguments: Arguments) -> int | None:
    """How many samples a loader puts together; None where that is not written out."""
    if arguments.spread or len(arguments.positional) > _POSITIONAL or any(map(arguments.get, _OWN_BATCHES)):
        return None
    is_known, size = only_constant(arguments.at(1) or arguments.get("batch_size") or UNKNOWN)
    return size if is_known and isinstance(size, int) else None


def _changes_first_axis(call: ir.Call) -> bool:
    """Whether a call may fold the axis of the samples into another, or another into it.

    ``x.view(-1, n)`` is read as what flattens each sample, which it nearly always is.
    """
    name = ir.called_name(call)
    of_library = isinstance(call.func, ir.Attr) and call.func.value == ir.Name("torch")
    given = [arg.value for arg in call.args if arg.keyword is None][of_library:]
    named = {arg.keyword: arg.value for arg in call.args}
    first = given[0] if given else None
    match name:
        case "view" | "reshape":
            return isinstance(first, ir.Binary) or (_is(first, -1) and len(given) > 2)
        case "flatten" | "squeeze" | "unsqueeze":
            axis = named.get("start_dim") or named.get("dim") or first
            return axis is None or _is(axis, 0) or "end_dim" in named
        case "cat" | "stack" | "concat":
            axis = named.get("dim") or named.get("axis") or (given[1] if len(given) > 1 else None)
            return axis is None or _is(axis, 0)
    return name in known.REGROUPING


def _is(node: ir.Expr | None, number: int) -> bool:
    return isinstance(node, ir.Const) and not isinstance(node.value, bool) and node.value == number
