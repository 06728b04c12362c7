"""How modules are put together: what ``forward`` builds, what no attribute registers, what overrides ``train()``."""

from __future__ import annotations

import re
from dataclasses import replace

from bnlint.finding import Location
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.containers import Containers
from bnlint.semantics.frames import Frame
from bnlint.semantics.ir import nodes
from bnlint.semantics.overrides import Fault, faults_of
from bnlint.semantics.passes import merge_layers
from bnlint.semantics.project import Project
from bnlint.semantics.values import (
    NOTHING,
    Atom,
    Class,
    Function,
    Instance,
    Mystery,
    Part,
    Tuple,
    Value,
    instances,
)
from bnlint.source.parse import Source
from bnlint.source.positions import Span

_CACHES = frozenset({"functools.lru_cache", "functools.cache", "functools.cached_property"})


class Structure(Containers):
    """Adds the events of ``built_in_forward``, ``unregistered`` and ``overrides``."""

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self._built_in: dict[Location, events.BuiltInForward] = {}
        self._overrides: dict[Class, list[events.ModeOverride]] = {}

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        cls = owner.cls if name == "__init__" and isinstance(owner, Instance) else None
        if cls is not None and isinstance(owner, Instance) and cls.library_bases() & known.CONTAINERS:
            self.add_elements(owner, self.children(arguments), arguments.doubtful)  # super().__init__(conv, norm)
        return super().inherited_method(owner, name, arguments, node)

    def instantiate(self, cls: Class, arguments: Arguments, node: ir.Expr) -> Value:
        value = super().instantiate(cls, arguments, node)
        if cls.location.path == self.root.source.path and self._is_module(cls):
            for instance in instances(value):
                self._note_layers_of_overrides(instance)
                self._note_unregistered(cls, instance)
        return value

    # Layers that forward() builds

    def run_body(self, frame: Frame, function: Function, receiver: Instance | None, arguments: Arguments) -> Value:
        value = super().run_body(frame, function, receiver, arguments)
        owner = function.owner if function.name in ("forward", "__call__") else None
        if receiver is not None and owner is not None and self._is_module(owner):
            self._note_built_in(function, receiver)
        return value

    def _is_module(self, cls: Class) -> bool:
        return self.framework_of_bases(cls.library_bases()) == "torch"

    def _note_built_in(self, function: Function, receiver: Instance) -> None:
        """The layers that a run of ``forward`` built and applied."""
        kept: set[Atom] | None = None
        for built in self.facts.layers:
            layer, where = built.instance, built.where
            if function.name not in where.functions or function.owner not in where.classes:
                continue
            if layer.framework != "torch" or where.functions[0] == "__init__":
                continue
            forward = self._application_of(layer, function)
            if forward is None or function.owner is None or self._is_cached(where):
                continue
            if any(function.name in backward.where.functions for backward in self.facts.backwards):
                continue  # what is built there is trained there
            at, what = _construction(built, function.name)
            event = self._built_in.get(at)
            if event is None:
                conditions = self._conditions(at, where)
                event = events.BuiltInForward(at, what, [], forward, function.owner, function.name, conditions)
                self._built_in[at] = event
                self.facts.built_in_forward.append(event)
            if layer not in event.layers:
                event.layers.append(layer)
            kept = self._reachable_from(receiver) if kept is None else kept
            event.kept |= layer in kept

    def _application_of(self, layer: Instance, function: Function) -> events.Forward | None:
        """The call in a run of ``forward`` that runs the layer, alone or in what it was built into."""
        for call in self.facts.forwards:
            if layer in call.parts and function.name in call.where.functions and not call.is_self:
                return call
        return None

    def _is_cached(self, where: events.Surroundings) -> bool:
        """Whether one of the running functions keeps what it returns."""
        values = [cls.attributes.get(name, NOTHING) for cls in where.classes for name in where.functions]
        values += [self._global(name) or NOTHING for name in where.functions]
        return any(isinstance(atom, Function) and atom.decorators & _CACHES for value in values for atom in value)

    def _reachable_from(self, whole: Instance) -> set[Atom]:
        found: set[Atom] = set()
        stack: list[Atom] = [whole]
        while stack:
            atom = stack.pop()
            if atom in found:
                continue
            found.add(atom)
            self.spend(0.2)
            if isinstance(atom, Tuple):
                stack += [inner for item in atom.items for inner in item]
            elif isinstance(atom, (Instance, Mystery)):
                more = atom.unknown_attributes if isinstance(atom, Instance) else atom.children
                stack += [*more.values(), *(inner for _, value in self.field_values(atom) for inner in value)]
        return found

    def _conditions(self, at: Location, where: events.Surroundings) -> frozenset[str] | None:
        """The names in the tests that decide whether what stands at ``at`` is run; None without any test."""
        places = [at, *(call.location for call in where.calls)]
        tests: list[object] = []
        for cls in where.classes:
            for value in cls.attributes.values():
                for atom in value:
                    if isinstance(atom, Function) and atom.name in where.functions:
                        tests += [test for place in places for test in decisions(atom.node.body, place)[1]]
        names = (name for test in tests for node in nodes(test) for name in _own_names(node))
        return frozenset(names) if tests else None

    # Modes

    def set_flag(self, module: Instance | Mystery, value: Value, target: ir.Attr, part: Part | None = None) -> None:
        _, event = self.event(target, events.FlagSet)
        layers = self.mode_dependent_layers(module)[0]
        super().set_flag(module, value, target, part)
        if part is not None:
            functions = self.surroundings().functions
            self.facts.flags_of_parts.update((layer.instance, functions) for layer in layers)
        if isinstance(event, events.FlagSet):
            event.layers = merge_layers(event.layers, layers)
        elif part is None and isinstance(self.statement, ir.Assign) and self.statement.targets == (target,):
            self.facts.flags_set[-1].statement = self.location(None)

    def _record_mode_call(self, owner: Instance | Mystery, name: str, wanted: bool | None, node: ir.Call) -> None:
        known_calls = len(self.facts.mode_calls)
        super()._record_mode_call(owner, name, wanted, node)
        for call in self.facts.mode_calls[known_calls:]:
            call.owns_unknown = self.mode_dependent_layers(owner)[1]

    # Overrides

    def note_overrides(self, cls: Class) -> None:
        """Called once for each class: what it overrides is told by its definition alone."""
        if cls.location.path == self.root.source.path and self._is_module(cls):
            self._overrides[cls] = [self._override(cls, fault) for fault in faults_of(cls)]
            self.facts.overrides += self._overrides[cls]

    def _note_layers_of_overrides(self, instance: Instance) -> None:
        assert instance.cls is not None
        for cls in instance.cls.ancestors():
            for event in self._overrides.get(cls, ()):
                found, unknown = self.mode_dependent_layers(instance)
                layers = [layer for layer in found if layer.instance is not instance]
                event.layers = merge_layers(event.layers, layers) if event.layers else layers
                event.owns_unknown |= unknown

    def _override(self, cls: Class, fault: Fault) -> events.ModeOverride:
        lines = self.root.source.lines
        at = self.location(fault.span)
        header = lines[fault.span.line - 1][fault.span.column - 1 :] if fault.kind != "shadowed" else ""
        match = re.match(r"(?:async\s+)?def\s+\w+", header)
        if match is not None:
            at = self.location(Span(at.line, at.column, at.line, at.column + match.end()))
        self_only = re.match(r"def\s+\w+\s*\(\s*\w+\s*(?=\))", header)
        parameter = at.column + self_only.end() if self_only is not None else 0
        last = fault.last
        on_next_line = last is not None and last.line > fault.span.line and last.end_line < len(lines)
        return events.ModeOverride(
            location=at,
            cls=cls,
            method=fault.method,
            fault=fault.kind,
            loop=fault.loop,
            sure=fault.sure,
            mode=fault.mode,
            parameter=self.location(Span(at.line, parameter, at.line, parameter)) if self_only else None,
            parent_call=self._edge_at(fault.parent_call) if fault.parent_call is not None else None,
            end=replace(self.location(last), line=last.end_line + 1, column=1) if last and on_next_line else None,
            indent=last.column - 1 if last is not None else 0,
            falls_off=fault.falls_off,
            returns=fault.returns,
        )

    def _edge_at(self, span: Span) -> Location:
        return self.location(Span(span.end_line, span.end_column - 1, span.end_line, span.end_column - 1))


def _construction(built: events.LayerBuilt, forward: str) -> tuple[Location, str]:
    """Where ``forward`` builds the layer, or the object of a class in the file that it is a part of, and of what kind
    that is."""
    where = built.where
    inside = where.functions[where.functions.index(forward) :]
    if "__init__" in inside:
        position = len(where.functions) - len(inside) + inside.index("__init__")
        step = position - (len(where.functions) - len(where.calls))
        owners = [cls for cls in where.classes if "__init__" in cls.attributes]
        return where.calls[step].location, owners[0].name if owners else "this module"
    return built.location, LAYERS[built.instance.kind].short_name


def decisions(tree: object, place: Location) -> tuple[bool, list[object]]:
    """Whether the call is in a tree, and the tests on the way to it."""
    if isinstance(tree, ir.Call) and tree.span is not None and tree.span == _span_of(place):
        return True, []
    if isinstance(tree, tuple) and not isinstance(tree, Span):
        leaving: list[object] = []
        for item in tree:
            there, tests = decisions(item, place)
            if there:
                return True, leaving + tests
            if isinstance(item, ir.If) and any(isinstance(node, (ir.Return, ir.Raise)) for node in nodes(item)):
                leaving.append(item.test)
        return False, []
    if not isinstance(tree, (ir.Expr, ir.Stmt, ir.Arg, ir.Param)):
        return False, []
    own: list[object] = []
    if isinstance(tree, (ir.If, ir.IfElse, ir.While)):
        own = [tree.test]
    elif isinstance(tree, ir.Boolean):
        own = [tree.left]
    elif isinstance(tree, ir.Try):
        own = [ir.Name("try")]
    elif isinstance(tree, ir.Choice):
        own = [tree.subject]
    for name in tree.__match_args__:
        there, tests = decisions(getattr(tree, name), place)
        if there:
            is_decided = name in ("body", "orelse", "right", "handlers", "branches")
            return True, (own if is_decided else []) + tests
    return False, []


def _span_of(place: Location) -> Span:
    return Span(place.line, place.column, place.end_line, place.end_column)


def _own_names(node: object) -> list[str]:
    if isinstance(node, ir.Name):
        return [node.id]
    if isinstance(node, ir.Attr):
        return [node.name]
    return [node.value] if isinstance(node, ir.Const) and isinstance(node.value, str) else []
