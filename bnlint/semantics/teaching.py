"""What the settings say of functions and classes, looked up by what the interpreter comes across."""

from __future__ import annotations

from typing import NamedTuple

from bnlint.assumptions import Teaching
from bnlint.semantics.values import Atom, BoundFunction, Class, Function, Ref


class Lesson(NamedTuple):
    """``kind`` is ``modes`` (it manages modes), ``managed`` (a framework runs its methods), ``layer`` (it is a
    BatchNorm layer such as the one in ``layers``) or ``model`` (it builds a model that owns ``layers``)."""

    kind: str
    layers: tuple[str, ...] = ()


#: The layer that stands for all that have its arguments and convention.
_LAYERS = {"torch": "torch.nn.BatchNorm2d", "keras": "keras.layers.BatchNormalization"}


class Lessons:
    """False where there are none."""

    def __init__(self, teaching: Teaching) -> None:
        self._lessons = {name: Lesson("modes") for name in teaching.mode_managers}
        self._lessons |= {name: Lesson("managed") for name in teaching.managed_classes}
        self._lessons |= {name: Lesson("layer", (_LAYERS[like],)) for name, like in teaching.batchnorm_classes}
        self._lessons |= {name: Lesson("model", layers) for name, layers in teaching.model_factories}

    def __bool__(self) -> bool:
        return bool(self._lessons)

    def about(self, atom: Atom | None) -> Lesson | None:
        """What is said of this function or class, by any end of its dotted name; the longest counts."""
        parts = name_of(atom).split(".")
        names = (".".join(parts[start:]) for start in range(len(parts)))
        return next((self._lessons[name] for name in names if name in self._lessons), None)

    def is_managed(self, cls: Class) -> bool:
        """Whether a framework runs the methods of this class, or of one that it derives from."""
        if not self:
            return False
        bases = [base for ancestor in cls.ancestors() for base in ancestor.bases]
        bases += [Ref(name) for name in cls.library_bases()]
        return any((lesson := self.about(atom)) is not None and lesson.kind == "managed" for atom in (cls, *bases))


def name_of(atom: Atom | None) -> str:
    """The dotted name of what is imported or defined: the file's path stands for its module."""
    if isinstance(atom, BoundFunction):
        return name_of(atom.function)
    if isinstance(atom, Ref):
        return atom.name
    if isinstance(atom, (Function, Class)):
        module = atom.location.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        owner = f"{atom.owner.name}." if isinstance(atom, Function) and atom.owner is not None else ""
        return f"{module}.{owner}{atom.name}"
    return ""
