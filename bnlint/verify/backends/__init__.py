"""One module per framework that rebuilds layers and measures them; imported in a child process only.

The frameworks are imported through ``importlib`` and typed ``Any``, because they need not be installed where
bnlint itself is type-checked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from bnlint.experiment import Experiment, InputSpec, LayerSpec, Scalar
from bnlint.finding import Plot

#: What is known about one layer after measuring: plain numbers, strings and lists.
Facts = dict[str, Any]

#: What a kind of experiment needs to know beside the layer.
Options = Mapping[str, Scalar]

_OUT_OF_MEMORY = ("out of memory", "OOM", "not enough memory", "can't allocate memory")


class CannotMeasure(Exception):
    """This layer or this device cannot be measured; the message is the reason a user reads."""


class Backend(Protocol):
    """A framework on a device."""

    device: str
    #: Why this is not the device that it should have been, or ''.
    fallback: str
    versions: dict[str, str]

    def measure(self, experiment: Experiment, layer: LayerSpec, device: str) -> Facts:
        """Answer the experiment for one of its layers; raises ``CannotMeasure`` or what the framework raises."""

    def measure_together(self, kind: str, layers: Sequence[LayerSpec], device: str) -> list[Facts | None]:
        """What ``measure`` answers for each of the layers, None for those that have to be asked alone."""

    def outputs(self, kind: str, layer: LayerSpec, source: InputSpec, device: str) -> Facts:
        """What a fresh layer makes of the source's own input."""

    def plots(self, experiment: Experiment, layer: LayerSpec, device: str) -> list[Plot]:
        """Curves that show what the experiment is about; none where a picture would not say more."""

    def is_out_of_memory(self, error: BaseException) -> bool: ...


def open_backend(framework: str, device: str) -> Backend:
    """Import the framework and pick the device.

    Raises ``CannotMeasure`` if ``device`` is asked for and missing, and whatever the framework's import raises.
    """
    module = import_module(f"bnlint.verify.backends.{framework}")
    backend: Backend = module.open_backend(device)
    return backend


def says_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory: drivers say so with exceptions of their own, in these words."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def option(options: Options, name: str, known: Collection[str]) -> str:
    """The option of this name, which must be one of ``known``; raises ``CannotMeasure``."""
    value = options.get(name)
    if not isinstance(value, str) or value not in known:
        raise CannotMeasure(f"{name} must be one of {', '.join(known)} for this to be measured, not {value!r}")
    return value
