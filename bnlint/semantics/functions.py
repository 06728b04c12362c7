"""Calls of functions and classes of the file: their bodies are run in the state of the caller."""

from __future__ import annotations

from abc import abstractmethod

from bnlint.finding import TraceStep
from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import ir
from bnlint.semantics.arguments import NONE_GIVEN, Arguments
from bnlint.semantics.frames import Context, Frame
from bnlint.semantics.state import UNKNOWN_MODE, join_all
from bnlint.semantics.targets import Targets
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Class,
    Constant,
    Function,
    Instance,
    Method,
    Mystery,
    Part,
    Partial,
    Tuple,
    Value,
    Variables,
    as_default,
    constant,
    join,
)


class Functions(Targets):
    """Adds ``run_function`` and ``instantiate``."""

    @abstractmethod
    def run_block(self, body: tuple[ir.Stmt, ...]) -> None: ...

    @abstractmethod
    def children(self, arguments: Arguments) -> Value: ...

    def run_function(self, function: Function, receiver: Instance | None, arguments: Arguments, node: ir.Expr) -> Value:
        """Run the body of a function of this file for this call."""
        assert self.state is not None
        everything = arguments.everything()
        if self.too_deep(function):
            self.forget_modes(everything | (frozenset({receiver}) if receiver else NOTHING))
            return UNKNOWN
        function.called = True
        if self._means_nothing(function, receiver, everything):
            return UNKNOWN
        if function.strange_decorator:  # it may put its arguments into a mode of its own before the body runs
            self.forget_modes(everything | (frozenset({receiver}) if receiver else NOTHING))
        span = node.span if isinstance(node, (ir.Call, ir.Attr)) else None
        name = function.owner.name if function.name == "__init__" and function.owner else function.name
        # Only a place in the source can be shown; a representative object is built nowhere.
        step = TraceStep(self.location(span), f"{name}() called here") if span is not None else None
        frame = self._enter(function, (id(node), id(function)), step, self.frame.from_script)
        frame.receiver = receiver
        if not function.decorators & known.CONTEXT_MANAGERS:
            return self.run_body(frame, function, receiver, arguments)
        # Its caller goes on in the middle of the body, so the modes that it sets are in doubt from here on.
        managed, self.facts.mode_managed = self.facts.mode_managed, set()
        value = self.run_body(frame, function, receiver, arguments)
        self.forget_modes(frozenset(self.facts.mode_managed))
        self.facts.mode_managed |= managed
        return value

    def too_deep(self, function: Function) -> bool:
        return any(frame.function is function for frame in self.frame.chain()) or self.frame.depth > self.max_depth

    def _means_nothing(self, function: Function, receiver: Instance | None, given: Value) -> bool:
        """Whether a call of another file's function can neither build a module nor set a mode: that file has nothing
        to do with the frameworks, and the call hands over no module."""
        scope = function.frame.scope
        if not scope.imported or not self.relevance.is_neutral(scope.source):
            return False
        held = given
        if receiver is not None:
            for _, value in self.field_values(receiver):
                held |= value
        return not any(self._is_moduleish(atom) for atom in held)

    def _is_moduleish(self, atom: Atom) -> bool:
        assert self.state is not None
        if isinstance(atom, Instance):
            return atom.framework is not None or any(
                isinstance(inner, Instance) and inner.framework is not None
                for _, value in self.field_values(atom)
                for inner in value
            )
        if isinstance(atom, Mystery):
            return atom in self.state.modes
        return isinstance(atom, (Class, Function, BoundFunction, Method, Partial, Part, Variables))

    def _enter(self, function: Function, key: tuple[object, ...], call: TraceStep | None, script: bool) -> Frame:
        frame = self.frame.children.get(key)
        if frame is None:
            frame = Frame(function, function.frame, self.frame, function.frame.scope, call, from_script=script)
            self.frame.children[key] = frame
        return frame

    def run_body(self, frame: Frame, function: Function, receiver: Instance | None, arguments: Arguments) -> Value:
        assert self.state is not None
        saved = (self.frame, self.contexts, self.statement, self.block)
        self.frame, self.block = frame, None
        frame.returned = []
        guards = self.state.guards
        for decorator in sorted(function.decorators & (known.NO_GRAD | known.ENABLE_GRAD)):
            kind = "no_grad" if decorator in known.NO_GRAD else "grad"
            step = TraceStep(function.location, f"runs under {decorator} (decorator)")
            self.contexts = (*self.contexts, Context(kind, step))
        self._bind_parameters(function, receiver, arguments)
        self.run_block(function.node.body)
        value: Value = NOTHING
        states = []
        for state, returned in frame.returned:
            states.append(state)
            value = join(value, returned)
        if self.state is not None:
            states.append(self.state)
            value = join(value, constant(None))
        after = join_all(states)
        if after is not None and not frame.functions:  # no closure can read its names any more
            for name in frame.names:
                after.slots.pop((frame, name))
        self.frame, self.contexts, self.statement, self.block = saved
        # A body that only raises: what follows the call is not run, but silence about it would be a guess.
        self.state = after if after is not None else self.before_raise
        self.state.guards = guards  # what the body tested is over with it
        return value or UNKNOWN

    def _bind_parameters(self, function: Function, receiver: Instance | None, arguments: Arguments) -> None:
        positional = list(arguments.positional)
        if receiver is not None:
            positional.insert(0, frozenset({receiver}))
        keywords = dict(arguments.keywords)
        unlisted = arguments.spread | UNKNOWN if arguments.spread else NOTHING
        for param in function.node.params:
            if param.kind == "positional" and positional:
                value = positional.pop(0)
            elif param.kind == "*":
                value, positional = frozenset({Tuple(tuple(positional))}) | unlisted, []
            elif param.kind == "**":
                unseen = arguments is NONE_GIVEN  # run on its own: whatever its callers pass
                value = UNKNOWN if unseen else self.other_keywords(function, keywords, unlisted)
            elif param.name in keywords:
                value = keywords.pop(param.name)
            else:
                default = function.defaults.get(param.name)
                if default is not None:
                    value = default | unlisted
                else:
                    at = function.node.span
                    value = unlisted or frozenset({self.mystery(("parameter", param.name), param.name, at)})
            self.bind(param.name, value)

    def other_keywords(self, function: Function, keywords: dict[str, Value], unlisted: Value) -> Value:
        """What ``**kwargs`` holds: callers may pass more than is seen."""
        mapping, _ = self.new_object(function.node, "builtins.dict", None)
        for name, value in keywords.items():
            self.set_field(mapping, repr(name), value)
        if unlisted:
            self.add_elements(mapping, unlisted)
        return frozenset({mapping})

    def call_method(self, function: Function, receiver: Instance, node: ir.Expr) -> Value:
        return self.run_function(function, receiver, NONE_GIVEN, node)

    def instantiate(self, cls: Class, arguments: Arguments, node: ir.Expr) -> Value:
        framework = self.framework_of_bases(cls.library_bases())
        if framework is None and cls.has_unknown_base and _looks_like_a_module(cls):
            framework = "torch"
        span = node.span if isinstance(node, (ir.Call, ir.Attr)) else cls.node.span
        instance, _ = self.new_object(node, _kind_of(cls), span, cls=cls, framework=framework)
        if cls.has_unknown_base and framework == "torch":
            assert self.state is not None
            self.state.set_mode(instance, UNKNOWN_MODE)
        init = cls.lookup("__init__")
        if framework is not None and instance.kind not in LAYERS:
            instance.arguments, instance.argument_nodes = _given(init, arguments)
        if init is None and cls.has_unknown_base and framework is None:
            self.forget_modes(arguments.everything())  # a trainer's own modules are in its base's hands
        for atom in init or ():
            if isinstance(atom, Function):
                self.run_function(atom, instance, arguments, node)
        if init is None and framework is None:
            self._keep_fields(cls, instance, arguments)
        if init is None and cls.library_bases() & known.CONTAINERS:
            self.add_elements(instance, self.children(arguments), arguments.doubtful)
        return frozenset({instance})

    def _keep_fields(self, cls: Class, instance: Instance, arguments: Arguments) -> None:
        """A class without an ``__init__`` that can be seen keeps what it is given under the names of its fields, as
        dataclasses and named tuples do; in which order they stand is not known."""
        given = dict(arguments.keywords)
        for name in {name for ancestor in cls.ancestors() for name in ancestor.attributes} - given.keys():
            value = cls.lookup(name) or NOTHING
            is_field = not any(isinstance(atom, (Function, Class)) for atom in value)
            if is_field and (arguments.positional or arguments.spread):
                self.set_field(instance, name, as_default(value) | UNKNOWN)
        for name, value in given.items():  # modules are in the hands of the base
            if all(isinstance(atom, Constant) for atom in value) or cls.lookup(name) is not None:
                self.set_field(instance, name, value)


def _kind_of(cls: Class) -> str:
    """The kind of layer that a class makes its own, or else its name."""
    bases = cls.library_bases()
    for base in sorted(bases):
        if base in LAYERS:
            return base
        if known.LAYER_BASES.get(base) == "batchnorm":
            return "torch.nn.BatchNorm2d"
    return cls.name


def _given(init: Value | None, arguments: Arguments) -> tuple[dict[str, Value], dict[str, ir.Expr]]:
    """What a call passes, by the names of the parameters, and as it is written."""
    functions = [atom for atom in init or () if isinstance(atom, Function)]
    params = functions[0].node.params if functions else ()
    names = tuple(param.name for param in params if param.kind == "positional")[1:]
    given = dict(zip(names, arguments.positional, strict=False))
    given |= dict(arguments.keywords)
    return ({**given, "*": arguments.spread} if arguments.spread else given), arguments.bound_nodes(names)


def _looks_like_a_module(cls: Class) -> bool:
    """Whether a class of a base that is not known has a ``forward`` method, and so is a module of PyTorch."""
    return any("forward" in ancestor.attributes for ancestor in cls.ancestors())
