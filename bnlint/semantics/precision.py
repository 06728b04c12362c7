"""In which precision modules keep their parameters and running statistics."""

from __future__ import annotations

from bnlint.finding import TraceStep
from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments, names_in
from bnlint.semantics.batches import Batches
from bnlint.semantics.values import UNKNOWN, Atom, Cast, Instance, Mystery, Part, Ref, Value
from bnlint.source.positions import Span

# No name of Python, so that nothing else can be stored under it.
_DTYPE = "its dtype"


class Precision(Batches):
    """Adds the events of ``cast_passes``. Before the first cast, which few files have, there is nothing to do."""

    _casts = False

    def new_object(self, node: object, kind: str, span: Span | None, **facts: object) -> tuple[Instance, bool]:
        instance, first = super().new_object(node, kind, span, **facts)
        if self._casts and self.state is not None:
            self.state.slots.pop((instance, _DTYPE))  # built anew
        return instance, first

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if isinstance(owner, Instance) and owner.framework == "torch":
            if name in known.CASTS or name in ("to", "type"):
                self._cast(owner, known.CASTS.get(name) or _dtype_in(arguments, name == "type"), node)
            elif name == "apply":  # to a function that may cast its parts
                self._forget_dtypes(owner)
        return super().inherited_method(owner, name, arguments, node)

    def attribute_of(self, atom: Atom, name: str, node: ir.Expr) -> Value:
        if isinstance(atom, Part) and isinstance(atom.whole, Instance) and (name in known.CASTS or name == "to"):
            self._forget_dtypes(atom.whole)
        return super().attribute_of(atom, name, node)

    def forget_modes(self, value: Value) -> None:
        super().forget_modes(value)
        for atom in value if self._casts else ():
            if isinstance(atom, Instance) and atom.framework == "torch":
                self._forget_dtypes(atom)

    def _cast(self, owner: Instance, dtype: str | None, node: ir.Call) -> None:
        """``dtype`` is empty where it may be any, None where the call leaves it as it is."""
        if dtype is None:
            return
        self._casts = True
        step = TraceStep(self.location(node.span), f"its parameters and statistics become {dtype} here")
        self._set_dtypes(owner, frozenset({Cast(dtype, step)}) if dtype else UNKNOWN)

    def _forget_dtypes(self, owner: Instance) -> None:
        self._set_dtypes(owner, UNKNOWN)

    def _set_dtypes(self, owner: Instance, dtype: Value) -> None:
        assert self.state is not None
        for part, _ in self.parts(owner)[0]:
            if dtype is not UNKNOWN or self.state.slots.get((part, _DTYPE)) is not None:
                self.state.assign(part, _DTYPE, dtype)

    def forward(self, target: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        value = super().forward(target, arguments, node)
        if not self._casts or self.state is None:
            return value
        for layer in self.mode_dependent_layers(target)[0]:
            held = self.state.slots.get((layer.instance, _DTYPE))
            if held is not None:
                on_some_paths = self.state.doubtful.get((layer.instance, _DTYPE))
                self._note_pass(target, layer.instance, held | UNKNOWN if on_some_paths else held, node)
        return value

    def _note_pass(self, target: Instance | Mystery, layer: Instance, dtype: Value, node: ir.Call) -> None:
        """A layer that has been cast is run; what several passes saw is joined."""
        _, forward = self.event(node, events.Forward, id(target))
        key, event = self.event(node, events.CastPass, id(target), id(layer))
        if isinstance(event, events.CastPass):
            event.casts |= dtype
        elif isinstance(forward, events.Forward):
            event = events.CastPass(forward, layer, dtype)
            self.remember(key, event)
            self.facts.cast_passes.append(event)


def _dtype_in(arguments: Arguments, only: bool) -> str | None:
    """The dtype in the arguments of ``to()``, or of ``type()``, which takes nothing else."""
    given = arguments.get("dtype") or arguments.get("dst_type")
    candidates = [given] if given is not None else list(arguments.positional)
    for value in candidates:
        for atom in value:
            if isinstance(atom, Ref) and atom.name in known.DTYPES:
                return known.DTYPES[atom.name] if len(value) == 1 else ""
    names = [name for node in arguments.positional_nodes for name in names_in(node)]
    told = only or given is not None or arguments.spread or any("type" in name or "precision" in name for name in names)
    return "" if told else None
