"""How modules are put together: what ``forward`` builds, what no attribute registers, what overrides ``train()``."""

from __future__ import annotations

import re
from dataclasses import replace

from bnlint.finding import Location
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.frames import Frame
from bnlint.semantics.lifecycle import Lifecycle
from bnlint.semantics.objects import merge_layers
from bnlint.semantics.overrides import Fault, faults_of, nodes
from bnlint.semantics.project import Project
from bnlint.semantics.values import (
    NOTHING,
    Atom,
    Class,
    Function,
    Instance,
    Mystery,
    Part,
    Ref,
    Tuple,
    Value,
    instances,
)
from bnlint.source.parse import Source
from bnlint.source.positions import Span

#: What registers modules that it is given, as far as a name tells.
_REGISTERS = frozenset(
    {"Sequential", "ModuleList", "ModuleDict", "add_module", "register_module", "setattr", "_modules", "__dict__",
     "__setattr__", "__init__"}
)  # fmt: skip
#: What may be given a collection without keeping it, or hands it on as it is.
_LOOKS_AT = frozenset(
    {"len", "enumerate", "zip", "range", "reversed", "list", "tuple", "iter", "print", "isinstance", "sorted", "str",
     "sum", "map", "filter", "any", "all", "next", "id", "type", "repr", "hasattr", "getattr", "max", "min", "set",
     "cat", "stack", "append", "extend", "join", "chain"}
)  # fmt: skip
_INSIDES = frozenset({"_modules", "__dict__"})
_CACHES = frozenset({"functools.lru_cache", "functools.cache", "functools.cached_property"})
#: Methods by which a class may look after modules that it hides from ``nn.Module``.
_OWN_HANDS = frozenset(
    {"modules", "named_modules", "children", "named_children", "parameters", "named_parameters", "train", "eval",
     "_apply", "to", "cuda", "cpu", "state_dict", "load_state_dict"}
)  # fmt: skip


class Structure(Lifecycle):
    """Adds the events of ``built_in_forward``, ``unregistered`` and ``overrides``."""

    classes: list[Class]

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self._built_in: dict[Location, events.BuiltInForward] = {}
        self._put: dict[tuple[Atom, Atom], Location] = {}  # where a collection got an element
        self._assigned: dict[tuple[Atom, str], tuple[ir.Stmt | None, Location]] = {}  # where an attribute got one
        self._settled: set[tuple[Class, str]] = set()
        self._overrides: dict[Class, list[events.ModeOverride]] = {}

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        cls = owner.cls if name == "__init__" and isinstance(owner, Instance) else None
        if cls is not None and isinstance(owner, Instance) and cls.library_bases() & known.TORCH_CONTAINERS:
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
                        tests += [test for place in places for test in _decisions(atom.node.body, place)[1]]
        names = (name for test in tests for node in nodes(test) for name in _own_names(node))
        return frozenset(names) if tests else None

    # Modules in plain containers

    def set_field(self, owner: Atom, name: str, value: Value) -> None:
        super().set_field(owner, name, value)
        if isinstance(owner, Instance):
            if owner.framework is None and owner.cls is None:
                self._note_elements(owner, value)
            elif owner.framework == "torch" and any(_is_container(atom) for atom in value):
                self._assigned[owner, name] = (self.statement, self.location(None))

    def add_elements(self, owner: Instance, value: Value, doubtful: Value = NOTHING) -> None:
        super().add_elements(owner, value, doubtful)
        if owner.framework is None and owner.cls is None:
            self._note_elements(owner, value)

    def _note_elements(self, owner: Instance, value: Value) -> None:
        for atom in value:
            if isinstance(atom, Instance) and (owner, atom) not in self._put:
                self._put[owner, atom] = self.location(None)

    def _note_unregistered(self, cls: Class, instance: Instance) -> None:
        """The collections of modules among an object's attributes that nothing registers."""
        for name, value in list(self.field_values(instance)):
            place = self._assigned.get((instance, name))
            if place is None or not all(_is_container(atom) for atom in value) or (cls, name) in self._settled:
                continue
            found, others = self._modules_in(value)
            registered = {part for part, _ in self.parts(instance)[0]}
            frozen = {freeze.owner for freeze in self.facts.freezes}
            hidden = [
                (holder, module)
                for holder, module in found
                if module not in registered and module not in frozen and not self._is_in_eval_mode(module)
            ]
            layers = [
                layer
                for _, module in hidden
                for layer in self.mode_dependent_layers(module)[0]
                if layer.instance not in registered
            ]
            if not layers or len({module for _, module in hidden}) < len({module for _, module in found}):
                continue
            self._settled.add((cls, name))
            statement, at = place
            if _is_lone_module(statement, found) or self._is_handed_on(cls, name):
                continue
            self._report_unregistered(cls, name, value, hidden, layers, statement, at, others)

    def _report_unregistered(
        self,
        cls: Class,
        name: str,
        value: Value,
        hidden: list[tuple[Atom, Instance]],
        layers: list[events.Layer],
        statement: ir.Stmt | None,
        at: Location,
        others: bool,
    ) -> None:
        display = isinstance(statement, ir.Assign) and isinstance(
            statement.value, (ir.Display, ir.DictDisplay, ir.Comprehension)
        )
        mine = {layer.instance for layer in layers}
        if display:
            puts = [
                self._put[holder, module]
                for holder, module in hidden
                if (holder, module) in self._put and mine & {part for part, _ in self.parts(module)[0]}
            ]
            at = min((put for put in puts if put.path == at.path), default=at)
        if at.path != self.root.source.path:
            return
        (container, *_) = sorted({_kind_of(atom) for atom in value})
        self.facts.unregistered.append(
            events.Unregistered(
                at,
                name,
                container,
                cls,
                list({layer.instance: layer for layer in layers}.values()),
                self._display_of(statement) if display and container in ("list", "tuple") and not others else None,
                self._name_of("ModuleList"),
            )
        )

    def _modules_in(self, value: Value) -> tuple[list[tuple[Atom, Instance]], bool]:
        """The modules in collections, each with what directly holds it; and whether there is anything else."""
        found: list[tuple[Atom, Instance]] = []
        others = False
        stack, seen = [(atom, inner) for atom in value for inner in self._inside(atom)], set()
        while stack:
            holder, atom = stack.pop()
            if (holder, atom) in seen:
                continue
            seen.add((holder, atom))
            if isinstance(atom, Instance) and atom.framework == "torch":
                found.append((holder, atom))
            else:
                others = True
                if _is_container(atom):
                    stack += [(atom, inner) for inner in self._inside(atom)]
        return sorted(found, key=lambda pair: pair[1].location), others

    def _inside(self, collection: Atom) -> Value:
        return self.elements(frozenset({collection}))

    def _is_in_eval_mode(self, module: Instance) -> bool:
        assert self.state is not None
        return self.state.mode_of(module).surely_eval

    def _is_handed_on(self, cls: Class, name: str) -> bool:
        """Whether the class, or one derived from it, gives this attribute to something that may register what is in
        it, or looks after it by itself."""
        registers = "|".join(sorted(_REGISTERS - {"_modules", "__dict__", "__init__"}))
        if re.search(rf"\b(?:{registers})\([^\n]*\.{name}\b", self.root.source.text):
            return True
        family = [one for one in self.classes if cls in one.ancestors() or one in cls.ancestors()]
        for one in family:
            if "__setattr__" in one.attributes or "__getattr__" in one.attributes:
                return True
            for statement in one.node.body:
                if not isinstance(statement, ir.FunctionDef):
                    continue
                named = [node for node in nodes(statement) if isinstance(node, ir.Attr) and node.name == name]
                if any(isinstance(node, ir.Attr) and node.name in _INSIDES for node in nodes(statement)):
                    return True
                if named and statement.name in _OWN_HANDS:
                    return True
                calls = [node for node in nodes(statement) if isinstance(node, ir.Call)]
                if named and statement.name != "__init__" and any(_called(call) in _REGISTERS for call in calls):
                    return True
                if any(_hands_on(call, name) for call in calls):
                    return True
        return False

    def _display_of(self, statement: ir.Stmt | None) -> Location | None:
        """Where a list, or a tuple in parentheses, stands that is the whole value of an assignment."""
        if not isinstance(statement, ir.Assign) or statement.span is None or len(statement.targets) != 1:
            return None
        target, lines = statement.targets[0], self.root.source.lines
        if not isinstance(target, ir.Attr) or target.span is None or statement.span.end_line > len(lines):
            return None
        span = statement.span
        match = re.match(r"\s*=\s*(?=[\[(])", lines[target.span.end_line - 1][target.span.end_column - 1 :])
        closing = lines[span.end_line - 1][span.end_column - 2 : span.end_column - 1]
        if match is None or closing not in ("]", ")"):
            return None
        begin = target.span.end_column + match.end()
        return self.location(Span(target.span.end_line, begin, span.end_line, span.end_column))

    def _name_of(self, container: str) -> str | None:
        """How the file can write ``nn.ModuleList``."""
        for local, full in (("nn", "torch.nn"), ("torch", "torch")):
            if self._global(local) == frozenset({Ref(full)}):
                return f"nn.{container}" if local == "nn" else f"torch.nn.{container}"
        return container if self._global(container) == frozenset({Ref(f"torch.nn.{container}")}) else None

    def _global(self, name: str) -> Value | None:
        assert self.state is not None
        return self.state.slots.get((self.root.frame, name)) or self.demand(self.root, name)

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


def _decisions(tree: object, place: Location) -> tuple[bool, list[object]]:
    """Whether the call is in a tree, and the tests on the way to it."""
    if isinstance(tree, ir.Call) and tree.span is not None and tree.span == _span_of(place):
        return True, []
    if isinstance(tree, tuple) and not isinstance(tree, Span):
        leaving: list[object] = []
        for item in tree:
            there, tests = _decisions(item, place)
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
        there, tests = _decisions(getattr(tree, name), place)
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


def _is_container(atom: Atom) -> bool:
    return isinstance(atom, Tuple) or (isinstance(atom, Instance) and atom.kind.startswith("builtins."))


def _kind_of(container: Atom) -> str:
    return container.kind.removeprefix("builtins.") if isinstance(container, Instance) else "tuple"


def _is_lone_module(statement: ir.Stmt | None, found: list[tuple[Atom, Instance]]) -> bool:
    """``self.teacher = [teacher]``: one module that is hidden on purpose."""
    value = statement.value if isinstance(statement, ir.Assign) else None
    return isinstance(value, ir.Display) and len(value.items) == 1 and isinstance(value.items[0], (ir.Name, ir.Attr))


def _called(call: ir.Call) -> str:
    """The last name of what is called."""
    func = call.func
    return func.name if isinstance(func, ir.Attr) else func.id if isinstance(func, ir.Name) else ""


def _hands_on(call: ir.Call, name: str) -> bool:
    """Whether a call is given the attribute and may keep what is in it."""
    called = _called(call)
    if called in _LOOKS_AT:
        return False
    return any(_is_all_of(arg.value, name, called in _REGISTERS) for arg in call.args)


def _is_all_of(node: ir.Expr, name: str, or_elements: bool) -> bool:
    """Whether an expression is the collection ``self.name``, or made of its elements."""
    match node:
        case ir.Attr():
            return node.name == name and isinstance(node.value, ir.Name)
        case ir.Subscript(value=value):
            return or_elements and _is_all_of(value, name, or_elements)
        case ir.Binary(left=left, right=right):
            return _is_all_of(left, name, or_elements) or _is_all_of(right, name, or_elements)
        case ir.Display(items=items):
            return any(_is_all_of(item, name, or_elements) for item in items)
        case ir.Comprehension(element=element, clauses=clauses):
            of_it = any(_is_all_of(iterable, name, or_elements) for _, iterable, _ in clauses)
            return of_it and (or_elements or isinstance(element, (ir.Name, ir.Display)))
        case ir.Call(args=args) if _called(node) in _LOOKS_AT:
            return any(_is_all_of(arg.value, name, or_elements) for arg in args)
        case ir.Call(func=ir.Attr(value=value, name=method)) if method in ("values", "items", "copy"):
            return _is_all_of(value, name, or_elements)
    return False
