"""Which layer feeds which: the events of ``applied``.

Tensors carry what made them (``Tensor.made_by``), and so do sequential containers, which hold what they would give in
a slot of their own. Only files in which a rule asks for it are run by this interpreter; others pay nothing.
"""

from __future__ import annotations

from dataclasses import replace

from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import canonical
from bnlint.frameworks.neighbours import (
    DATA_FORMATS,
    FUNCTION_PARAMETERS,
    FUNCTIONS,
    GETS_DATA_FORMAT,
    NEIGHBOURS,
    SEQUENTIAL,
    SETS_DATA_FORMAT,
)
from bnlint.semantics import events, ir
from bnlint.semantics.arguments import Arguments
from bnlint.semantics.frames import Scope
from bnlint.semantics.interpreter import Interpreter
from bnlint.semantics.project import Project
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    Constant,
    Instance,
    Mystery,
    Ref,
    Tensor,
    Tuple,
    Value,
    constant,
    join,
    only_constant,
)
from bnlint.source.parse import Source

#: Slots of an object, of which its ``fields`` know nothing: the tensor that a sequential container gives, the items of
#: a list in their order.
_OUTPUT = "<output>"
_ITEMS = "<items>"
_DATA_FORMAT = "<data_format>"
#: Methods that give a tensor of the same values.
_SAME_VALUES = frozenset({"cuda", "to", "cpu", "float", "contiguous", "clone"})
_SHAPES = ("input_shape", "batch_input_shape", "shape", "batch_shape", "target_shape")


class ChainInterpreter(Interpreter):
    """Adds ``facts.applied``."""

    def __init__(self, source: Source, project: Project | None = None) -> None:
        super().__init__(source, project)
        self._alone = True  # whether what is called can be nothing else
        self._constructions: dict[Instance, ir.Call] = {}

    # Applications

    def _application(self, layer: Instance, inputs: Value, by: ir.Call | Instance) -> events.Applied:
        """``by`` is the call that applies the layer, or the container that holds it."""
        makers = {atom.made_by if isinstance(atom, Tensor) else None for atom in inputs} or {None}
        key, event = self.event(by, events.Applied, id(layer))
        if isinstance(event, events.Applied):
            event.inputs |= makers
            event.alone &= self._alone
        else:
            place = layer.location if isinstance(by, Instance) else self.location(by.span)
            event = events.Applied(place, layer, makers, self._alone, self.surroundings())
            event.construction = self._constructions.get(layer)
            self.remember(key, event)
            self.facts.applied.append(event)
        for maker in makers:
            if maker is not None:
                maker.consumers.add(event)
        return event

    def call_value(self, callee: Value, arguments: Arguments, node: ir.Call) -> Value:
        before, self._alone = self._alone, len(callee) == 1
        value = super().call_value(callee, arguments, node)
        self._alone = before
        return value

    def forward(self, target: Instance | Mystery, arguments: Arguments, node: ir.Call) -> Value:
        value = super().forward(target, arguments, node)
        if not isinstance(target, Instance):
            return value
        given = [arguments.at(0), *(arguments.get(name) for name in ("input", "inputs", "x"))]
        inputs: Value = next((its for its in given if its), UNKNOWN)
        if len(arguments.positional) > 1 and target.framework == "torch":
            inputs = UNKNOWN  # something beside it goes in
        output = self._output(target) if target.kind in SEQUENTIAL and target.cls is None else None
        made: list[events.Applied | None]
        if output is None:
            made = [self._application(target, inputs, node)]
        else:
            made = [atom.made_by if isinstance(atom, Tensor) else None for atom in output]
            for maker in made:
                if maker is not None:
                    maker.exits.add(id(node))
        return frozenset(
            replace(atom, made_by=maker) if isinstance(atom, Tensor) else atom for atom in value for maker in made
        )

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in SETS_DATA_FORMAT:
            self._set_data_format(arguments.at(0) or UNKNOWN)
        if name in GETS_DATA_FORMAT:
            return self._data_format() or UNKNOWN
        if name == "collections.OrderedDict" and len(arguments.positional) == 1 and not arguments.keywords:
            modules = [_second(item) for item in self._in_order(arguments) or ()]
            if modules and all(modules):
                return frozenset({Tuple(tuple(modules))})
        value = super().call_library(name, arguments, node)
        if name in FUNCTIONS:
            return self._call_like_a_layer(FUNCTIONS[name], arguments, node, value)
        facts = NEIGHBOURS.get(name)
        if name.startswith("keras."):
            self._note_shapes(arguments, facts.parameters if facts is not None else ())
        for atom in value:
            if isinstance(atom, Instance) and atom.kind == name:
                self._constructions[atom] = node
                if facts is not None:
                    self._bind(atom, facts.parameters, arguments, not atom.arguments)
                    layout = self._data_format()
                    if facts.framework == "keras" and layout is not None:
                        atom.arguments.setdefault("data_format", layout)
        return value

    def _call_like_a_layer(self, kind: str, arguments: Arguments, node: ir.Call, value: Value) -> Value:
        layer, first = self.new_object(node, kind, node.span, framework=kind.partition(".")[0])
        rest = replace(arguments, positional=arguments.positional[1:], positional_nodes=arguments.positional_nodes[1:])
        self._bind(layer, FUNCTION_PARAMETERS if kind in LAYERS else NEIGHBOURS[kind].parameters, rest, first)
        made = self._application(layer, arguments.at(0) or arguments.get("input") or UNKNOWN, node)
        tensors = [atom for atom in value if isinstance(atom, Tensor)] or [Tensor("unknown")]
        return frozenset(replace(atom, made_by=made) for atom in tensors)

    def _bind(self, layer: Instance, parameters: tuple[str, ...], arguments: Arguments, first: bool) -> None:
        """Arguments by parameter name, as for the layers with two modes; joined over the passes."""
        for name, value in arguments.bound(parameters).items():
            layer.arguments[name] = value if first else value | layer.arguments.get(name, NOTHING)
        layer.argument_nodes = arguments.bound_nodes(parameters)

    # Who reads a tensor

    def evaluate(self, node: ir.Expr) -> Value:
        value = super().evaluate(node)
        if isinstance(node, ir.Name):
            for atom in value:
                if isinstance(atom, Tensor) and atom.made_by is not None:
                    atom.made_by.readers.add(id(node))
        elif isinstance(node, ir.Subscript):
            return _another(value)
        return value

    def attribute_of(self, atom: Atom, name: str, node: ir.Expr) -> Value:
        value = super().attribute_of(atom, name, node)
        return _another(value) if isinstance(atom, Tensor) and name not in _SAME_VALUES else value

    def iterate(self, value: Value) -> Value:
        return _another(super().iterate(value))

    def _unpacked(self, value: Value, position: int, count: int) -> Value:
        found = super()._unpacked(value, position, count)
        return _another(found) if any(isinstance(atom, Tensor) for atom in value) else found

    # Containers

    def _build_container(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        value = super()._build_container(name, arguments, node)
        for atom in value:
            if isinstance(atom, Instance) and name in SEQUENTIAL:
                self._fill(atom, arguments)
        return value

    def inherited_method(self, owner: Instance | Mystery, name: str, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        value = super().inherited_method(owner, name, arguments, node)
        if isinstance(owner, Instance) and self._is_sequential(owner):
            if name == "__init__":  # super().__init__(conv, norm)
                self._fill(owner, arguments)
            elif name in ("add", "append", "add_module", "register_module"):
                added = arguments.positional[-1] if arguments.positional and not arguments.spread else UNKNOWN
                output = self._output(owner) or UNKNOWN
                self.state.slots[owner, _OUTPUT] = self._behind(output, added, owner)
            elif name in ("insert", "extend", "pop"):
                self.state.slots[owner, _OUTPUT] = UNKNOWN
        return value

    def _is_sequential(self, owner: Instance) -> bool:
        if owner.cls is None:
            return owner.kind in SEQUENTIAL
        own = owner.cls.lookup("forward") or owner.cls.lookup("call")
        return own is None and bool(owner.cls.library_bases() & SEQUENTIAL)

    def _output(self, container: Instance) -> Value | None:
        assert self.state is not None
        return self.state.slots.get((container, _OUTPUT))

    def _fill(self, container: Instance, arguments: Arguments) -> None:
        assert self.state is not None
        output: Value = UNKNOWN
        items = self._in_order(arguments)
        for item in items or ():
            output = self._behind(output, item, container)
        self.state.slots[container, _OUTPUT] = output if items is not None else UNKNOWN

    def _behind(self, output: Value, item: Value, container: Instance) -> Value:
        """What comes out of a sequence behind one more module."""
        atoms = list(item)
        if atoms and all(isinstance(atom, Tensor) and atom.kind == "symbolic" for atom in atoms):
            return output  # the input of a Keras model
        if len(atoms) != 1 or not isinstance(atoms[0], Instance) or atoms[0].framework is None:
            return UNKNOWN
        module = atoms[0]
        inner = self._output(module) if module.kind in SEQUENTIAL and module.cls is None else None
        if inner is not None:
            return inner
        before, self._alone = self._alone, True
        made = self._application(module, output, container)
        self._alone = before
        return frozenset({Tensor("unknown", made_by=made)})

    # The order of what is in a list

    def note_items(self, collection: Instance, items: tuple[Value, ...]) -> None:
        assert self.state is not None
        self.state.slots[collection, _ITEMS] = frozenset({Tuple(items)})

    def add_elements(self, owner: Instance, value: Value, doubtful: Value = NOTHING) -> None:
        super().add_elements(owner, value, doubtful)
        self._forget_order(owner)

    def set_field(self, owner: Atom, name: str, value: Value) -> None:
        super().set_field(owner, name, value)
        if isinstance(owner, Instance) and owner.kind == "builtins.list":
            self._forget_order(owner)

    def _forget_order(self, owner: Instance) -> None:
        assert self.state is not None
        if owner.kind == "builtins.list":
            self.state.slots[owner, _ITEMS] = UNKNOWN

    def items(self, value: Value) -> list[Value] | None:
        """The items of a list that is written out, in their order."""
        assert self.state is not None
        atoms = list(value)
        if len(atoms) != 1 or not isinstance(atoms[0], Instance):
            return None
        held = list(self.state.slots.get((atoms[0], _ITEMS)) or NOTHING)
        return list(held[0].items) if len(held) == 1 and isinstance(held[0], Tuple) else None

    def _in_order(self, arguments: Arguments) -> list[Value] | None:
        """The items that a container is given, where their order is known."""
        if arguments.spread:
            return None
        given = list(arguments.positional) or [arguments.get("layers") or NOTHING]
        if len(given) == 1 and len(given[0]) == 1:
            (only,) = given[0]
            if isinstance(only, Tuple):
                return list(only.items)
            if isinstance(only, Instance) and only.kind.startswith("builtins."):
                return self.items(given[0])
        return given

    # Layouts

    def _data_format(self) -> Value | None:
        """The layout that convolutions take where they are told none, if the file sets one."""
        assert self.state is not None
        return self.state.slots.get((self.root.frame, _DATA_FORMAT))

    def _set_data_format(self, value: Value) -> None:
        assert self.state is not None
        layout = frozenset(
            Constant(DATA_FORMATS[atom.value])
            if isinstance(atom, Constant) and isinstance(atom.value, str) and atom.value in DATA_FORMATS
            else next(iter(UNKNOWN))
            for atom in value
        )
        if self.frame.function is not None:  # somebody calls it at some time
            layout = join(layout, self._data_format() or constant("channels_last"))
        self.state.slots[self.root.frame, _DATA_FORMAT] = layout

    def _note_shapes(self, arguments: Arguments, parameters: tuple[str, ...]) -> None:
        """The shapes of inputs that are written out, without the batch; None for sizes that are not."""
        bound = {**dict(zip(parameters, arguments.positional, strict=False)), **dict(arguments.keywords)}
        for name in _SHAPES:
            for atom in bound.get(name, NOTHING):
                if isinstance(atom, Tuple):
                    sizes = [_size(item) for item in atom.items]
                    self.facts.input_shapes.add(tuple(sizes[1:] if name.startswith("batch") else sizes))
                else:
                    self.facts.input_shapes.add(None)

    def from_star_import(self, scope: Scope, name: str) -> Value | None:
        found = super().from_star_import(scope, name)
        if found is not None:
            return found
        full = [canonical(f"{module}.{name}") for module in reversed(scope.source.stars)]
        return next((frozenset({Ref(its)}) for its in full if its in NEIGHBOURS), None)


def _another(value: Value) -> Value:
    """Not the tensors themselves, but something computed from them."""
    if not any(isinstance(atom, Tensor) and atom.made_by is not None for atom in value):
        return value
    return frozenset(replace(atom, made_by=None) if isinstance(atom, Tensor) else atom for atom in value)


def _second(item: Value) -> Value:
    """The module of a pair of name and module; nothing for anything else."""
    pairs = [atom for atom in item if isinstance(atom, Tuple) and len(atom.items) == 2]
    return pairs[0].items[1] if len(pairs) == len(item) == 1 else NOTHING


def _size(value: Value) -> int | None:
    _, only = only_constant(value)
    return only if isinstance(only, int) and not isinstance(only, bool) else None
