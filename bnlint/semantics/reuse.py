"""Layers that one ``forward`` runs at two places."""

from __future__ import annotations

from itertools import pairwise

from bnlint.finding import Location
from bnlint.frameworks.functions import WEIGHTED
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.checkpoints import Checkpoints
from bnlint.semantics.frames import Frame
from bnlint.semantics.structure import decisions
from bnlint.semantics.values import Atom, Class, Function, Instance, Value


class Reuse(Checkpoints):
    """Adds the events of ``applied_twice``."""

    def run_body(self, frame: Frame, function: Function, receiver: Instance | None, arguments: Arguments) -> Value:
        value = super().run_body(frame, function, receiver, arguments)
        owner = function.owner if function.name == "forward" else None
        if receiver is not None and owner is not None and receiver.framework == "torch":
            self._note_applied_twice(function, owner)
        return value

    def _note_applied_twice(self, function: Function, owner: Class) -> None:
        applied: dict[Atom, dict[Location, events.Forward]] = {}
        for forward in self.facts.forwards:
            if forward.where.functions[-1:] == ("forward",) and forward.where.classes[-1:] == (owner,):
                applied.setdefault(forward.target, {}).setdefault(forward.location, forward)
        for layer, at in applied.items():
            if not isinstance(layer, Instance) or layer.kind not in LAYERS or layer.framework != "torch":
                continue
            always = [
                call for call in sorted(at.values(), key=lambda call: call.location) if _is_always(call, function)
            ]
            for first, second in pairwise(always):
                made, remade = _makers(first), _makers(second)
                if made and remade and not made & remade and all(len(applied.get(one, ())) == 1 for one in made):
                    self._note_pair(events.AppliedTwice(first, second, layer, owner))

    def _note_pair(self, event: events.AppliedTwice) -> None:
        if not any(other.second is event.second for other in self.facts.applied_twice):
            self.facts.applied_twice.append(event)


def _is_always(call: events.Forward, function: Function) -> bool:
    """Whether each run of the function comes to this call, and once."""
    there, tests = decisions(function.node.body, call.location)
    span = function.node.span
    inside = [loop for loop in call.where.loops if span and span.line <= loop.location.line <= span.end_line]
    return there and not tests and not inside and not call.comprehended


def _makers(call: events.Forward) -> frozenset[Atom]:
    """The modules with weights that computed what this call is given, activations and the like aside."""
    found: set[Atom] = set()
    seen = {call}
    stack = list(call.inputs)
    while stack:
        origin = stack.pop()
        if origin in seen:
            continue
        seen.add(origin)
        target = origin.target
        plain = isinstance(target, Instance) and target.cls is None and not WEIGHTED.match(target.kind)
        if plain:
            stack += origin.inputs
        else:
            found.add(target)
    return frozenset(found)
