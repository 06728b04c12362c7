"""What modules are made of, and the modes of all that is in them."""

from __future__ import annotations

from dataclasses import replace

from bnlint.finding import TraceStep
from bnlint.frameworks.functions import KERAS_BASES, LAYER_BASES, TORCH_BASES
from bnlint.frameworks.layers import LAYERS
from bnlint.semantics import events
from bnlint.semantics.machine import Machine
from bnlint.semantics.project import Project
from bnlint.semantics.state import ELEMENTS, UNKNOWN_MODE, Guards, Mode, Way
from bnlint.semantics.usage import Usage
from bnlint.semantics.values import (
    NOTHING,
    Atom,
    BoundFunction,
    Class,
    Constant,
    Instance,
    Method,
    Mystery,
    Part,
    Partial,
    Tuple,
    Unknown,
    Value,
    in_order,
    only_constant,
)
from bnlint.source.parse import Source
from bnlint.source.positions import Span

#: Bases of the libraries whose code comes to no attribute by itself.
_PLAIN_BASES = frozenset({"torch.nn.Module", "builtins.object", "abc.ABC", "typing.Generic", "typing.Protocol"})
#: What takes a module apart, whose pieces may then be applied by others.
_TAKES_APART = frozenset({"children", "named_children", "_modules", "get_submodule"})


class Modules(Machine):
    """Adds ``parts`` and what is done to all of them."""

    def __init__(self, source: Source, project: Project | None) -> None:
        super().__init__(source, project)
        self._usages: dict[Class, Usage] = {}

    @staticmethod
    def framework_of_bases(bases: frozenset[str]) -> str | None:
        if bases & TORCH_BASES or bases & LAYER_BASES.keys():
            return "torch"
        if bases & KERAS_BASES:
            return "keras"
        return next((LAYERS[base].framework for base in sorted(bases) if base in LAYERS), None)

    def parts(
        self, whole: Instance | Mystery, applied: bool = False
    ) -> tuple[list[tuple[Instance | Mystery, bool]], bool]:
        """All modules in ``whole``, itself first, each with whether it is surely there; and whether there may be
        others that are not known. With ``applied``, without those that no code can come to."""
        assert self.state is not None
        found: dict[Instance | Mystery, bool] = {}
        settings: set[Mystery] = set()  # numbers, data and the like, which nothing calls
        unknown = False
        stack: list[tuple[Instance | Mystery, bool]] = [(whole, True)]
        while stack:
            instance, certain = stack.pop()
            if found.get(instance, False) or (instance in found and not certain):
                continue
            found[instance] = certain
            if isinstance(instance, Mystery):
                unknown |= instance not in settings
                stack += [(child, False) for child in instance.children.values()]
                settings.update(instance.children.values() if instance in settings else ())
            else:
                if instance.cls is not None and instance.cls.has_unknown_base:
                    unknown = True
                for name, child in instance.unknown_attributes.items():
                    stack.append((child, certain))
                    if not _may_be_module(instance, name):
                        settings.add(child)
            self.spend(0.2)
            for name, value in self.field_values(instance):
                if applied and isinstance(instance, Instance) and self._is_idle(instance, name):
                    continue
                doubts = self.state.doubtful.get((instance, name)) or NOTHING
                alternatives = name != ELEMENTS and len(value) > 1
                for atom in in_order(value) if len(value) > 1 else value:
                    if isinstance(atom, Mystery) and not _may_be_module(instance, name):
                        settings.add(atom)
                    elif isinstance(atom, Unknown) and _may_be_module(instance, name):
                        unknown = True
                    held = [atom] if isinstance(atom, (Instance, Mystery)) else []
                    if isinstance(atom, Tuple) and whole_framework(instance) != "torch":  # Keras tracks collections
                        held = [a for item in atom.items for a in item if isinstance(a, (Instance, Mystery))]
                    for part in held:
                        doubtful = alternatives or atom in doubts
                        if isinstance(part, Mystery):
                            stack.append((part, certain and not doubtful))
                            continue
                        registered = part.framework is not None or (
                            whole_framework(whole) == "keras" and part.kind.startswith("builtins.")
                        )
                        if registered:
                            stack.append((part, certain and not doubtful))
        return list(found.items()), unknown

    def _is_idle(self, owner: Instance, name: str) -> bool:
        """Whether nothing in sight comes to what ``owner`` registers under this name, so that it is never applied."""
        cls = owner.cls
        if cls is None or cls.has_unknown_base or not cls.library_bases() <= _PLAIN_BASES or name == ELEMENTS:
            return False
        if owner.framework != "torch" or owner.location == cls.location:  # a representative, of subclasses as well
            return False
        usage = self._usages.get(cls)
        if usage is None:
            usage = self._usages[cls] = Usage(cls)
        read = usage.read(self._options(owner, cls, usage))
        if read is None or name in read:
            return False
        others = [scope.source for scope in self.scopes.values()]
        return not any(
            name in its.named_of_others
            or not _TAKES_APART.isdisjoint(its.named_of_others)
            or "forward" in its.set_in_others
            for its in others
        )

    def _options(self, owner: Instance, cls: Class, usage: Usage) -> dict[str, Constant]:
        """The attributes with a constant that tests in the class name, as far as nothing in sight changes them."""
        assert self.state is not None
        found: dict[str, Constant] = {}
        for name in usage.options:
            value = self.state.slots.get((owner, name)) or cls.lookup(name) or NOTHING
            (atom,) = value if len(value) == 1 else (None,)
            if isinstance(atom, Constant) and not atom.from_default:
                found[name] = atom
        sources = [scope.source for scope in self.scopes.values()] if found else []
        return {name: its for name, its in found.items() if not any(name in one.set_in_others for one in sources)}

    def mode_dependent_layers(self, whole: Instance | Mystery) -> tuple[list[events.Layer], bool]:
        """The layers that make a difference between the modes of ``whole``, and whether it may have others."""
        assert self.state is not None
        parts, unknown = self.parts(whole, applied=True)
        kinds = [part for part, _ in parts if isinstance(part, Instance) and part.kind in LAYERS]
        depends: dict[Instance | Mystery, bool | None] = {part: _depends_on_mode(part) for part in kinds}
        unknown |= None in depends.values()
        layers = [
            events.Layer(
                part,
                self.state.mode_of(part) if part.framework == "torch" else None,
                certain,
                frozen=self.may_be_frozen(part, parts),
            )
            for part, certain in parts
            if isinstance(part, Instance) and depends.get(part)
        ]
        layers.sort(key=lambda layer: layer.instance.location)
        return layers, unknown

    def may_be_frozen(self, layer: Instance, parts: list[tuple[Instance | Mystery, bool]]) -> bool:
        if layer.framework != "keras":
            return False
        holders = [layer, *(part for part, _ in parts)]
        values = [self.state.slots.get((holder, "trainable")) for holder in holders]  # type: ignore[union-attr]
        values.append(layer.arguments.get("trainable"))
        return any(value is not None and only_constant(value) != (True, True) for value in values)

    def way(self, what: str, span: Span | None, by: Atom, guards: Guards = frozenset()) -> Way:
        """A way into a mode by a call at ``span`` in the current place."""
        assert self.state is not None
        loops = tuple(loop.location for loop in self.loops)
        calls = tuple(frame.call for frame in reversed(list(self.frame.chain())) if frame.call is not None)
        return Way(TraceStep(self.location(span), what), by, loops, guards | self.state.guards, calls, asked=self.asked)

    def set_mode(self, whole: Instance | Mystery, mode: Mode, kinds: frozenset[str] = frozenset()) -> None:
        """What ``whole.train(...)`` and ``whole.eval()`` do: the mode of everything registered in it.

        ``kinds`` restricts that to layers of these kinds.
        """
        assert self.state is not None
        self.facts.mode_managed.add(whole)
        parts = self.parts(whole)[0]
        for part, _ in parts:  # one that may be missing is either here, or nowhere
            if kinds and not (isinstance(part, Instance) and part.kind in kinds):
                continue
            known = self.state.mode_of(part)
            new = _thawing(known, mode, whole, parts) if mode.train is not None else _frozen(known, mode, whole)
            self.state.set_mode(part, new)

    def doubt_parts(self, whole: Instance | Mystery) -> None:
        """Anything in ``whole`` may have been replaced by something else."""
        for part, _ in self.parts(whole)[0]:
            if isinstance(part, Instance):
                self.doubt_attributes(part)

    def doubt_attributes(self, owner: Instance) -> None:
        assert self.state is not None
        for name, value in self.field_values(owner):
            self.state.doubt(owner, name, value)

    def forget_modes(self, value: Value) -> None:
        """Something that cannot be followed was given these objects: their modes are unknown from here on."""
        assert self.state is not None
        stack, seen = list(value), set()
        while stack:
            atom = stack.pop()
            if isinstance(atom, Tuple):
                stack += [inner for item in atom.items for inner in item]
            elif isinstance(atom, (BoundFunction, Method)):
                stack.append(atom.receiver if isinstance(atom, BoundFunction) else atom.owner)
            elif isinstance(atom, Partial):
                stack += [inner for given, _ in atom.positional for inner in given]
                stack += [inner for _, keyword, _ in atom.keywords for inner in keyword]
            elif isinstance(atom, Part):
                stack.append(atom.whole)
            if not isinstance(atom, (Instance, Mystery)) or atom in seen:
                continue
            seen.add(atom)
            self.spend(0.2)
            known = self.state.modes.get(atom)
            if known is not None and known is not UNKNOWN_MODE:
                self.state.set_mode(atom, UNKNOWN_MODE)
            if isinstance(atom, Mystery):
                stack += list(atom.children.values())
            else:
                stack += list(atom.unknown_attributes.values())
                if atom.framework == "keras":
                    self.facts.settled.add(atom)
            for _, held in self.field_values(atom):
                stack += list(held)


def whole_framework(whole: Instance | Mystery) -> str | None:
    return whole.framework if isinstance(whole, Instance) else None


def _may_be_module(owner: Instance | Mystery, name: str) -> bool:
    """Whether an attribute of unknown make may be a module: in a class of the project, one that its code calls."""
    cls = owner.cls if isinstance(owner, Instance) else None
    return cls is None or name == ELEMENTS or cls.may_call(name)


def _frozen(known: Mode, mode: Mode, whole: Instance | Mystery) -> Mode:
    """An ``eval()`` of the whole changes nothing of a part that is, or may be, in eval mode for reasons of its own."""
    return Mode(eval=known.eval) if known.eval is not None and known.eval.by is not whole else mode


def _thawing(known: Mode, mode: Mode, whole: Instance | Mystery, parts: list[tuple[Instance | Mystery, bool]]) -> Mode:
    """``mode``, remembering the ``eval()`` of a smaller part that this ``train()`` of the whole undoes."""
    frozen = known.eval
    if frozen is None or mode.train is None:
        return mode
    by = frozen.by.whole if isinstance(frozen.by, Part) else frozen.by
    if frozen.by is whole or not any(part is by for part, _ in parts):
        return mode
    return Mode(replace(mode.train, thawed=frozen), mode.eval)


def _depends_on_mode(layer: Instance) -> bool | None:
    """Not so for dropout of probability zero and for torch layers that keep no running statistics; None where the
    argument that decides it is not known."""
    facts = LAYERS[layer.kind]
    name = facts.parameters[0] if facts.kind == "dropout" else "track_running_stats"
    if facts.kind != "dropout" and facts.framework != "torch":
        return True
    value = layer.arguments.get(name, frozenset({Constant(facts.defaults.get(name))}))
    atoms = [atom for atom in value if isinstance(atom, Constant)]
    return bool(atoms[0].value) if len(atoms) == len(value) == 1 else None
