"""Which attributes of a module the code of its class can come to.

A module registers what it is given, and a layer that it never applies does nothing in either mode: often one that is
built for an option which this object was not asked for (``if self.dropout: x = self.dropout_layer(x)``). Code is read,
not run, and all that could come to an attribute by other means than its name counts as coming to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnlint.frameworks.functions import TORCH_PARTS
from bnlint.semantics import ir
from bnlint.semantics.truth import all_of, any_of, compared, negated
from bnlint.semantics.values import Class, Constant, Function, Ref, Unknown

#: What comes to the parts of an object without naming them.
_REACHES_ALL = TORCH_PARTS | {"_modules", "__dict__", "__getattr__", "__getattribute__", "get_submodule"}
_RUNS_ANYTHING = frozenset({"eval", "exec", "vars", "locals"})
#: Functions that are given an object and do not look for its parts.
_LEAVES_ALONE = frozenset({"super", "isinstance", "type", "hasattr", "id", "__init__"})


class Usage:
    """What the methods of a class read of their object, those of its bases in the project included."""

    def __init__(self, cls: Class) -> None:
        self._methods = [
            node for ancestor in cls.ancestors() for node in ancestor.node.body if isinstance(node, ir.FunctionDef)
        ]
        standing = {id(method) for method in self._methods}
        #: Whether all code of the class is in sight, and stands in those.
        self._complete = not any(
            isinstance(atom, (Unknown, Ref)) or (isinstance(atom, Function) and id(atom.node) not in standing)
            for ancestor in cls.ancestors()
            for value in ancestor.attributes.values()
            for atom in value
        )
        later = tuple(method.body for method in self._methods if method.name != "__init__")
        #: Attributes that tests name, and which keep the value that the construction gives them.
        self.options = frozenset(name for method in self._methods for name in _tested(method)) - _assigned(later)
        self._read: dict[frozenset[tuple[str, Constant]], frozenset[str] | None] = {}

    def read(self, options: Mapping[str, Constant]) -> frozenset[str] | None:
        """The attributes that some method may read, where the object has these ``options``; None for all of them."""
        key = frozenset(options.items())
        if key not in self._read:
            reader = _Reader(options)
            reader.reads_all = not self._complete
            for method in self._methods:
                reader.itself = method.params[0].name if method.params else ""
                reader.statement(method)
            self._read[key] = None if reader.reads_all else frozenset(reader.names)
        return self._read[key]


class _Reader:
    """Goes through all code but what the options rule out."""

    def __init__(self, options: Mapping[str, Constant]) -> None:
        self._options = options
        self.itself = ""  # what the method calls the object
        self.names: set[str] = set()
        self.reads_all = False

    def statement(self, node: ir.Stmt) -> bool:
        """Whether what stands behind it may be run."""
        match node:
            case ir.If(test=test, body=body, orelse=orelse):
                self._visit(test)
                truth = self._truth(test)
                ends = [self._block(taken) for taken, when in ((body, True), (orelse, False)) if truth in (None, when)]
                return any(ends)
            case ir.Return(value=value):
                if not self._is_itself(value):  # whoever gets it names what is wanted of it
                    self._visit(value)
                return False
            case ir.Raise():
                self._visit(node.parts)
                return False
            case ir.Assign(targets=targets, value=value):
                self._visit(tuple(target for target in targets if not self._is_own(target)))
                self._visit(value)
            case ir.Choice():  # the conditions of its cases are not known here
                self.reads_all = True
            case _:
                self._visit_parts(node)
        return True

    def _block(self, body: tuple[ir.Stmt, ...]) -> bool:
        return all(self.statement(node) for node in body)

    def _visit(self, node: object) -> None:
        match node:
            case ir.Stmt():
                self.statement(node)
            case tuple():
                if node and isinstance(node[0], ir.Stmt):
                    self._block(node)
                else:
                    for item in node:
                        self._visit(item)
            case ir.Attr(value=value, name=name):
                self.names.add(name)
                self.reads_all |= name in _REACHES_ALL
                if not self._is_itself(value):
                    self._visit(value)
            case ir.Name():
                self.reads_all |= self._is_itself(node)
            case ir.Call(func=func, args=args):
                called = ir.called_name(node)
                self.reads_all |= isinstance(func, ir.Name) and called in _RUNS_ANYTHING
                if not self._is_itself(func):  # it runs a method of the class, which is gone through too
                    self._visit(func)
                for arg in args:
                    if not (called in _LEAVES_ALONE and self._is_itself(arg.value)):
                        self._visit(arg.value)
            case ir.IfElse(test=test, body=body, orelse=orelse):
                self._visit(test)
                truth = self._truth(test)
                for taken, when in ((body, True), (orelse, False)):
                    if truth in (None, when):
                        self._visit(taken)
            case ir.Boolean(op=op, left=left, right=right):
                self._visit(left)
                if self._truth(left) is not (op == "or"):
                    self._visit(right)
            case ir.Expr() | ir.Arg() | ir.Param():
                self._visit_parts(node)

    def _visit_parts(self, node: ir.Expr | ir.Stmt | ir.Arg | ir.Param) -> None:
        for name in node.__match_args__:
            self._visit(getattr(node, name))

    def _is_itself(self, node: ir.Expr | None) -> bool:
        return isinstance(node, ir.Name) and node.id == self.itself

    def _is_own(self, node: ir.Expr) -> bool:
        return isinstance(node, ir.Attr) and self._is_itself(node.value)

    def _truth(self, test: ir.Expr) -> bool | None:
        match test:
            case ir.Unary(op="not", operand=operand):
                return negated(self._truth(operand))
            case ir.Boolean(op=op, left=left, right=right):
                return (any_of if op == "or" else all_of)((self._truth(left), self._truth(right)))
            case ir.Compare(left=left, op=op, right=right):
                one, other = self._constant(left), self._constant(right)
                return compared(one.value, op, other.value) if one is not None and other is not None else None
        known = self._constant(test)
        return None if known is None else bool(known.value)

    def _constant(self, node: ir.Expr) -> Constant | None:
        if isinstance(node, ir.Attr) and self._is_own(node):
            return self._options.get(node.name)
        return Constant(node.value) if isinstance(node, ir.Const) else None


def _tested(tree: object) -> set[str]:
    tests = [node.test for node in ir.nodes(tree) if isinstance(node, (ir.If, ir.IfElse))]
    tests += [node.left for node in ir.nodes(tree) if isinstance(node, ir.Boolean)]
    return {node.name for node in ir.nodes(tuple(tests)) if isinstance(node, ir.Attr)}


def _assigned(tree: object) -> set[str]:
    targets: list[object] = []
    for node in ir.nodes(tree):
        if isinstance(node, ir.Assign):
            targets += node.targets
        elif isinstance(node, (ir.AugAssign, ir.For, ir.Delete)):
            targets.append(node.target)
        elif isinstance(node, ir.With):
            targets += [target for _, target in node.items]
    return {node.name for node in ir.nodes(tuple(targets)) if isinstance(node, ir.Attr)}
