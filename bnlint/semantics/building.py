"""Layers that depend on the mode, as the call that builds them has them."""

from __future__ import annotations

from bnlint.frameworks.layers import LAYERS, LayerFacts
from bnlint.frameworks.others import other_layer
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.graphs import Graphs
from bnlint.semantics.values import NOTHING, Class, Instance, Mystery, Tensor, Value


class Building(Graphs):
    """Adds ``build_layer``."""

    def note_other_layer(self, name: str, arguments: Arguments, node: ir.Call) -> None:
        """A layer of another framework: its arguments are known, but nothing follows what is done with it."""
        facts = other_layer(name)
        assert facts is not None
        layer, first = self.new_object(node, facts.name, node.span)
        self._bind_layer(layer, facts, arguments, first)
        if first:
            self.facts.other_layers.append(self._built(layer, node))

    def _built(self, layer: Instance, node: ir.Call) -> events.LayerBuilt:
        return events.LayerBuilt(self.location(node.span), layer, node, self.surroundings())

    def build_layer(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        facts = LAYERS[name]
        layer, first = self.new_object(node, name, node.span, framework=facts.framework)
        self._bind_layer(layer, facts, arguments, first)
        if first:
            built = self._built(layer, node)
            if facts.mode:
                built.flag, built.tested = self.mode_parameter(name), self.is_chosen_by_mode()
            self.facts.layers.append(built)
        if name.startswith("tf1."):  # one call builds the layer and applies it
            return frozenset({Tensor("symbolic", through=frozenset({layer}))})
        return frozenset({layer})

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name == "__init__" and isinstance(owner, Instance) and owner.cls is not None and owner.kind in LAYERS:
            self._initialise_layer(owner, owner.cls, arguments, node)
        return super().inherited_method(owner, name, arguments, node)

    def _initialise_layer(self, owner: Instance, cls: Class, arguments: Arguments, node: ir.Call) -> None:
        """``super().__init__(64, momentum=0.1)`` in a class of the project that is derived from a layer."""
        if not cls.library_bases() & {owner.kind} or cls.has_unknown_base:
            return
        key, event = self.event(node, events.LayerBuilt, id(owner))
        self._bind_layer(owner, LAYERS[owner.kind], arguments, event is None)
        # What its own forward() makes of the arguments is its affair.
        own = any(method in ancestor.attributes for ancestor in cls.ancestors() for method in ("forward", "call"))
        if event is None and not own:
            event = self._built(owner, node)
            self.remember(key, event)
            self.facts.layers.append(event)

    @staticmethod
    def _bind_layer(layer: Instance, facts: LayerFacts, arguments: Arguments, first: bool) -> None:
        for parameter, value in arguments.bound(facts.parameters).items():
            previous = layer.arguments.get(parameter)
            default = frozenset() if first else previous or NOTHING
            layer.arguments[parameter] = value | default
        layer.positional = frozenset(facts.parameters[: len(arguments.positional)])
        layer.argument_nodes = arguments.bound_nodes(facts.parameters)
