"""Overrides of ``train()`` and ``eval()``: what a class of modules makes of them, read from its definition.

``Module.eval()`` is ``self.train(False)``; ``Module.train(mode)`` sets the flag of the module and of all below it; both
return the module. An override that takes no mode, hands none on or returns nothing breaks who relies on that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bnlint.semantics import ir
from bnlint.semantics.ir import nodes
from bnlint.semantics.values import Class, Function
from bnlint.source.positions import Span

METHODS = ("train", "eval")
_MODE_NAME = re.compile(r"(?i)mode|train|flag|eval|enable|status|state|phase|value|bool|recurs|is_|^(?:on|b|m|t)$")
_TRAINING = frozenset({"backward", "step", "zero_grad", "fit"})
_DATA_NAME = re.compile(r"(?i)loader|epoch|optim|data|batch|iterat|steps|env\b")
_TRANSPARENT = frozenset({"no_grad", "inference_mode", "enable_grad", "override", "ignore", "unused", "export"})


@dataclass(frozen=True)
class Fault:
    """What is wrong with the override of ``method``: ``no-mode-parameter``, ``returns-none``, ``ignores-mode``,
    ``no-super`` or ``shadowed``, as in the experiment ``mode-override``.

    ``loop`` tells that it is a training or evaluation loop of that name. ``span`` is the place in the class. ``sure``
    is false where the value that shadows the method is only likely to be no function. ``parent_call`` is the only
    call of the parent's method, if it is one without arguments and nothing else sets a mode; ``falls_off`` tells
    that there is no ``return`` in it, ``returns`` that there is one of something; ``last`` is its last statement.
    """

    method: str
    kind: str
    span: Span
    loop: bool = False
    sure: bool = True
    parent_call: Span | None = None
    falls_off: bool = False
    returns: bool = False
    last: Span | None = None
    mode: str = "mode"


@dataclass(frozen=True)
class _ModeCall:
    """A call of ``train`` or ``eval`` in an override: of the parent's method (``super``), of the object itself
    (``self``) or of another module; ``wanted`` is the mode asked for, None where it is computed."""

    node: ir.Call
    of: str
    wanted: bool | None


def faults_of(cls: Class) -> Iterator[Fault]:
    """The broken overrides that a class of modules defines itself."""
    for statement in cls.node.body:
        if isinstance(statement, ir.FunctionDef):
            plain = all(_is_transparent(decorator) for decorator in statement.decorators)
            if statement.name in METHODS and plain and statement.params:
                fault = _fault_of(cls, statement)
                if fault is not None:
                    yield fault
            yield from _shadows_in(statement)
        elif isinstance(statement, ir.Assign):
            for target in statement.targets:
                constant = statement.value.value if isinstance(statement.value, ir.Const) else None
                name = target.id if isinstance(target, ir.Name) else ""
                if name in METHODS and constant is not None and statement.span is not None:
                    yield Fault(name, "shadowed", statement.span)


def _fault_of(cls: Class, function: ir.FunctionDef) -> Fault | None:
    body = _without_docstring(function.body)
    if function.span is None or not body or all(_does_nothing(statement) for statement in body):
        return None  # switched off on purpose, or declared only
    me = function.params[0].name
    calls = [call for node in nodes(body) if isinstance(node, ir.Call) if (call := _mode_call(node, me)) is not None]
    read = _Read(function, calls, _sets_flags_of_others(body, me), _may_delegate(body, me))
    return _fault_of_train(cls, read) if function.name == "train" else _fault_of_eval(cls, read)


@dataclass(frozen=True)
class _Read:
    function: ir.FunctionDef
    calls: list[_ModeCall]
    sets_flags: bool
    may_delegate: bool

    @property
    def reaches_others(self) -> bool:
        return self.sets_flags or any(call.of != "self" for call in self.calls)

    @property
    def returns_nothing(self) -> bool:
        return not self.function.generator and not any(
            isinstance(node, ir.Return) and node.value is not None and node.value != ir.Const(None)
            for node in nodes(self.function.body, nested=False)
        )

    @property
    def is_loop(self) -> bool:
        """Whether it trains or evaluates: it is given data, goes through it, or calls ``backward``."""
        of_modules = any(call.of == "super" for call in self.calls)
        required = [param for param in self.function.params[1:] if param.kind == "positional" and param.default is None]
        if not of_modules and any(_DATA_NAME.search(param.name) for param in required):
            return True
        for node in nodes(self.function.body):
            if isinstance(node, ir.Call) and isinstance(node.func, ir.Attr) and node.func.name in _TRAINING:
                return True
            if of_modules:  # its loops go through layers or parameters
                continue
            if isinstance(node, (ir.For, ir.While)) and not any(
                isinstance(inner, ir.Call) and _mode_call(inner, "") is not None for inner in nodes(node)
            ):
                return True
        return False

    def fault(self, kind: str, **facts: bool) -> Fault:
        assert self.function.span is not None
        parents = [call for call in self.calls if call.of == "super"]
        others = [call for call in self.calls if call.of != "super" and call.wanted is not False]
        plain = len(parents) == 1 and not others and not parents[0].node.args and parents[0].wanted is True
        leaves = any(isinstance(node, ir.Return) for node in nodes(self.function.body, nested=False))
        params = self.function.params[1:]
        return Fault(
            self.function.name,
            kind,
            self.function.span,
            **facts,
            parent_call=parents[0].node.span if plain else None,
            falls_off=not leaves,
            returns=not self.returns_nothing,
            last=_last(self.function.body),
            mode=params[0].name if params else "mode",
        )


def _fault_of_train(cls: Class, read: _Read) -> Fault | None:
    params = read.function.params[1:]
    positional = [param for param in params if param.kind == "positional"]
    spread = any(param.kind == "*" for param in params)
    required = [param for param in positional if param.default is None]
    first = positional[0] if positional else None
    used = {node.id for node in nodes(read.function.body) if isinstance(node, ir.Name)}
    called_by_eval = _eval_calls_train(cls)
    if not spread and (first is None or len(required) > 1 or not _is_mode(first, read)):
        if not called_by_eval:
            return None
        if first is None and read.reaches_others and not read.is_loop:
            return read.fault("no-mode-parameter")
        return read.fault("no-mode-parameter", loop=True) if read.is_loop else None
    if not read.reaches_others:
        # Whether there is anything below it that keeps its mode, the layers tell.
        sets = any(isinstance(node, ir.Assign) for node in nodes(read.function.body))
        return read.fault("no-super") if sets and not read.may_delegate else None
    ignored = first is not None and not spread and first.name not in used
    parent = [call for call in read.calls if call.of == "super"]
    if ignored and called_by_eval and parent and all(call.wanted is True for call in parent):
        return read.fault("ignores-mode")
    return read.fault("returns-none") if read.returns_nothing else None


def _eval_calls_train(cls: Class) -> bool:
    """Whether ``eval()`` comes to ``train()``, as that of ``nn.Module`` does: an override may not."""
    own = [atom.node for atom in cls.lookup("eval") or () if isinstance(atom, Function) and atom.node.params]
    if not own:
        return "eval" not in cls.attributes
    calls = [
        (call.func.name, mode_call.of)
        for node in own
        for call in nodes(node.body)
        if isinstance(call, ir.Call) and isinstance(call.func, ir.Attr)
        if (mode_call := _mode_call(call, node.params[0].name)) is not None
    ]
    return ("eval", "super") in calls or ("train", "self") in calls


def _fault_of_eval(cls: Class, read: _Read) -> Fault | None:
    params = read.function.params[1:]
    required = [param for param in params if param.kind in ("positional", "keyword") and param.default is None]
    sets_mode = read.reaches_others or bool(read.calls)
    if required or (read.is_loop and not sets_mode):
        has_own_train = any("train" in ancestor.attributes for ancestor in cls.ancestors())
        loops = read.is_loop and not has_own_train and not any(call.of != "other" for call in read.calls)
        return read.fault("no-super", loop=True) if loops else None
    if not sets_mode:
        return None if read.may_delegate else read.fault("no-super")
    return read.fault("returns-none") if read.returns_nothing else None


def _shadows_in(function: ir.FunctionDef) -> Iterator[Fault]:
    """``self.train = True`` in a method."""
    if not function.params:
        return
    me = function.params[0].name
    for node in nodes(function.body):
        if not isinstance(node, ir.Assign) or node.span is None:
            continue
        for target in node.targets:
            if isinstance(target, ir.Attr) and target.name in METHODS and target.value == ir.Name(me):
                sure = _is_a_flag(node.value, function)
                if sure is not None:
                    yield Fault(target.name, "shadowed", node.span, sure=sure)


def _is_a_flag(value: ir.Expr, function: ir.FunctionDef) -> bool | None:
    """True for what is surely no function, False for what a parameter gives; None where it may be a function."""
    match value:
        case ir.Const(value=constant):
            return True if constant is not None else None
        case ir.Compare() | ir.Unary(op="not"):
            return True
        case ir.IfElse(body=body, orelse=orelse):
            return _is_a_flag(body, function) and _is_a_flag(orelse, function)
        case ir.Name(id=name):
            for param in function.params:
                if param.name == name:
                    given = param.default.value if isinstance(param.default, ir.Const) else None
                    return isinstance(given, bool) or None
    return None


def _is_mode(param: ir.Param, read: _Read) -> bool:
    """Whether a parameter is the mode: by its name, by its default, or because it is handed on as one."""
    if isinstance(param.default, ir.Const) and isinstance(param.default.value, bool):
        return True
    if any(call.node.args and call.node.args[-1].value == ir.Name(param.name) for call in read.calls):
        return True
    return _MODE_NAME.search(param.name) is not None and not read.is_loop


def _mode_call(node: ir.Call, me: str) -> _ModeCall | None:
    func = node.func
    if not isinstance(func, ir.Attr) or func.name not in METHODS:
        return None
    args, of = node.args, "other"
    if isinstance(func.value, ir.Call) and func.value.func == ir.Name("super"):
        of = "super"
    elif func.value == ir.Name(me):
        of = "self"
    elif args and args[0].value == ir.Name(me):
        args, of = args[1:], "super"  # nn.Module.train(self, mode)
    if func.name == "eval":
        return _ModeCall(node, of, False)
    if not args:
        return _ModeCall(node, of, True)
    value = args[0].value
    return _ModeCall(node, of, bool(value.value) if isinstance(value, ir.Const) else None)


def _sets_flags_of_others(body: tuple[ir.Stmt, ...], me: str) -> bool:
    return any(
        isinstance(target, ir.Attr) and target.name == "training" and target.value != ir.Name(me)
        for node in nodes(body)
        if isinstance(node, ir.Assign)
        for target in node.targets
    )


def _may_delegate(body: tuple[ir.Stmt, ...], me: str) -> bool:
    """Whether a method of its own or another function may set the modes for it."""
    for node in nodes(body):
        if not isinstance(node, ir.Call):
            continue
        if any(arg.value == ir.Name(me) for arg in node.args):
            return True
        if isinstance(node.func, ir.Attr) and (ir.dotted(node.func) or "").split(".")[0] == me:
            return True
        if isinstance(node.func, ir.Attr) and isinstance(node.func.value, ir.Call):  # super().freeze()
            return True
    return False


def _is_transparent(decorator: ir.Expr) -> bool:
    """Whether a decorator leaves the method's parameters and what it returns as they are."""
    called = decorator.func if isinstance(decorator, ir.Call) else decorator
    return (ir.dotted(called) or "").split(".")[-1] in _TRANSPARENT


def _without_docstring(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    if body and isinstance(body[0], ir.ExprStmt) and isinstance(body[0].value, ir.Const):
        return body[1:]
    return body


def _does_nothing(statement: ir.Stmt) -> bool:
    """``return self``, ``raise``, a warning: no attempt at setting a mode."""
    match statement:
        case ir.Raise() | ir.Return(value=None | ir.Const() | ir.Name()) | ir.Import():
            return True
        case ir.ExprStmt(value=ir.Call(func=func)):
            return (ir.dotted(func) or "").split(".")[-1] in ("print", "warn", "warning", "info", "debug")
        case ir.ExprStmt(value=ir.Const() | ir.Opaque()):
            return True
    return False


def _last(body: tuple[ir.Stmt, ...]) -> Span | None:
    return body[-1].span if body else None
