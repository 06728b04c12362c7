"""What becomes of modules and their parameters: they are exported, averaged, saved and loaded."""

from __future__ import annotations

from bnlint.frameworks import functions as known
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.libraries import Libraries
from bnlint.semantics.passes import merge_layers
from bnlint.semantics.state import Mode
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Instance,
    Method,
    Mystery,
    Value,
    VariableMethod,
    Variables,
)

_OF_VARIABLES = known.AVERAGING_METHODS | known.SETTING_METHODS | known.SAME_PARAMETERS
# Attributes that tell of running statistics, or of how an average is taken, whatever they belong to.
_NOTED = frozenset({"running_mean", "running_var", "avg_fn", "multi_avg_fn"})


class Lifecycle(Libraries):
    """Adds the events of ``exports``, ``averages``, ``averaged_models`` and ``state_uses``; what is computed stays
    as the layers below have it."""

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        first = arguments.at(0) or NOTHING
        if name in known.EXPORTERS or name in known.PROFILERS:
            self._export(name, arguments, node)
        elif name in known.AVERAGED_MODELS:
            return self._average_model(name, arguments, node)
        elif name in known.AVERAGING_FUNCTIONS:
            for target in _variables(first | self.elements(first)):
                self._average(target, arguments.at(1) or NOTHING, averages=True, node=node)
        elif name == "torch.save":
            for atom in first | self.elements(first):
                if isinstance(atom, Variables):
                    self._state_use(atom.owner, "saved", node)
                elif (module := _module_of(atom)) is not None:
                    self._state_use(module, "saved", node)
        elif name == "torch.jit.script" and any(isinstance(atom, Instance) for atom in first):
            return self.deep_copy(arguments, node)  # it keeps both modes, and goes its own way from there
        elif name in ("builtins.dict", "collections.OrderedDict") and (held := _variables(first)):
            mappings: Value = frozenset(Variables(atom.owner, _plain(atom.names)) for atom in held)
            return mappings | (UNKNOWN if len(held) < len(first) else NOTHING)
        return super().call_library(name, arguments, node)

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in ("buffers", "named_buffers"):
            self.facts.buffers_read.add(owner)
        elif name == "load_state_dict":
            self._state_use(owner, "loaded", node)
        return super().inherited_method(owner, name, arguments, node)

    def attribute_of(self, atom: Atom, name: str, node: ir.Expr) -> Value:
        if isinstance(atom, Variables) and name in _OF_VARIABLES:
            return frozenset({VariableMethod(atom, name)})
        if name in _NOTED:
            self.facts.named.add(name)
        return super().attribute_of(atom, name, node)

    def set_mode(self, whole: Instance | Mystery, mode: Mode, kinds: frozenset[str] = frozenset()) -> None:
        super().set_mode(whole, mode, kinds)
        if kinds:
            return
        for part, _ in self.parts(whole)[0]:
            if mode.eval is not None:
                self.facts.put_in_eval.setdefault(part, mode.eval.step)
            if not mode.surely_eval:
                self.facts.put_in_train.add(part)

    # Exports

    def _export(self, name: str, arguments: Arguments, node: ir.Call) -> None:
        """Record what a module is exported as; ``model.forward`` stands for its module."""
        assert self.state is not None
        given = list(zip(arguments.positional, arguments.positional_nodes, strict=False))
        given = given[: 2 if name.endswith("_bn_eval") else 1]
        nodes = dict(arguments.keyword_nodes)
        given += [
            (value, nodes.get(keyword, ir.Opaque()))
            for keyword, value in arguments.keywords
            if keyword in ("func", "mod", "model", "module")
        ]
        for value, argument in given:
            targets = {target for atom in value if (target := _module_of(atom)) is not None}
            for target in sorted(targets, key=lambda target: (target.location, target.serial)):
                self._export_module(target, len(value) == 1, name, argument, arguments, node)

    def _export_module(
        self,
        target: Instance | Mystery,
        alone: bool,
        name: str,
        argument: ir.Expr,
        arguments: Arguments,
        node: ir.Call,
    ) -> None:
        assert self.state is not None
        layers, owns_unknown = self.mode_dependent_layers(target)
        mode = self.state.mode_of(target)
        key, event = self.event(node, events.Exported, id(target))
        if isinstance(event, events.Exported):
            event.mode = event.mode.join(mode)
            event.layers = merge_layers(event.layers, layers)
            return
        receiver = ir.dotted(argument)
        event = events.Exported(
            location=self.location(node.span),
            function=name,
            how=known.EXPORTERS.get(name, "profile"),
            receiver=receiver.removesuffix(".forward") if receiver else None,
            target=target,
            mode=mode,
            layers=layers,
            owns_unknown=owns_unknown,
            alone=alone,
            arguments=dict(arguments.keywords),
            where=self.surroundings(),
            statement=self.location(self.statement.span if self.statement else None),
            block=self.location(self.block) if self.block else None,
        )
        self.remember(key, event)
        self.facts.exports.append(event)

    # Averages

    def call_variable_method(self, variables: Variables, name: str, arguments: Arguments, node: ir.Call) -> Value:
        """A method of a module's parameters, or of a mapping that holds them."""
        averages = name in known.AVERAGING_METHODS
        if averages or name in known.SETTING_METHODS:
            given = frozenset(atom for arg in node.args for atom in self._variables_in(arg.value))
            keeps = any(atom.owner is variables.owner for atom in given)
            self._average(variables, given, averages or keeps, node)
        plain = _plain(variables.names)
        if name == "items":
            return frozenset({Variables(variables.owner, f"named_{plain}")})
        return frozenset({Variables(variables.owner, plain) if name in ("keys", "values") else variables})

    def _assign_attribute(self, atom: Atom, target: ir.Attr, value: Value, strong: bool) -> None:
        statement = self.statement
        if isinstance(atom, Variables) and target.name == "data" and isinstance(statement, (ir.Assign, ir.AugAssign)):
            given = self._variables_in(statement.value)
            keeps = isinstance(statement, ir.AugAssign) or any(other.owner is atom.owner for other in given)
            self._average(atom, given, keeps, target)
        elif target.name in _NOTED:
            self.facts.named.add(target.name)
        super()._assign_attribute(atom, target, value, strong)

    def _average(self, target: Variables, given: Value, averages: bool, node: ir.Call | ir.Attr) -> None:
        """Parameters are set in place to something computed from ``given``."""
        for source in _variables(given | self.elements(given)):
            if source.owner is target.owner:
                continue
            key, event = self.event(node, events.Averaged, id(target.owner), id(source.owner))
            layers, owns_unknown = self.mode_dependent_layers(target.owner)
            if isinstance(event, events.Averaged):
                event.layers = merge_layers(event.layers, layers)
                continue
            event = events.Averaged(
                self.location(node.span),
                target.owner,
                source.owner,
                _plain(source.names),
                averages,
                layers,
                owns_unknown,
                self.surroundings(),
            )
            self.remember(key, event)
            self.facts.averages.append(event)

    def _variables_in(self, node: ir.Expr) -> frozenset[Variables]:
        """The parameters of modules that an expression names."""
        match node:
            case ir.Name(id=name):
                return frozenset(_variables(self.lookup(name) or NOTHING))
            case ir.Attr(value=value) | ir.Subscript(value=value):
                inner = self._variables_in(value)
                return inner or (frozenset(_variables(self.evaluate(node))) if ir.dotted(value) else inner)
            case ir.Call(func=ir.Attr(name=name)) if name in known.TORCH_PARAMETERS:
                return frozenset(_variables(self.evaluate(node)))
            case ir.Call(func=func, args=args):
                parts = [func, *(arg.value for arg in args)]
            case ir.Binary(left=left, right=right):
                parts = [left, right]
            case ir.Unary(operand=operand):
                parts = [operand]
            case ir.Display(items=items):
                parts = list(items)
            case ir.Opaque(parts=inside):
                parts = list(inside)
            case _:
                parts = []
        return frozenset(atom for part in parts for atom in self._variables_in(part))

    def _average_model(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        """The wrapper holds a copy of the model, which keeps its mode, and is new itself."""
        wrapper, _ = self.new_object(node, name, node.span, framework="torch")
        model = arguments.at(0) or arguments.get("model") or UNKNOWN
        self.set_field(wrapper, "module", self.deep_copy(Arguments((model,)), node))
        key, event = self.event(node, events.AveragedModel)
        layers = self.mode_dependent_layers(wrapper)[0]
        if isinstance(event, events.AveragedModel):
            event.layers = merge_layers(event.layers, layers)
        else:
            parts = frozenset(part for part, _ in self.parts(wrapper)[0])
            event = events.AveragedModel(
                self.location(node.span), wrapper, parts, layers, dict(arguments.keywords), self.surroundings()
            )
            self.remember(key, event)
            self.facts.averaged_models.append(event)
        return frozenset({wrapper})

    # State

    def _state_use(self, target: Instance | Mystery, name: str, node: ir.Call) -> None:
        key, event = self.event(node, events.StateUse, id(target))
        if event is None:
            event = events.StateUse(self.location(node.span), target, name, self.surroundings())
            self.remember(key, event)
            self.facts.state_uses.append(event)


def _module_of(atom: Atom) -> Instance | Mystery | None:
    """The module that an argument is, or whose ``forward`` it is."""
    if isinstance(atom, BoundFunction):
        atom = atom.receiver
    elif isinstance(atom, Method) and atom.name in ("forward", "__call__"):
        atom = atom.owner
    if isinstance(atom, Mystery):
        return atom
    return atom if isinstance(atom, Instance) and atom.framework == "torch" else None


def _variables(value: Value) -> list[Variables]:
    found = [atom for atom in value if isinstance(atom, Variables)]
    return sorted(found, key=lambda atom: (atom.owner.location, atom.owner.serial, atom.names))


def _plain(names: str) -> str:
    return names.removeprefix("named_")
