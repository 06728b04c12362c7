"""Activation checkpointing: what is run in the forward pass, and once more in the backward pass."""

from __future__ import annotations

from dataclasses import replace

from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.functional import Functional
from bnlint.semantics.values import UNKNOWN, Value, only_constant


class Checkpoints(Functional):
    """Adds the events of ``checkpointed``: what is handed to the library's function is run there and then."""

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name == known.CHECKPOINT:
            return self._checkpoint(arguments.at(0) or arguments.get("function"), _own(arguments, 1), node)
        if name == known.CHECKPOINT_SEQUENTIAL:
            if only_constant(arguments.at(1) or arguments.get("segments") or UNKNOWN) == (True, 1):
                return super().call_library(name, arguments, node)  # the last segment is run as ever
            return self._checkpoint(arguments.at(0) or arguments.get("functions"), _own(arguments, 2), node, True)
        return super().call_library(name, arguments, node)

    def _checkpoint(
        self, function: Value | None, arguments: Arguments, node: ir.Call, in_segments: bool = False
    ) -> Value:
        earlier = len(self.facts.forwards)
        value = self.call_value(function or UNKNOWN, arguments, node)
        inner = self.facts.forwards[earlier:]
        key, event = self.event(node, events.Checkpointed)
        if isinstance(event, events.Checkpointed):
            event.forwards += inner
        else:
            what = ir.dotted(node.args[0].value) if node.args else None
            event = events.Checkpointed(self.location(node.span), what, list(inner), in_segments, self.surroundings())
            self.remember(key, event)
            self.facts.checkpointed.append(event)
        return value


def _own(arguments: Arguments, first: int) -> Arguments:
    """The arguments of the function that is handed over: those from the ``first`` on."""
    return replace(
        arguments,
        positional=arguments.positional[first:],
        positional_nodes=arguments.positional_nodes[first:],
        keywords=tuple(pair for pair in arguments.keywords if pair[0] not in known.CHECKPOINT_ARGUMENTS),
    )
