"""Calls: what is called decides what happens."""

from __future__ import annotations

from dataclasses import replace

from bnlint.frameworks.functions import TORCH_PARTS
from bnlint.frameworks.tf1 import RUNNING_METHODS, TRAIN_STEP_METHODS
from bnlint.semantics import ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.phases import LearningPhases
from bnlint.semantics.teaching import Lesson, name_of
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Class,
    Function,
    Instance,
    Loader,
    Method,
    Mystery,
    Part,
    Partial,
    PartMethod,
    Ref,
    Tensor,
    Value,
    VariableMethod,
    constant,
    join,
    only_constant,
)


class Calls(LearningPhases):
    """Adds ``call``."""

    def call(self, node: ir.Call) -> Value:
        callee = self.evaluate(node.func)
        if isinstance(node.func, (ir.Attr, ir.Name)):
            self.facts.named.add(node.func.name if isinstance(node.func, ir.Attr) else node.func.id)
        arguments = self._arguments(node)
        value = self.call_value(callee, arguments, node)
        if isinstance(node.func, ir.Attr) and node.args:
            if node.func.name in TRAIN_STEP_METHODS and not any(isinstance(atom, Ref) for atom in callee):
                return value | self.train_step(node)
            if node.func.name in RUNNING_METHODS:
                self.run_operations(node, arguments)
        return value

    def call_value(self, callee: Value, arguments: Arguments, node: ir.Call) -> Value:
        found: Value = NOTHING
        for atom in sorted(callee, key=_stable):
            found = join(found, self._call_atom(atom, arguments, node))
        return found or UNKNOWN

    def _arguments(self, node: ir.Call) -> Arguments:
        positional: list[Value] = []
        nodes: list[ir.Expr] = []
        keywords: list[tuple[str, Value]] = []
        keyword_nodes: list[tuple[str, ir.Expr]] = []
        spread: Value = NOTHING
        doubtful: Value = NOTHING
        for arg in node.args:
            value = self.evaluate(arg.value)
            doubtful |= self.doubtful_in(value) | self.parts_taken(value)
            if arg.star == "**":
                unpacked, written, more = self.unpacked(value)
                keywords += unpacked
                keyword_nodes += written
                spread |= more
            elif arg.star == "*" and (items := self.items(value)) is not None:
                positional += items
                nodes += [ir.Opaque()] * len(items)
            elif arg.star == "*":
                of_parts = any(isinstance(atom, Method) and atom.name in TORCH_PARTS for atom in value)
                spread |= (self.iterate(value) if of_parts else self.elements(value)) or UNKNOWN
            elif arg.keyword is not None:
                keywords.append((arg.keyword, value))
                keyword_nodes.append((arg.keyword, arg.value))
            else:
                positional.append(value)
                nodes.append(arg.value)
        return Arguments(tuple(positional), tuple(keywords), tuple(nodes), tuple(keyword_nodes), spread, doubtful)

    def items(self, value: Value) -> list[Value] | None:
        """The items of a sequence one by one, where their order and number are known."""
        return None

    def _call_atom(self, atom: Atom, arguments: Arguments, node: ir.Call) -> Value:
        lesson = self.lessons.about(atom) if self.lessons else None
        if lesson is not None and lesson.kind != "managed":
            return self._call_taught(atom, lesson, arguments, node)
        match atom:
            case Function():
                arguments = self.with_defaults(atom, arguments)
                return self.run_function(atom, None, arguments, node)
            case BoundFunction(function=function, receiver=receiver):
                return self.run_function(function, receiver, arguments, node)
            case Class():
                return self.instantiate(atom, arguments, node)
            case Instance():
                return self._call_instance(atom, arguments, node)
            case Method(owner=owner, name=name):
                return self.inherited_method(owner, name, arguments, node)
            case Ref(name=name):
                return self.call_library(name, arguments, node)
            case Partial(callee=callee, positional=first, keywords=more):
                given = {name for name, _ in arguments.keywords}
                extended = replace(
                    arguments,
                    positional=(*(value for value, _ in first), *arguments.positional),
                    positional_nodes=(*(expr for _, expr in first), *arguments.positional_nodes),
                    keywords=(*arguments.keywords, *((n, v) for n, v, _ in more if n not in given)),
                    keyword_nodes=(*arguments.keyword_nodes, *((n, e) for n, _, e in more if n not in given)),
                )
                found: Value = NOTHING
                for inner in sorted(callee, key=_stable):
                    found = join(found, self._call_atom(inner, extended, node))
                return found
            case Tensor():
                return self.tensor_method(atom, node)
            case Mystery():
                return self.call_mystery(atom, arguments, node)
            case Part(whole=whole) if not (arguments.positional or arguments.keywords):
                self.forget_modes(frozenset({whole}))  # taken by its name, which may be "eval"
                return UNKNOWN
            case PartMethod(part=part, name=name):
                return self.call_part_method(part, name, arguments, node)
            case VariableMethod(variables=variables, name=name) if name != "requires_grad_":
                return self.call_variable_method(variables, name, arguments, node)
            case Loader(cls=cls):
                return self.instantiate(cls, Arguments(spread=UNKNOWN), node)
            case VariableMethod(variables=variables, name="parameters" | "named_parameters"):
                return frozenset({variables})
            case VariableMethod(variables=variables):
                flag = arguments.at(0) or arguments.get("requires_grad") or constant(True)
                self.freeze(variables, flag, node)
                return frozenset({variables})
        self.call_unknown(arguments, node)
        return self.tensors_of(arguments.everything()) or self.unknown_result(node)

    def _call_taught(self, atom: Atom, lesson: Lesson, arguments: Arguments, node: ir.Call) -> Value:
        """A call of what the settings speak of: they are believed, whatever the code says."""
        if lesson.kind == "layer":
            return self.call_library(lesson.layers[0], arguments, node)
        if lesson.kind == "model":
            return self.build_model_of_library(name_of(atom), lesson.layers, arguments, node)
        self.call_unknown(arguments, node)
        if isinstance(atom, BoundFunction) and atom.receiver is not None:
            self.forget_modes(frozenset({atom.receiver}))
        return self.tensors_of(arguments.everything()) or self.unknown_result(node)

    def _call_instance(self, instance: Instance, arguments: Arguments, node: ir.Call) -> Value:
        if instance.framework is not None:
            return self.forward(instance, arguments, node)
        if instance.cls is not None:
            call = instance.cls.lookup("__call__")
            functions = [atom for atom in call or () if isinstance(atom, Function)]
            if functions:
                return self.run_function(functions[0], instance, arguments, node)
        self.call_unknown(arguments, node)
        return self.tensors_of(arguments.everything()) or self.unknown_result(node)


def _stable(atom: Atom) -> tuple[str, str, int]:
    """An order that does not depend on hashes, so that two runs give the same answer."""
    kind = type(atom).__name__
    match atom:
        case Partial(callee=callee, keywords=keywords):
            _, place, serial = min((_stable(inner) for inner in callee), default=("", "", 0))
            given = [(name, str(only_constant(value)[1])) for name, value, _ in keywords]
            return kind, f"{place} {given}", serial
        case BoundFunction(function=function, receiver=receiver):
            return kind, str(function.location), receiver.serial
    known = getattr(atom, "location", None) or getattr(atom, "name", "")
    return kind, str(known), getattr(atom, "serial", 0)
