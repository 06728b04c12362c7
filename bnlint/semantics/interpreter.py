"""Statements: the abstract interpreter proper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from bnlint.finding import TraceStep
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import canonical
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import NONE_GIVEN, names_in
from bnlint.semantics.frames import Context, Frame
from bnlint.semantics.project import Project
from bnlint.semantics.state import Guards, State, join_all
from bnlint.semantics.tests import Tests, words_tested
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Class,
    Constant,
    Function,
    Instance,
    Ref,
    Tape,
    Tuple,
    Value,
    constant,
    instances,
    join,
    only_constant,
)
from bnlint.source.parse import Source

_MOST_UNROLLED = 4
_MAX_TURNS = 4  # of a loop; the modes of an object can change only twice before they are joined


class Interpreter(Tests):
    def __init__(self, source: Source, project: Project | None = None) -> None:
        super().__init__(source, project)
        self._breaks: list[list[State]] = []
        self._continues: list[list[State]] = []
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
                targets_of = self._breaks if kind == "break" else self._continues
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

    # Control

    def _branches(
        self,
        bodies: list[tuple[ir.Stmt, ...]],
        narrowed_names: Sequence[dict[str, Value]] = (),
        guards: Sequence[Guards] = (),
        words: str = "",
    ) -> None:
        before, after, name_tests = self.state, [], self.name_tests
        for position, body in enumerate(bodies):
            assert before is not None
            self.spend(1)
            self.state = before.copy() if position < len(bodies) - 1 else before
            if guards:
                self.state.guards |= guards[position]
            self.name_tests = (*name_tests, (words, position == 0)) if words else name_tests
            for name, value in narrowed_names[position].items() if narrowed_names else ():
                self.bind(name, value)
            self.run_block(body)
            if self.state is not None:
                after.append(self.state)
        self.name_tests = name_tests
        self.state = join_all(after)

    def _if(self, node: ir.If) -> None:
        assert self.state is not None
        value = self.evaluate(node.test)
        truth = self.truth_on_this_path(node.test, value)
        if truth is not None:
            self.run_block(node.body if truth else node.orelse)
            return
        narrowed = self.narrowed
        self.narrowed = {**narrowed, **self.narrowing(node.test)}
        parts = self.narrowed_parts(node.test)
        same, other = self.alternatives_of(node.test)
        if parts and isinstance(node.test, (ir.Call, ir.Compare)):
            self._run_for_parts(node, parts)
        else:
            guards, words = self.guards_of(node.test), words_tested(node.test)
            self._branches([node.body, node.orelse], [{**same, **parts}, other], guards, words)
        self.narrowed = narrowed
        self.after_restoring(value)

    def _run_for_parts(self, node: ir.If, parts: dict[str, Value]) -> None:
        """``for m in net.modules(): if isinstance(m, nn.Dropout): …``: the loop comes to both sides of the test."""
        assert self.state is not None
        before = self.state.copy()
        whole = {name: self.lookup(name) or UNKNOWN for name in parts}
        for names, body in ((parts, node.body), (whole, node.orelse)):
            for name, value in names.items():
                self.bind(name, value)
            self.run_block(body)
            if self.state is None:
                self.state = before.copy()

    def _while(self, node: ir.While) -> None:
        forever = self.truth(self.evaluate(node.test))
        if forever is False:
            self.run_block(node.orelse)
            return
        self._loop(node, node.body, frozenset(names_in(node.test)), None, None, leaves_only_by_break=forever is True)
        self.run_block(node.orelse)

    def _sequence(self, node: ir.Expr) -> list[Value] | None:
        """The items of a loop over a few constants that are written out: the turns are run one after another."""
        if isinstance(node, ir.Call) and isinstance(node.func, ir.Name) and node.func.id in ("list", "tuple"):
            node = node.args[0].value if len(node.args) == 1 else node
        if isinstance(node, ir.Display) and not any(node.starred):
            items = [self.evaluate(item) for item in node.items]
        else:
            value = self.evaluate(node) if isinstance(node, (ir.Name, ir.Attr)) else NOTHING
            tuples = [atom for atom in value if isinstance(atom, Tuple)]
            if len(tuples) != 1 or len(value) != 1:
                return None
            items = list(tuples[0].items)
        if 0 < len(items) <= _MOST_UNROLLED and all(only_constant(item)[0] for item in items):
            return items
        return None

    def _unrolled(self, node: ir.For, items: list[Value], reads: frozenset[str]) -> None:
        left: list[State] = []
        loops = self.loops
        self.loops = (*loops, events.Loop(self.location(node.span), reads))
        for item in items:
            if self.state is None:
                break
            self._breaks.append([])
            self._continues.append([])
            self.assign_target(node.target, item)
            self.run_block(node.body)
            turns_end = self._continues.pop() + ([self.state] if self.state is not None else [])
            left += self._breaks.pop()
            self.state = join_all(turns_end)
        self.loops = loops
        self.state = join_all(left + ([self.state] if self.state is not None else []))

    def _loop(
        self,
        node: ir.Stmt,
        body: tuple[ir.Stmt, ...],
        reads: frozenset[str],
        element: object,
        target: ir.Expr | None,
        leaves_only_by_break: bool = False,
    ) -> None:
        assert self.state is not None
        loops, entry, left = self.loops, self.state, []
        self.loops = (*loops, events.Loop(self.location(node.span), reads))
        end: State | None = None
        for _ in range(_MAX_TURNS):
            self.spend(1)
            self._breaks.append([])
            self._continues.append([])
            self.state = entry.copy()
            if target is not None and callable(element):
                self.assign_target(target, element())
            self.run_block(body)
            turns_end = self._continues.pop() + ([self.state] if self.state is not None else [])
            left += self._breaks.pop()
            end = join_all(turns_end)
            if end is None:
                break
            again = entry.copy().join(end.copy())
            if again.slots.equals(entry.slots) and again.modes.equals(entry.modes):
                break
            entry = again
        self.loops = loops
        generator = self.frame.function is not None and self.frame.function.node.generator
        if end is not None and (not leaves_only_by_break or (generator and not left)):
            left.append(end)  # whoever reads an endless generator stops reading it at some point
        elif end is not None and not left:
            self.before_raise = end
        self.state = join_all(left)

    def _with(self, node: ir.With) -> None:
        contexts, block = self.contexts, self.block
        self.block = self.block if self.block is not None else node.span
        managers: list[tuple[ir.Expr, Value]] = []
        for item, target in node.items:
            value = self.evaluate(item)
            self._enter_context(item, value)
            managers.append((item, value))
            entered = self._call_special("__enter__", item, value)
            if target is not None:
                self.assign_target(target, value if any(isinstance(atom, Tape) for atom in value) else entered)
        self.run_block(node.body)
        for item, value in reversed(managers):
            self._call_special("__exit__", item, value)
        self.contexts, self.block = contexts, block

    def _call_special(self, name: str, node: ir.Expr, managers: Value) -> Value:
        """Enter or leave context managers of this file's classes; others are known by what built them."""
        found: Value = NOTHING
        for manager in instances(managers):
            if self.state is None or manager.cls is None:
                continue
            for method in manager.cls.lookup(name) or ():
                if isinstance(method, Function):
                    found = join(found, self.call_method(method, manager, node))
            if manager.cls.has_unknown_base:
                self.forget_modes(frozenset({manager}))
        return found or UNKNOWN

    def _enter_context(self, item: ir.Expr, value: Value) -> None:
        callee = self.evaluate(item.func) if isinstance(item, ir.Call) else NOTHING
        names = {atom.name for atom in callee if isinstance(atom, Ref)}
        at = self.location(item.span if isinstance(item, ir.Call) else None)
        text = next(iter(names), "")
        if names and names <= known.NO_GRAD:
            self.contexts = (*self.contexts, Context("no_grad", TraceStep(at, f"run under {text} here")))
        elif names & known.ENABLE_GRAD:
            self.contexts = (*self.contexts, Context("grad", TraceStep(at, "gradients on again here")))
        elif names == {known.SET_GRAD} and isinstance(item, ir.Call) and item.args:
            truth = self.truth(self.evaluate(item.args[0].value))
            kind = "no_grad" if truth is False else "grad"
            self.contexts = (*self.contexts, Context(kind, TraceStep(at, "gradients switched off here")))
        elif any(isinstance(atom, Tape) for atom in value):
            self.contexts = (*self.contexts, Context("tape", TraceStep(at, "recorded by this tape")))

    def _try(self, node: ir.Try) -> None:
        assert self.state is not None
        before = self.state.copy()
        left = len(self.frame.returned)
        self.run_block(node.body)
        finished = self.state
        # An exception may come at any point of the body: before it, after it, and after what it raised itself.
        thrown = before if finished is None else before.join(finished.copy())
        after = []
        if finished is not None:
            self.state = finished
            self.run_block(node.orelse)
            if self.state is not None:
                after.append(self.state)
        for handler in node.handlers:
            self.state = thrown.copy()
            self.run_block(handler)
            if self.state is not None:
                after.append(self.state)
        if node.finalbody:  # it runs on the way out, too
            for position in range(left, len(self.frame.returned)):
                self.state, value = self.frame.returned[position]
                self.run_block(node.finalbody)
                if self.state is not None:
                    self.frame.returned[position] = (self.state, value)
        self.state = join_all(after)
        if self.state is not None:
            self.run_block(node.finalbody)

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
        return {
            name: frozenset(replace(a, from_default=True) if isinstance(a, Constant) else a for a in value) | UNKNOWN
            for name, value in function.defaults.items()
        }


_KNOWN_BASES = (
    known.TORCH_BASES
    | known.KERAS_BASES
    | LAYERS.keys()
    | known.LAYER_BASES.keys()
    | {"builtins.object", "abc.ABC", "typing.Generic", "typing.Protocol", "torch.utils.data.Dataset"}
)
