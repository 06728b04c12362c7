"""Modules in lists and dicts of Python, which do not register them."""

from __future__ import annotations

import re

from bnlint.finding import Location
from bnlint.semantics import events, ir
from bnlint.semantics.ir import nodes
from bnlint.semantics.project import Project
from bnlint.semantics.state_dicts import StateDicts
from bnlint.semantics.values import (
    NOTHING,
    Atom,
    Class,
    Instance,
    Ref,
    Tuple,
    Value,
)
from bnlint.source.parse import Source
from bnlint.source.positions import Span

#: What registers modules that it is given, as far as a name tells.
_REGISTERS = frozenset(
    {"Sequential", "ModuleList", "ModuleDict", "add_module", "register_module", "setattr", "_modules", "__dict__",
     "__setattr__", "__init__", "exec"}
)  # fmt: skip
#: What may be given a collection without keeping it, or hands it on as it is.
_LOOKS_AT = frozenset(
    {"len", "enumerate", "zip", "range", "reversed", "list", "tuple", "iter", "print", "isinstance", "sorted", "str",
     "sum", "map", "filter", "any", "all", "next", "id", "type", "repr", "hasattr", "getattr", "max", "min", "set",
     "cat", "stack", "append", "extend", "join", "chain"}
)  # fmt: skip
_INSIDES = frozenset({"_modules", "__dict__"})
#: Methods by which a class may look after modules that it hides from ``nn.Module``.
_OWN_HANDS = frozenset(
    {"modules", "named_modules", "children", "named_children", "parameters", "named_parameters", "train", "eval",
     "_apply", "to", "cuda", "cpu", "state_dict", "load_state_dict"}
)  # fmt: skip


class Containers(StateDicts):
    """Adds the event ``unregistered``."""

    classes: list[Class]

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self._put: dict[tuple[Atom, Atom], Location] = {}  # where a collection got an element
        self._assigned: dict[tuple[Atom, str], tuple[ir.Stmt | None, Location]] = {}  # where an attribute got one
        self._settled: set[tuple[Class, str]] = set()

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
                if named and statement.name != "__init__" and any(ir.called_name(call) in _REGISTERS for call in calls):
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


def _is_container(atom: Atom) -> bool:
    return isinstance(atom, Tuple) or (isinstance(atom, Instance) and atom.kind.startswith("builtins."))


def _kind_of(container: Atom) -> str:
    return container.kind.removeprefix("builtins.") if isinstance(container, Instance) else "tuple"


def _is_lone_module(statement: ir.Stmt | None, found: list[tuple[Atom, Instance]]) -> bool:
    """``self.teacher = [teacher]``: one module that is hidden on purpose."""
    value = statement.value if isinstance(statement, ir.Assign) else None
    return isinstance(value, ir.Display) and len(value.items) == 1 and isinstance(value.items[0], (ir.Name, ir.Attr))


def _hands_on(call: ir.Call, name: str) -> bool:
    """Whether a call is given the attribute and may keep what is in it."""
    called = ir.called_name(call)
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
        case ir.Call(args=args) if ir.called_name(node) in _LOOKS_AT:
            return any(_is_all_of(arg.value, name, or_elements) for arg in args)
        case ir.Call(func=ir.Attr(value=value, name=method)) if method in ("values", "items", "copy"):
            return _is_all_of(value, name, or_elements)
    return False
