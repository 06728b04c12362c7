"""Statements: the abstract interpreter proper."""

from __future__ import annotations

import re

from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import canonical
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import NONE_GIVEN, names_in
from bnlint.semantics.control import Control
from bnlint.semantics.frames import Frame
from bnlint.semantics.project import Project
from bnlint.semantics.state import State
from bnlint.semantics.values import (
    UNKNOWN,
    Class,
    Function,
    Instance,
    Ref,
    Value,
    as_default,
    constant,
    instances,
    join,
)
from bnlint.source.parse import Source


class Interpreter(Control):
    def __init__(self, source: Source, project: Project | None = None) -> None:
        super().__init__(source, project)
        self.classes: list[Class] = []

    def run_block(self, body: tuple[ir.Stmt, ...]) -> None:
        for statement in body:
            if self.state is None:
                return
            self.spend(1)
            self.statement = statement
            self._run(statement)

    def _run(self, statement: ir.Stmt) -> None:
        match statement:
            case ir.ExprStmt(value=ir.Attr() as attribute):
                self._bare_attribute(attribute)
            case ir.ExprStmt(value=value) | ir.Assert(test=value):
                self.evaluate(value)
            case ir.Assign(targets=targets, value=value):
                result = self.evaluate(value)
                for target in targets:
                    self.assign_target(target, result)
            case ir.AugAssign():
                self._augmented(statement)
            case ir.If():
                self._if(statement)
            case ir.For():
                reads = frozenset(names_in(statement.iterable))
                items = self._sequence(statement.iterable)
                if items is not None:
                    self._unrolled(statement, items, reads)
                    if self.state is not None:
                        self.run_block(statement.orelse)
                    return
                iterable = self.evaluate(statement.iterable)
                self._loop(statement, statement.body, reads, lambda: self.iterate(iterable), statement.target)
                self.run_block(statement.orelse)
            case ir.While():
                self._while(statement)
            case ir.With():
                self._with(statement)
            case ir.Try():
                self._try(statement)
            case ir.Choice(subject=subject, branches=branches):
                self.evaluate(subject)
                self._branches(list(branches))
            case ir.Return(value=value):
                returned = self.evaluate(value) if value is not None else constant(None)
                if self.state is not None:
                    self.frame.returned.append((self.state, returned))
                self.state = None
            case ir.Raise(parts=parts):
                for part in parts:
                    self.evaluate(part)
                if self.state is not None:
                    self.before_raise = self.state
                self.state = None
            case ir.Jump(kind=kind):
                targets_of = self.breaks if kind == "break" else self.continues
                if targets_of and self.state is not None:
                    targets_of[-1].append(self.state)
                self.state = None
            case ir.Delete(target=target):
                self._delete(target)
            case ir.Scope(kind=kind, names=names):
                (self.frame.globals if kind == "global" else self.frame.nonlocals).update(names)
            case ir.Import():
                self._import(statement)
            case ir.FunctionDef():
                function = self.define_function(statement)
                # What an unknown decorator makes of the function is unknown, but calling it still runs the body.
                self.bind(statement.name, frozenset({function}))
            case ir.ClassDef():
                self.bind(statement.name, frozenset({self._define_class(statement)}))

    # Simple statements

    def _bare_attribute(self, node: ir.Attr) -> None:
        value = self.evaluate(node.value)
        key, event = self.event(node, events.BareAttribute)
        if isinstance(event, events.BareAttribute):
            event.value = join(event.value, value)
            return
        layers = [
            layer for atom in value if isinstance(atom, Instance) for layer in self.mode_dependent_layers(atom)[0]
        ]
        event = events.BareAttribute(
            self.location(node.span), ir.dotted(node.value), node.name, value, layers, self.surroundings()
        )
        self.remember(key, event)
        self.facts.bare_attributes.append(event)

    def _augmented(self, node: ir.AugAssign) -> None:
        current, added = self.evaluate(node.target), self.evaluate(node.value)
        growing = {"builtins.list", *known.TORCH_CONTAINERS}
        lists = [atom for atom in current if isinstance(atom, Instance) and atom.kind in growing]
        if node.op == "+" and lists:
            for owner in lists:
                self.add_elements(owner, self.elements(added) or UNKNOWN, self.doubtful_in(added))
            return
        self.assign_target(node.target, self.binary(node.op, current, added))

    def _delete(self, target: ir.Expr) -> None:
        super()._delete(target)
        self.evaluate(target)
        if isinstance(target, ir.Attr) and self.state is not None:
            for owner in instances(self.evaluate(target.value)):
                self.state.slots.pop((owner, target.name))

    def _import(self, node: ir.Import) -> None:
        for local, qualified in node.bindings:
            self.facts.imports |= {qualified.split(".", 1)[0]}
            self.bind(local, self.imported(qualified, node.member))
        # Star imports are looked through when a name is asked for that nothing else defines.

    def imported(self, qualified: str, member: bool) -> Value:
        importer = self.frame.scope.source.path
        module, _, name = qualified.rpartition(".") if member else (qualified, "", "")
        if member and set(module) <= {"."}:
            module += "."  # ``from . import name``: the dot belongs to the module
        file = self.file_of(importer, module)
        if file is not None:
            found = self.member_of(file, name) if member else frozenset({file})
            return found or UNKNOWN
        return UNKNOWN if qualified.startswith(".") else frozenset({Ref(canonical(qualified))})

    # Definitions

    def define_function(self, node: ir.FunctionDef) -> Function:
        defaults = {param.name: self.evaluate(param.default) for param in node.params if param.default is not None}
        names, strange = set(), False
        for decorator in node.decorators:
            target = decorator.func if isinstance(decorator, ir.Call) else decorator
            refs = {atom.name for atom in self.evaluate(target) if isinstance(atom, Ref)}
            names |= {name.removeprefix("builtins.") for name in refs}
            if isinstance(target, ir.Name) and target.id in ("property", "staticmethod", "classmethod"):
                names.add(target.id)
            elif not refs & (known.TRANSPARENT_DECORATORS | known.NO_GRAD | known.ENABLE_GRAD):
                strange = True
        made = self.frame.definitions.get(id(node))
        if made is None:
            made = Function(node, self.frame, self.location(node.span))
            self.frame.definitions[id(node)] = made
            self.frame.functions.append(made)
        made.defaults, made.decorators, made.strange_decorator = defaults, frozenset(names), strange
        return made

    def _define_class(self, node: ir.ClassDef) -> Class:
        assert self.state is not None
        bases: list[Class | Ref | None] = []
        for base in node.bases:
            value = self.evaluate(base)
            atoms = [atom for atom in value if isinstance(atom, (Class, Ref))]
            bases.append(atoms[0] if len(atoms) == len(value) == 1 else None)
        resolved = tuple(None if isinstance(base, Ref) and not self.knows_base(base.name) else base for base in bases)
        lines = self.frame.scope.source.code_lines[node.span.line - 1 : node.span.end_line] if node.span else []
        called = frozenset(re.findall(r"\bself\.(\w+)(?:\.forward|\[[^\]\n]*\])?\(", "\n".join(lines)))
        cls = Class(node, self.location(node.span), resolved, called)
        self.classes.append(cls)
        outer = self.frame
        body = Frame(None, outer, outer, outer.scope, from_script=outer.from_script)
        self.frame = body
        self.run_block(node.body)
        self.frame = outer
        if self.state is not None:
            for name in body.names:
                held = self.state.slots.pop((body, name))
                if held is not None:
                    cls.attributes[name] = held
        for value in cls.attributes.values():
            for atom in value:
                if isinstance(atom, Function) and atom.frame is body:
                    atom.owner, atom.frame = cls, outer  # a method does not see the names of its class body
        self.note_overrides(cls)
        return cls

    @staticmethod
    def knows_base(name: str) -> bool:
        """Whether it is known what a class inherits from this one of a library."""
        return name in _KNOWN_BASES

    # Roots: what no call in the file reaches

    def run_root(self, frame: Frame, function: Function, receiver: Instance | None) -> None:
        """Run a function in a frame of its own, with arguments that are not known."""
        self.run_body(frame, function, receiver, NONE_GIVEN)

    def representative(self, cls: Class) -> tuple[State, Instance]:
        """An object of a class, built with arguments that are not known, and the state after building it."""
        for init in cls.lookup("__init__") or ():
            if isinstance(init, Function):
                saved, init.defaults = init.defaults, self.default_parameters(init)
                value = self.instantiate(cls, NONE_GIVEN, cls.construction)
                init.defaults = saved
                break
        else:
            value = self.instantiate(cls, NONE_GIVEN, cls.construction)
        (instance,) = value
        assert isinstance(instance, Instance) and self.state is not None
        return self.state, instance

    def default_parameters(self, function: Function) -> dict[str, Value]:
        """Parameters of a function whose callers are not known: anything, among it the default."""
        return {name: as_default(value) | UNKNOWN for name, value in function.defaults.items()}


_KNOWN_BASES = (
    known.TORCH_BASES
    | known.KERAS_BASES
    | LAYERS.keys()
    | known.LAYER_BASES.keys()
    | {"builtins.object", "abc.ABC", "typing.Generic", "typing.Protocol", "torch.utils.data.Dataset"}
)
