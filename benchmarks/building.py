"""What a library's function or class builds, by following one call of it.

bnlint's own analysis says what *may* be, for any caller and any path; a catalogue wants what *is*, for this call.
"""

from __future__ import annotations

import builtins
import itertools
import math
import operator
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from exact import COLLECTIONS, PLAIN, Bound, Exact, Held, Inexact, Plain, is_container, is_module

from bnlint.frameworks import functions as known
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import ir
from bnlint.semantics.arguments import NONE_GIVEN, Arguments
from bnlint.semantics.state import ELEMENTS
from bnlint.semantics.values import (
    NOTHING,
    UNKNOWN,
    Atom,
    BoundFunction,
    Class,
    Constant,
    File,
    Function,
    Instance,
    Mystery,
    Partial,
    Ref,
    Tensor,
    Tuple,
    Unknown,
    Value,
    constant,
    join,
)

#: Their arguments are taken apart; those of other methods are handed on as the things they are.
_TAKES_APART = frozenset({"extend", "update", "join", "startswith", "endswith", "union", "intersection", "difference"})
_PURE = {"math": math, "re": re, "itertools": itertools, "operator": operator}
#: What these return is no module.
_NO_MODULES = (
    "torch.", "numpy.", "logging.", "warnings.", "os.", "sys.", "time.", "random.", "keras.backend.", "math.",
    "dataclasses.", "inspect.", "typing.", "json.", "re.", "packaging.", "collections.", "itertools.",
)  # fmt: skip
_MAY_BE_MODULES = re.compile(
    r"torch\.(?:nn\.[A-Z](?!.*\.)(?!arameter)|hub\.|load|jit\.|compile|fx\.)|torch\.nn\.utils\."
)
#: Modules of PyTorch that have dropout in them: the place of its probability among the arguments.
_WITH_DROPOUT = {
    "torch.nn.TransformerEncoderLayer": 3,
    "torch.nn.TransformerDecoderLayer": 3,
    "torch.nn.Transformer": 5,
}
_TYPES: dict[str, Any] = {name: thing for name, thing in vars(builtins).items() if isinstance(thing, type)}
_TYPES |= {"Iterable": Iterable, "Mapping": Mapping, "Sequence": (list, tuple, str), "Number": (int, float)}
_TYPES |= {"List": list, "Tuple": tuple, "Dict": dict, "MutableSequence": list, "Sized": Iterable}


@dataclass(frozen=True)
class Factory(Atom):
    """``dataclasses.field(default_factory=…)``."""

    make: Value


class Builder(Exact):
    def build(self, name: str, given: Mapping[str, Value] = MappingProxyType({})) -> Value:
        """What the function or class of this name builds, called with these arguments."""
        callee = self.lookup(name)
        if callee is None:
            return UNKNOWN
        return self.call_value(callee, Arguments((), tuple(given.items())), ir.Call(ir.Name(name), (), None))

    def is_asked_for_more(self, name: str, given: Mapping[str, Value]) -> bool:
        """Whether the function or class of this name needs arguments that are not given."""
        for atom in self.lookup(name) or UNKNOWN:
            inits = [atom] if isinstance(atom, Function) else atom.lookup("__init__") if isinstance(atom, Class) else ()
            for function in inits or ():
                params = function.node.params if isinstance(function, Function) else ()
                named = [param for param in params if param.kind in ("positional", "keyword")]
                needed = [param.name for param in named if not param.default]
                if not {"self", *given}.issuperset(needed):
                    return True
        return False

    def forget(self) -> None:
        """Forget what was built, and keep what the files define."""
        assert self.state is not None
        for atom in self._temporary:
            for name in self.fields.pop(atom, ()):
                self.state.slots.pop((atom, name))
                self.state.doubtful.pop((atom, name))
            if isinstance(atom, (Instance, Mystery)):
                self.state.modes.pop(atom)
        self._temporary, self.steps = set(), 0
        self.frame.children.clear()
        self.facts.layers.clear()

    def keys_of(self, name: str) -> list[str]:
        """The keys of a table in the file."""
        return [str(key) for key in self.exact(self.lookup(name) or UNKNOWN)]

    # Calls

    def other_keywords(self, function: Function, keywords: dict[str, Value], unlisted: Value) -> Value:
        mapping = self.wrap({name: self._shown(value) for name, value in keywords.items()})
        if unlisted:
            (owner,) = mapping
            assert isinstance(owner, Instance)
            self.add_elements(owner, unlisted)
        return mapping

    def _call_atom(self, atom: Atom, arguments: Arguments, node: ir.Call) -> Value:
        if isinstance(atom, Bound):
            try:
                method = getattr(self.exact(atom.owner), atom.name, None)
                return self._applied(method, arguments) if callable(method) else PLAIN
            except Inexact:
                return PLAIN
        return PLAIN if isinstance(atom, Plain) else super()._call_atom(atom, arguments, node)

    def _call_collection_method(self, owner: Instance, name: str, arguments: Arguments) -> Value:
        assert self.state is not None
        if owner.kind == "builtins.dict" and name in ("get", "pop", "setdefault") and arguments.positional:
            return self._call_dict_method(owner, name, arguments)
        if name == "append" and owner.kind == "builtins.list" and len(arguments.positional) == 1:
            number = len(self.fields.get(owner, ()))
            if (owner, repr(number - 1)) in self.state.slots:  # without reading all of a long list
                self.set_field(owner, repr(number), arguments.positional[0])
                return constant(None)
        try:
            contents = self._contents(owner)
            method = getattr(
                contents,
                "append" if name == "add" else "extend" if name == "update" and isinstance(contents, list) else name,
            )
            if isinstance(contents, dict) and name == "update" and not arguments.spread:
                contents.update({keyword: self._shown(value) for keyword, value in arguments.keywords})
                arguments = replace(arguments, keywords=())
            found = self._applied(method, arguments, apart=name in _TAKES_APART)
            if name not in ("keys", "values", "items", "index", "count", "copy"):
                self._store(owner, contents)
            return found
        except (Inexact, AttributeError):
            found = super()._call_collection_method(owner, name, arguments)
            pseudo = any(isinstance(atom, Tuple) for atom in found)
            return self._unordered(self.elements(found)) if pseudo else found

    def _call_dict_method(self, owner: Instance, name: str, arguments: Arguments) -> Value:
        assert self.state is not None
        default = arguments.at(1) or arguments.get("default") or constant(None)
        key = self._shown(arguments.positional[0])
        held = self.state.slots.get((owner, repr(key)))
        others = self.state.slots.get((owner, ELEMENTS)) or NOTHING
        doubtful = self.state.doubtful.get((owner, repr(key)))
        if isinstance(key, Held) and held is None:
            try:
                held = self.wrap(self._contents(owner)[key])
            except (Inexact, LookupError):
                return join(self.elements(frozenset({owner})), default)
        found = others | default if held is None else join(held, default) if doubtful else held
        if name == "pop" and held is not None:
            self.state.slots.pop((owner, repr(key)))
            self.state.doubtful.pop((owner, repr(key)))
        if name == "setdefault":
            self.set_field(owner, self._key(key), found)
        return found

    def inherited_method(self, owner: Any, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name == "__init__" and isinstance(owner, Instance) and owner.cls is not None:
            for base in sorted(owner.cls.library_bases()):
                self._initialise(owner, base, arguments)
            return constant(None)
        return super().inherited_method(owner, name, arguments, node)

    def _call_torch_method(self, owner: Instance, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name in ("add_module", "register_module") and len(arguments.positional) == 2:
            with suppress(Inexact):
                self.set_field(owner, str(self.exact(arguments.positional[0])), arguments.positional[1])
                return constant(None)
        if name in ("children", "named_children"):
            pairs = [(key, value) for key, value in self.field_values(owner) if is_module(value)]
            return self.wrap([(key, Held(value)) if name == "named_children" else Held(value) for key, value in pairs])
        if name in ("register_buffer", "register_parameter") and arguments.positional:
            with suppress(Inexact):
                self.set_field(owner, str(self.exact(arguments.positional[0])), PLAIN)
            return constant(None)
        if name in ("append", "extend", "insert", "update") and is_container(owner):
            self._add_children(owner, arguments.positional)
            return frozenset({owner})
        return super()._call_torch_method(owner, name, arguments, node)

    def _build_container(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        if name not in known.TORCH_CONTAINERS:
            return super()._build_container(name, arguments, node)
        container, _ = self.new_object(node, name, node.span, framework="torch")
        self._initialise(container, name, arguments)
        return frozenset({container})

    def _initialise(self, owner: Instance, base: str, arguments: Arguments) -> None:
        """What the ``__init__`` of a library's class does to an object."""
        if base in LAYERS:
            owner.arguments.update(zip(LAYERS[base].parameters, arguments.positional, strict=False))
            owner.arguments.update(arguments.keywords)
        elif base in known.TORCH_CONTAINERS:
            self._add_children(owner, [*arguments.positional, *([arguments.spread] if arguments.spread else [])])
        elif base in _WITH_DROPOUT:
            rate = arguments.at(_WITH_DROPOUT[base]) or arguments.get("dropout") or constant(0.1)
            dropout = Instance("torch.nn.Dropout", self.location(None), framework="torch", arguments={"p": rate})
            self.add_elements(owner, frozenset({dropout}))

    def instantiate(self, cls: Class, arguments: Arguments, node: ir.Expr) -> Value:
        value = super().instantiate(cls, arguments, node)
        (instance,) = value
        assert isinstance(instance, Instance)
        bases = cls.library_bases()
        for base in sorted(bases):
            if base in LAYERS:
                instance.kind = base
            if cls.lookup("__init__") is None and (base in LAYERS or base in _WITH_DROPOUT):
                self._initialise(instance, base, arguments)
        if self._is_dataclass(cls):
            names = [name for name, held in self._fields_of(cls)]
            for name, held in self._fields_of(cls):
                factories = [atom for atom in held if isinstance(atom, Factory)]
                if factories:
                    self.set_field(
                        instance, name, self.call_value(factories[0].make, NONE_GIVEN, ir.Call(node, (), None))
                    )
            for name, held in (*zip(names, arguments.positional, strict=False), *arguments.keywords):
                self.set_field(instance, name, held)
            for atom in cls.lookup("__post_init__") or ():
                if isinstance(atom, Function):
                    self.run_function(atom, instance, NONE_GIVEN, node)
        return value

    def _is_dataclass(self, cls: Class) -> bool:
        return cls.lookup("__init__") is None and any(
            "dataclass" in repr(decorator) for ancestor in cls.ancestors() for decorator in ancestor.node.decorators
        )

    @staticmethod
    def _fields_of(cls: Class) -> list[tuple[str, Value]]:
        found: dict[str, Value] = {}
        for ancestor in reversed(cls.ancestors()):
            found.update(ancestor.attributes)
        return [(name, value) for name, value in found.items() if not any(isinstance(a, Function) for a in value)]

    def _as_dict(self, instance: Instance) -> dict[str, Value]:
        assert instance.cls is not None
        return {**dict(self._fields_of(instance.cls)), **dict(self.field_values(instance))}

    # Libraries

    @staticmethod
    def _model_of_library(name: str, arguments: Arguments) -> tuple[str, ...] | None:
        return None  # the catalogue is what is being made

    def call_library(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        root, _, last = name.rpartition(".")
        first = arguments.at(0) or UNKNOWN
        try:
            if root in _PURE:
                return self._applied(getattr(_PURE[root], last), arguments)
            if name in ("collections.OrderedDict", "collections.deque"):
                return self._applied(dict if last == "OrderedDict" else list, arguments)
        except (Inexact, AttributeError):
            return self._unordered(self.children(arguments) or PLAIN)
        if name == "collections.defaultdict":
            return self.wrap({})
        if name in ("os.environ.get", "os.getenv"):
            return arguments.at(1) or constant(None)
        if name == "keras.backend.image_data_format":
            return constant("channels_last")
        if name in ("copy.deepcopy", "copy.copy"):
            return self._copied(first) or super().call_library(name, arguments, node)
        if name == "dataclasses.field":
            factory = arguments.get("default_factory")
            return frozenset({Factory(factory)}) if factory is not None else arguments.get("default") or UNKNOWN
        if root == "dataclasses" and len(first) == 1 and isinstance(owner := next(iter(first)), Instance) and owner.cls:
            fields = self._as_dict(owner)
            if last == "asdict":
                return self.wrap({key: self._shown(value) for key, value in fields.items()})
            if last == "replace":
                changed = Arguments((), tuple({**fields, **dict(arguments.keywords)}.items()))
                return self.instantiate(owner.cls, changed, node)
        if last == "__init__" and first:
            for atom in first:
                if isinstance(atom, Instance):
                    self._initialise(atom, root, replace(arguments, positional=arguments.positional[1:]))
            return constant(None)
        if name in _WITH_DROPOUT:
            module, _ = self.new_object(node, name, node.span, framework="torch")
            self._initialise(module, name, arguments)
            return frozenset({module})
        found = super().call_library(name, arguments, node)
        if name.startswith("keras.") and last[0].islower() and found & UNKNOWN:
            through = frozenset(a for a in self.children(arguments) if isinstance(a, Instance))
            if through:
                return frozenset({Tensor("symbolic", through=through)})
        if name.startswith(_NO_MODULES) and not _MAY_BE_MODULES.match(name):
            return frozenset(atom for atom in found if not isinstance(atom, Unknown)) or PLAIN
        return found

    def _copied(self, value: Value) -> Value | None:
        """A copy of collections, and of what is in them; None where modules are to be copied."""
        try:
            thing = self.exact(value)
        except Inexact:
            return None
        if isinstance(thing, Held):
            return None if any(isinstance(atom, Instance) for atom in value) else value

        def copied(item: Any) -> Any:
            return Held(self._copied(item.value) or item.value) if isinstance(item, Held) else item

        if isinstance(thing, dict):
            return self.wrap({key: copied(item) for key, item in thing.items()})
        return self.wrap([copied(item) for item in thing]) if isinstance(thing, list) else value

    def _call_builtin(self, name: str, arguments: Arguments, node: ir.Call) -> Value:
        first = arguments.at(0) or UNKNOWN
        if name in ("isinstance", "issubclass") and len(arguments.positional) == 2:
            answers = {self._is_a(atom, arguments.positional[1], name == "issubclass") for atom in first}
            answer = answers.pop() if len(answers) == 1 else None
            return PLAIN if answer is None else constant(answer)
        if name in ("getattr", "hasattr") and len(arguments.positional) >= 2:
            return self._get_attribute(name, first, arguments, node)
        if name == "callable":
            return constant(all(isinstance(a, (Class, Function, Partial, Ref, BoundFunction)) for a in first))
        if name == "type" and len(first) == 1 and isinstance(owner := next(iter(first)), Instance) and owner.cls:
            return frozenset({owner.cls})
        if (
            name == "map"
            and len(arguments.positional) == 2
            and (items := self.items(arguments.positional[1])) is not None
        ):
            return self.wrap([self._shown(self.call_value(first, Arguments((item,)), node)) for item in items])
        if name in ("super", "setattr", "vars"):
            return super()._call_builtin(name, arguments, node)
        function = getattr(builtins, name, None)
        if name == "zip":  # what is zipped has one length
            arguments = replace(arguments, positional=self._of_one_length(arguments.positional))
        try:
            if name in ("print", "open", "input", "id", "exec", "eval", "getattr") or not callable(function):
                return PLAIN
            return self._applied(function, arguments)
        except Inexact:
            if name in ("list", "tuple", "set", "reversed", "sorted", "iter", "enumerate", "zip", "filter", "dict"):
                found = super()._call_builtin(name, arguments, node)
                pseudo = any(isinstance(atom, Tuple) for atom in found)
                return self._unordered(self.elements(found)) if pseudo else found
            if name == "next":
                return self.iterate(first)
            return self.tensors_of(arguments.everything()) or PLAIN

    def _of_one_length(self, collections: tuple[Value, ...]) -> tuple[Value, ...]:
        counts = [len(items) for value in collections if (items := self.items(value)) is not None]
        if not counts:
            return collections
        return tuple(
            value if self.items(value) is not None else self.wrap([Held(self.iterate(value))] * min(counts))
            for value in collections
        )

    def _get_attribute(self, name: str, owners: Value, arguments: Arguments, node: ir.Call) -> Value:
        assert self.state is not None
        try:
            attribute = self.exact(arguments.positional[1])
        except Inexact:
            return PLAIN if name == "hasattr" else UNKNOWN
        found: Value = NOTHING
        there: set[bool | None] = set()
        for atom in owners:
            held: Value | None = None
            decided = True
            if isinstance(atom, Instance):
                own = (atom, attribute) in self.state.slots or (atom.cls and atom.cls.lookup(attribute) is not None)
                decided = bool(own) or attribute not in known.MODULE_METHODS
                held = self.attribute_of(atom, attribute, node) if own or not decided else None
            elif isinstance(atom, Class):
                held = atom.lookup(attribute)
            elif isinstance(atom, File):
                held = self.member_of(atom, attribute)
            elif isinstance(atom, (Constant, Tuple)):
                held = (
                    self.attribute_of(atom, attribute, node)
                    if hasattr(self.exact(frozenset({atom})), attribute)
                    else None
                )
            elif isinstance(atom, (Function, Partial)):
                held = None
            else:
                held, decided = self.attribute_of(atom, attribute, node), False
            there.add(held is not None if decided else None)
            default = arguments.at(2)
            found = join(found, held if held is not None else default if default is not None else UNKNOWN)
            if not decided and default is not None and not isinstance(atom, (Ref, Instance)):
                found = join(found, default)
        if name == "getattr":
            return found
        answer = there.pop() if len(there) == 1 else None
        return PLAIN if answer is None else constant(answer)

    def _is_a(self, atom: Atom, classes: Value, itself: bool) -> bool | None:
        """Whether this is an instance of one of these classes, or (``itself``) one of them or a class below it."""
        answers = set()
        for wanted in classes:
            if isinstance(wanted, Tuple):
                answers |= {self._is_a(atom, item, itself) for item in wanted.items}
            else:
                answers.add(self._is_one(atom, wanted, itself))
        return True if True in answers else None if None in answers or not answers else False

    def _is_one(self, atom: Atom, wanted: Atom, itself: bool) -> bool | None:
        if isinstance(atom, (Unknown, Plain, Tensor)) or not isinstance(wanted, (Class, Ref)):
            return None
        cls = atom if isinstance(atom, Class) else atom.cls if isinstance(atom, Instance) else None
        if isinstance(wanted, Class):
            return cls is not None and (itself or isinstance(atom, Instance)) and wanted in cls.ancestors()
        name = wanted.name
        if itself:
            bases = cls.library_bases() if cls is not None else {atom.name} if isinstance(atom, Ref) else set()
            return name in bases or (name == "torch.nn.Module" and any(base.startswith("torch.nn.") for base in bases))
        if isinstance(atom, (Constant, Tuple)) or (isinstance(atom, Instance) and atom.kind in COLLECTIONS):
            thing: Any = atom.value if isinstance(atom, Constant) else ()
            if isinstance(atom, Instance):
                thing = {} if atom.kind == "builtins.dict" else []
            return isinstance(thing, _TYPES.get(name.rpartition(".")[2], ()))
        if isinstance(atom, Instance):
            if name in known.LAYER_BASES and atom.kind in LAYERS:
                return LAYERS[atom.kind].kind == known.LAYER_BASES[name]
            bases = cls.library_bases() if cls is not None else frozenset({atom.kind})
            return name in bases or atom.kind == name or (name == "torch.nn.Module" and atom.framework == "torch")
        if name.endswith("FunctionType"):
            return isinstance(atom, (Function, BoundFunction))
        if name == "functools.partial":
            return isinstance(atom, Partial)
        if name == "builtins.type":
            return isinstance(atom, Class) or (isinstance(atom, Ref) and atom.name.rpartition(".")[2][:1].isupper())
        return False
