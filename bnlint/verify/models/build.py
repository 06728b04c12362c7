"""Build a model, of the project's pieces or by a library's function, with what the source tells of its arguments.

Weights that would be downloaded or read from files are left as they are initialised: what is measured does not depend
on their values, but on what the layers do in either mode.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from bnlint.experiment import ModelSpec
from bnlint.verify.backends import CannotMeasure
from bnlint.verify.fixture import one_line

#: What an argument that the source does not tell is taken for, by what its name says. The first that fits counts.
_GUESSES: tuple[tuple[tuple[str, ...], object], ...] = (
    (("shape",), (32, 32, 3)),
    (("kernel",), 3),
    (("stride",), 1),
    (("class",), 10),
    (("in_channel", "inchannel", "in_ch", "input_channel", "in_chans", "n_channels", "channels", "nc"), 3),
    (("out_channel", "out_ch", "out_dim", "output_dim", "out_features", "output_size"), 8),
    (("in_features", "input", "in_dim", "hidden", "dim", "width", "features", "size", "ngf", "ndf",
      "filters", "units"), 16),
    (("depth", "num_layers", "n_layers", "layers", "blocks", "num_blocks"), 2),
    (("drop", "rate"), 0.5),
    (("pretrained", "use_", "is_", "with_"), False),
)  # fmt: skip
_WEIGHTS = frozenset(
    {"pretrained", "weights", "pretrained_backbone", "weights_backbone", "encoder_weights", "checkpoint"}
)
_WITHOUT = {"pretrained": False, "pretrained_backbone": False}


def prepare(spec: ModelSpec) -> None:
    """Import the libraries that are known to be needed, while importing may still do as it likes."""
    for needed in spec.inner():
        if not needed.path:
            with suppress(ImportError):  # which build() reports
                import_module(needed.name.split(".", 1)[0])


def recipe(spec: ModelSpec, pieces: Mapping[str, Mapping[str, Any]]) -> tuple[Callable[[], Any], list[str]]:
    """What builds the model anew whenever it is called, and what was chosen for it (``num_classes=10``).

    Raises ``CannotMeasure``, as does what it returns.
    """
    return _recipe(spec, _Pieces(pieces))


def _recipe(spec: ModelSpec, pieces: _Pieces) -> tuple[Callable[[], Any], list[str]]:
    maker = _maker(spec, pieces)
    if not spec.called:
        return lambda: maker, []
    arguments: dict[str, Any] = {name: value for name, value in spec.arguments.items() if name not in _WEIGHTS}
    arguments |= {name: _WITHOUT.get(name) for name in spec.arguments if name in _WEIGHTS}
    chosen = [f"{name} left out" for name in spec.arguments if name in _WEIGHTS]
    positional = list(spec.positional)
    if spec.name.startswith("torchvision."):
        positional = []  # weights, and whether they are shown being downloaded
    if not spec.path and spec.unknown:
        raise CannotMeasure(f"the source does not tell its argument {spec.unknown[0]}")
    if spec.path:
        for name in _to_choose(maker, spec, positional):
            arguments[name] = _guess(name)
            chosen.append(f"{name}={arguments[name]!r}")
        chosen += [f"{name} left at its default" for name in spec.unknown if name not in arguments]

    def prepared(value: Any) -> Callable[[], Any]:
        """What gives the value of an argument, a model among them being built anew each time."""
        if isinstance(value, list):
            items = [prepared(item) for item in value]
            return lambda: [item() for item in items]
        if not isinstance(value, ModelSpec):
            return lambda: value
        inner, its_choices = _recipe(value, pieces)
        chosen.extend(its_choices)
        return inner

    given = [prepared(value) for value in positional]
    named = {name: prepared(value) for name, value in arguments.items()}

    def build() -> Any:
        try:
            return maker(*(value() for value in given), **{name: value() for name, value in named.items()})
        except CannotMeasure:
            raise
        except Exception as error:
            raise CannotMeasure(f"{spec.name} cannot be built: {one_line(error)}") from error

    return build, chosen


def _maker(spec: ModelSpec, pieces: _Pieces) -> Callable[..., Any]:
    if spec.path:
        try:
            made = pieces.namespace(spec.path)[spec.name]
        except CannotMeasure:
            raise
        except Exception as error:
            raise CannotMeasure(f"the code of {spec.name} cannot be run: {one_line(error)}") from error
    else:
        module, _, name = spec.name.rpartition(".")
        try:
            made = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise CannotMeasure(f"{spec.name} is not there: {one_line(error)}; install the library") from error
    if not callable(made):
        raise CannotMeasure(f"{spec.name} is nothing that builds a model")
    return made  # type: ignore[no-any-return]


class _Pieces:
    """The pieces of the project's files, each run once, when something of it is asked for."""

    def __init__(self, pieces: Mapping[str, Mapping[str, Any]]) -> None:
        self._pieces = pieces
        self._modules: dict[str, types.ModuleType] = {}

    def namespace(self, path: str) -> dict[str, Any]:
        return vars(self.module(path))

    def module(self, path: str) -> types.ModuleType:
        if path in self._modules:
            return self._modules[path]
        name = path.removesuffix(".py").replace("/", ".").strip(".")
        module = self._modules[path] = types.ModuleType(f"linted.{name}")
        piece = self._pieces.get(path)
        if piece is None:
            return module  # a module of which nothing is asked
        module.__file__ = path
        for bound, (target, member) in piece["links"].items():
            other = self.module(target)
            if member and not hasattr(other, member):
                raise CannotMeasure(f"{path} and {target} import each other")
            setattr(module, bound, getattr(other, member) if member else other)
        exec(compile(piece["source"], path, "exec"), vars(module))
        return module


def _to_choose(maker: Callable[..., Any], spec: ModelSpec, positional: list[Any]) -> list[str]:
    """The parameters that must be given, or are given, and whose values the source does not tell."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return list(spec.unknown)
    needed = []
    for parameter in list(parameters)[len(positional) :]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in spec.arguments:
            continue
        if parameter.default is parameter.empty:
            needed.append(parameter.name)
    return needed


def _guess(name: str) -> object:
    lowered = name.lower()
    for words, value in _GUESSES:
        if any(lowered == word or (len(word) > 3 and word in lowered) for word in words):
            return value
    raise CannotMeasure(f"the source does not tell its argument {name}")
