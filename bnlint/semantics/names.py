"""What names and attributes stand for, in the analysed file and in those that it imports."""

from __future__ import annotations

from abc import abstractmethod

from bnlint.frameworks.functions import (
    CONTAINER_METHODS,
    KERAS_BASES,
    KERAS_VARIABLES,
    MODULE_METHODS,
    NO_GRAD,
    SHAPE_ATTRIBUTES,
    SYMBOLIC_INPUTS,
    TAPE,
    TENSOR_MAKERS,
    TORCH_BASES,
)
from bnlint.frameworks.layers import LAYERS
from bnlint.frameworks.names import canonical, framework_of
from bnlint.semantics import ir
from bnlint.semantics.frames import Scope
from bnlint.semantics.modules import Modules
from bnlint.semantics.project import Found
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Class,
    File,
    Function,
    Instance,
    Loader,
    Method,
    Mystery,
    Part,
    Partial,
    PartMethod,
    Ref,
    SavedMode,
    Super,
    Tensor,
    Unknown,
    Value,
    VariableMethod,
    Variables,
    as_default,
    join,
)
from bnlint.source.positions import Span

_KNOWN_NAMES = frozenset(LAYERS) | TENSOR_MAKERS.keys() | NO_GRAD | TAPE | SYMBOLIC_INPUTS | TORCH_BASES | KERAS_BASES
_KNOWN_SHORT_NAMES = frozenset(name.rpartition(".")[2] for name in _KNOWN_NAMES)
_BUILTINS = frozenset(
    {"print", "len", "list", "tuple", "dict", "set", "zip", "enumerate", "range", "isinstance", "issubclass", "super",
     "getattr", "setattr", "hasattr", "reversed", "sorted", "map", "filter", "next", "iter", "str", "int", "float",
     "repr", "type", "sum", "max", "min", "any", "all", "abs", "round", "id", "object", "open", "vars", "callable"}
)  # fmt: skip


class Names(Modules):
    """Adds ``attribute_of`` and ``member_of``."""

    @abstractmethod
    def evaluate(self, node: ir.Expr) -> Value: ...

    @abstractmethod
    def call_method(self, function: Function, receiver: Instance, node: ir.Expr) -> Value: ...

    def _name(self, name: str) -> Value:
        value = self.lookup(name)
        if value is not None:
            return value
        return frozenset({Ref(f"builtins.{name}")}) if name in _BUILTINS else UNKNOWN

    def from_star_import(self, scope: Scope, name: str) -> Value | None:
        for module in reversed(scope.source.stars):
            inner = self.file_of(scope.source.path, module)
            if inner is not None:
                value = self.member_of(inner, name) if not name.startswith("_") else None
                if value is not None:
                    return value
                continue
            full = canonical(f"{module}.{name}")
            # A star import of another framework may well define the same name.
            if full in _KNOWN_NAMES:
                return frozenset({Ref(full)})
            if name in _KNOWN_SHORT_NAMES and framework_of(full) is None and not full.startswith("tensorflow."):
                return UNKNOWN
        return None

    # Other files

    def file_of(self, importer: str, name: str) -> File | None:
        """The module of the project that a file imports by this name."""
        found = self.project.find(importer, name) if self.project is not None else None
        return self._as_file(found)

    def _as_file(self, found: Found | None) -> File | None:
        if found is None or self.project is None:
            return None
        if found.shown is None:
            return File(found.folder or "", None)
        scope = self.scopes.get(found.shown)
        if scope is None:
            source = self.project.source(found.shown)
            if source is None:
                return None
            scope = self.scopes[found.shown] = Scope(source, imported=True)
        return File(found.folder or "", scope)

    def member_of(self, file: File, name: str) -> Value | None:
        """What a module's name stands for: something it defines, or a module in its package."""
        if file.scope is not None:
            scope: Scope = file.scope
            assert self.state is not None
            value = self.state.slots.get((scope.frame, name)) or self.demand(scope, name)
            if value is not None:
                return value
        if file.folder and self.project is not None:
            inner = self._as_file(self.project.submodule(file.folder, name))
            if inner is not None:
                return frozenset({inner})
        return None

    def _attribute(self, node: ir.Attr) -> Value:
        found: Value = NOTHING
        owners = self.evaluate(node.value)
        for atom in owners:
            found = join(found, self.attribute_of(atom, node.name, node))
        return held_by(owners, found) or UNKNOWN

    def attribute_of(self, atom: Atom, name: str, node: ir.Expr) -> Value:
        assert self.state is not None
        match atom:
            case Ref(name=path):
                return frozenset({Ref(canonical(f"{path}.{name}"))})
            case File():
                return self.member_of(atom, name) or UNKNOWN
            case Mystery():
                return self._attribute_of_mystery(atom, name, node)
            case Instance():
                return self._instance_attribute(atom, name, node)
            case Class():
                found = atom.lookup(name)
                if found is None and name == "load_from_checkpoint":
                    return frozenset({Loader(atom)})
                return _bound_to_class(found, atom) if found else UNKNOWN
            case Super(receiver=receiver, cls=cls):
                for base in cls.ancestors()[1:]:
                    if name in base.attributes:
                        return _bound(base.attributes[name], receiver)
                return frozenset({Method(receiver, name)})
            case Part():
                if name in ("parameters", "named_parameters"):
                    return frozenset({VariableMethod(Variables(atom.whole, name), name)})
                if name == "requires_grad_":
                    return frozenset({VariableMethod(Variables(atom.whole), name)})
                return frozenset({PartMethod(atom, name)}) if name in ("eval", "train") else UNKNOWN
            case Variables() if name in ("data", "requires_grad_"):
                return frozenset({atom}) if name == "data" else frozenset({VariableMethod(atom, name)})
            case Tensor():
                return UNKNOWN if name in SHAPE_ATTRIBUTES else frozenset({atom})
        return UNKNOWN

    def _attribute_of_mystery(self, mystery: Mystery, name: str, node: ir.Expr) -> Value:
        assert self.state is not None
        held = self.state.slots.get((mystery, name))
        if held is not None:
            return held
        if name in MODULE_METHODS:
            return frozenset({Method(mystery, name)})
        if name == "module":
            return frozenset({mystery})  # DataParallel and its kin are the module they wrap
        if name == "training":
            return frozenset({SavedMode(mystery, self.state.mode_of(mystery))})
        return frozenset({self.part_of_mystery(mystery, name, span_of(node))})

    def _instance_attribute(self, instance: Instance, name: str, node: ir.Expr) -> Value:
        assert self.state is not None
        if name == "training" and instance.framework == "torch":
            return frozenset({SavedMode(instance, self.state.mode_of(instance))})
        if name in ("forward", "__call__") and instance.framework == "torch":
            return frozenset({Method(instance, name)})  # the same as calling it
        held = self.state.slots.get((instance, name))
        if held is not None:
            return held
        if instance.cls is not None:
            attribute = instance.cls.lookup(name)
            if attribute is not None:
                return self._class_attribute(attribute, instance, node)
        if name in ("__dict__", "_modules"):  # from there anything in it can be reached, or replaced
            self.forget_modes(frozenset({instance}))
            return UNKNOWN
        if instance.framework == "torch" and name == "module":
            return frozenset({instance})  # DataParallel and its kin are the module they wrap
        if instance.framework == "keras" and name in KERAS_VARIABLES:
            return frozenset({Variables(instance)})
        if instance.framework == "keras" and name == "layers":
            return frozenset({Part(instance)})
        if instance.kind.startswith("builtins."):
            return frozenset({Method(instance, name)})
        own_make = instance.framework is None or instance.cls is not None
        if own_make and instance.framework != "keras" and name not in MODULE_METHODS | CONTAINER_METHODS:
            return frozenset({self.part_of_mystery(instance, name, span_of(node))})
        return frozenset({Method(instance, name)})

    def _class_attribute(self, attribute: Value, instance: Instance, node: ir.Expr) -> Value:
        found: Value = NOTHING
        for atom in attribute:
            if isinstance(atom, Function) and "property" in atom.decorators:
                found |= self.call_method(atom, instance, node)
            else:
                found |= _bound(frozenset({atom}), instance)
        return found


def _bound_to_class(value: Value, cls: Class) -> Value:
    """Class methods get the class that they are taken from."""
    first = ((frozenset[Atom]({cls}), ir.Opaque()),)

    def bound(atom: Atom) -> Atom:
        taken = isinstance(atom, Function) and "classmethod" in atom.decorators
        return Partial(frozenset({atom}), first, ()) if taken else atom

    return frozenset(bound(atom) for atom in value)


def _bound(value: Value, receiver: Instance) -> Value:
    if receiver.cls is not None:
        value = _bound_to_class(value, receiver.cls)
    return frozenset(
        BoundFunction(atom, receiver)
        if isinstance(atom, Function) and not atom.decorators & {"staticmethod", "classmethod"}
        else atom
        for atom in value
    )


def held_by(owners: Value, held: Value) -> Value:
    """What is taken from these: of a thing that others may stand in for, numbers are but what it holds by default."""
    return as_default(held) if len(owners) > 1 and any(isinstance(atom, Unknown) for atom in owners) else held


def span_of(node: ir.Expr) -> Span | None:
    return node.span if isinstance(node, (ir.Attr, ir.Call)) else None
