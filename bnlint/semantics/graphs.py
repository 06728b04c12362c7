"""TensorFlow 1: defaults that ``arg_scope`` gives, layers that normalise by the way, and training steps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from bnlint.finding import TraceStep
from bnlint.frameworks import tf1
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.frames import Context
from bnlint.semantics.objects import Objects
from bnlint.semantics.state import ELEMENTS
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Constant,
    Defaults,
    Function,
    Instance,
    Ref,
    Tensor,
    TrainStep,
    Tuple,
    Unknown,
    Value,
    as_default,
    only_constant,
)

_Keywords = tuple[tuple[str, Value], ...]
_Nodes = tuple[tuple[str, ir.Expr], ...]


class Graphs(Objects):
    """Adds what TensorFlow 1 programs build and run."""

    @abstractmethod
    def call_value(self, callee: Value, arguments: Arguments, node: ir.Call) -> Value: ...

    def unpacked(self, mapping: Value) -> tuple[_Keywords, _Nodes, Value]:
        """``**mapping``: the keywords that it holds, with their expressions, and what else it may hold."""
        found = [atom for atom in mapping if isinstance(atom, Instance) and atom.kind == "builtins.dict"]
        others = mapping - frozenset(found) - {Constant(None), Constant(None, from_default=True)}
        if len(found) != 1 or not all(isinstance(atom, Unknown) for atom in others):
            return (), (), mapping | UNKNOWN
        keywords: list[tuple[str, Value]] = []
        spread: Value = UNKNOWN if others else NOTHING
        for name, held in self.field_values(found[0]):
            if name == ELEMENTS:
                spread |= held | UNKNOWN
            else:
                keywords.append((name.strip("'"), as_default(held) | UNKNOWN if others else held))
        written = ((name, self.entries.get((found[0], name))) for name, _ in keywords)
        nodes = tuple((name, expression) for name, expression in written if expression is not None)
        return tuple(keywords), nodes, spread

    # Other defaults

    def call_contrib(self, name: str, arguments: Arguments, node: ir.Call) -> Value | None:
        """What a function of ``tf.contrib`` or slim builds; None where it is no layer of any kind."""
        if name == tf1.ARG_SCOPE:
            return frozenset({self._scope_of(arguments)})
        arguments = self.with_defaults(Ref(name), arguments)
        if name in LAYERS:
            return self.build_layer(name, arguments, node)
        if name in tf1.REPEATING:
            place, rest = tf1.REPEATING[name]
            inner = replace(arguments, positional=(UNKNOWN, *arguments.positional[rest:]), positional_nodes=())
            return self.call_value(arguments.at(place) or UNKNOWN, inner, node)
        normaliser = arguments.get("normalizer_fn")
        if normaliser is None:
            return None
        parameters = arguments.get("normalizer_params")
        keywords, nodes, spread = self.unpacked(parameters) if parameters else ((), (), NOTHING)
        if parameters and only_constant(parameters) == (True, None):
            spread = NOTHING
        given = Arguments((frozenset({Tensor("symbolic")}),), keywords, (ir.Opaque(),), nodes, spread)
        return self.call_value(frozenset(a for a in normaliser if not _is_none(a)), given, node)

    @abstractmethod
    def build_layer(self, name: str, arguments: Arguments, node: ir.Call) -> Value: ...

    def _scope_of(self, arguments: Arguments) -> Defaults:
        """``arg_scope(functions, **defaults)`` adds to the scope around it, ``arg_scope(scope)`` takes its place."""
        first = arguments.at(0) or arguments.get("list_ops_or_scope") or UNKNOWN
        scopes = [atom for atom in first if isinstance(atom, Defaults)]
        if scopes:
            if len(scopes) == len(first) == 1:
                return scopes[0]
            return Defaults(tuple(entry for scope in scopes for entry in scope.entries), anything=True)
        around = self.defaults_here() or Defaults(())
        functions = self.elements(first)
        if not functions or any(isinstance(atom, Unknown) for atom in functions) or arguments.spread:
            return Defaults(around.entries, anything=True)
        nodes = dict(arguments.keyword_nodes)
        given = tuple((n, v, _placeless(nodes.get(n))) for n, v in arguments.keywords)
        return Defaults((*around.entries, (functions, given)), around.anything)

    def defaults_here(self) -> Defaults | None:
        for context in reversed(self.contexts):
            if context.kind == "defaults":
                return next((atom for atom in context.held if isinstance(atom, Defaults)), None)
        return None

    def with_defaults(self, function: Atom, arguments: Arguments) -> Arguments:
        """The arguments of a call, with the defaults that the scopes around give this function."""
        scope = self.defaults_here() if self.contexts else None
        if scope is None:
            return arguments
        given = {name for name, _ in arguments.keywords} | set(_parameters(function)[: len(arguments.positional)])
        keywords, nodes = [], []
        for functions, defaults in reversed(scope.entries):
            for name, value, expression in defaults if function in functions else ():
                if name not in given:
                    given.add(name)
                    keywords.append((name, value))
                    nodes.append((name, expression))
        return replace(
            arguments,
            keywords=(*arguments.keywords, *keywords),
            keyword_nodes=(*arguments.keyword_nodes, *nodes),
            spread=arguments.spread | (UNKNOWN if scope.anything else NOTHING),
        )

    def enter_graph_context(self, names: set[str], value: Value, step: TraceStep) -> None:
        """A ``with`` block gives other defaults, or makes what is built in it come after other operations."""
        if any(isinstance(atom, Defaults) for atom in value):
            scopes = [atom for atom in value if isinstance(atom, Defaults)]
            scope = scopes[0]
            if len(scopes) < len(value) or len(scopes) > 1:
                scope = Defaults(tuple(entry for its in scopes for entry in its.entries), anything=True)
            self.contexts = (*self.contexts, Context("defaults", step, frozenset({scope})))
        elif names & tf1.CONTROL_DEPENDENCIES:
            self.contexts = (*self.contexts, Context("after", step, self.train_steps_in(value)))

    # Which mode a layer is built for

    def mode_parameter(self, layer: str) -> str:
        """The parameter of the functions around that tells whether this is training, and that no test there reads.

        Nothing where the caller may give the layer its mode by a scope: in files that are written for scopes.
        """
        if tf1.takes_defaults(layer, self.frame.scope.source.text):
            return ""
        frame = self.frame
        while frame is not None:
            function = frame.function
            for param in function.node.params if function is not None else ():
                if function is not None and tf1.MODE_PARAMETER.fullmatch(param.name.lower()):
                    return "" if _is_tested(function, param.name) else param.name
            if frame.outer is None:
                break
            frame = frame.outer
        return ""

    def is_chosen_by_mode(self) -> bool:
        """Whether a test around tells training from inference."""
        words = {word for names, _ in self.name_tests for word in names.lower().replace(".", " ").split()}
        return self.asked or any("train" in word or "phase" in word or "test" in word for word in words)

    # Training steps

    def train_step(self, node: ir.Call) -> Value:
        """``optimizer.minimize(loss)``: the operation that changes the weights."""
        key, event = self.event(node, events.TrainStepBuilt)
        if event is None:
            event = events.TrainStepBuilt(self.location(node.span), self.surroundings())
            self.remember(key, event)
            self.facts.train_steps.append(event)
        return frozenset({TrainStep(event)})

    def train_steps_in(self, value: Value, depth: int = 3) -> Value:
        """The training steps among what a value holds."""
        found: Value = NOTHING
        for atom in value:
            if isinstance(atom, TrainStep):
                found |= frozenset({atom})
            elif isinstance(atom, (Tuple, Instance)) and depth and getattr(atom, "cls", None) is None:
                found |= self.train_steps_in(self.elements(frozenset({atom})), depth - 1)
        return found

    def joined_steps(self, arguments: Arguments) -> Value:
        """The training steps that come with an operation made of others, or made where it must come after them."""
        found = self.train_steps_in(arguments.everything())
        for context in self.contexts:
            if context.kind == "after":
                found |= context.held
        return found

    def run_operations(self, node: ir.Call, arguments: Arguments) -> None:
        """``session.run(operations)`` or ``operation.run()``."""
        run = self.train_steps_in(arguments.everything())
        named = [node.func.value] if isinstance(node.func, ir.Attr) else []
        for part in ir.nodes(tuple(argument.value for argument in node.args), nested=False):
            named += [part] if isinstance(part, (ir.Name, ir.Attr)) else []  # in what nothing is known of, as a sum
        for expression in named:
            run |= self.train_steps_in(self.evaluate(expression))
        for atom in run:
            if isinstance(atom, TrainStep):
                atom.event.run_at = atom.event.run_at or TraceStep(self.location(node.span), "run here")


def _is_none(atom: Atom) -> bool:
    return only_constant(frozenset({atom})) == (True, None)


def _placeless(expression: ir.Expr | None) -> ir.Expr:
    """An expression for another place than its own, where no edit may look for it."""
    return ir.Const(expression.value) if isinstance(expression, ir.Const) else expression or ir.Opaque()


def _parameters(function: Atom) -> tuple[str, ...]:
    match function:
        case Ref(name=name) if name in LAYERS:
            return LAYERS[name].parameters
        case Function(node=node):
            return tuple(param.name for param in node.params)
    return ()


def _is_tested(function: Function, name: str) -> bool:
    """Whether any test in a function's body reads this name."""
    tests = [n.test for n in ir.nodes(function.node.body) if isinstance(n, (ir.If, ir.IfElse, ir.While, ir.Assert))]
    return any(isinstance(n, ir.Name) and n.id == name for test in tests for n in ir.nodes(test))
