"""Modules are put in modes, called and trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from bnlint.finding import Location, TraceStep
from bnlint.semantics.events.places import Batches, Freeze, Layer, Surroundings
from bnlint.semantics.state import NO_GUARDS, Guards, Mode, compatible
from bnlint.semantics.values import Instance, Mystery, Value


@dataclass(eq=False)
class ModeCall:
    """``module.train(...)`` or ``module.eval()``; ``wanted`` is the mode asked for, None where that is not known."""

    location: Location
    receiver: str | None
    target: Instance | Mystery
    name: str
    wanted: bool | None
    layers: list[Layer]
    where: Surroundings
    is_self: bool
    owns_unknown: bool = False


@dataclass(eq=False)
class FlagSet:
    """``module.training = value``; ``statement`` is where that stands, if it is all of a statement."""

    location: Location
    receiver: str | None
    target: Instance | Mystery
    value: Value
    layers: list[Layer]
    where: Surroundings
    statement: Location | None = None


@dataclass(eq=False)
class Forward:
    """A module, layer or model is called.

    ``receiver`` is the callee as written (``self.net``), ``reads`` the names in the arguments. ``target`` is
    what runs. ``built_by`` is the step of its construction, ``mode`` its own mode (torch).
    ``training`` is the value of the ``training`` argument (Keras; None when it is not passed).
    ``edge`` is the place before the closing parenthesis, where an argument can be added, and
    ``needs_comma`` whether it needs a comma before it. ``statement`` and ``block`` are where the statement
    and the ``with`` around it begin.
    """

    location: Location
    receiver: str | None
    target: Instance | Mystery
    mode: Mode
    layers: list[Layer]
    owns_unknown: bool
    reads: frozenset[str]
    where: Surroundings
    statement: Location
    block: Location | None
    is_self: bool
    input_kind: str  # "eager", "random", "symbolic" or "unknown", as ``Tensor.kind``
    input_shape: tuple[int, ...] | None = None
    input_fill: float | None = None
    training: Value | None = None
    training_default: Value | None = None
    edge: Location | None = None
    needs_comma: bool = False
    training_at: Location | None = None  # a constant for ``training``
    read_at: Location | None = None  # where its values are printed, compared or converted
    trained: bool = False  # a backward pass runs through its output
    discarded: bool = False  # nothing is done with what it computes
    sole_layer: bool = False  # the target is one mode-dependent layer, alone or alone in its container
    guards: Guards = NO_GUARDS  # what is known of the path that leads here
    inputs: frozenset[Forward] = frozenset()  # the calls that its arguments were computed by
    training_guards: set[Guards] = field(default_factory=set)  # the same, of the backward passes
    frozen: frozenset[Freeze] = frozenset()  # parts whose parameters get no gradients
    parts: frozenset[Instance | Mystery] = frozenset()  # the target and all modules in it
    batches: set[Batches | None] = field(default_factory=set)  # what its layers get; None for what is not known
    comprehended: frozenset[str] = frozenset()  # the names in what the comprehensions around it go through

    def mode_in_training(self) -> Mode:
        """The mode, as far as it can be that of a pass that is trained through."""
        guards = frozenset.intersection(*self.training_guards) if self.training_guards else NO_GUARDS
        return self.mode.given(guards) if compatible(guards, self.guards) else Mode()

    @property
    def framework(self) -> str | None:
        """``torch`` or ``keras``; None where it is not known what runs."""
        return self.target.framework if isinstance(self.target, Instance) else None

    @property
    def eager_input(self) -> bool:
        return self.input_kind in ("eager", "random")

    @property
    def built(self) -> TraceStep:
        return TraceStep(self.target.location, "built here")


@dataclass(eq=False)
class BareAttribute:
    """A statement that only names an attribute, such as ``model.eval``."""

    location: Location
    receiver: str | None
    name: str
    value: Value
    layers: list[Layer]
    where: Surroundings


@dataclass(eq=False)
class Backward:
    """``.backward()`` or ``optimizer.step()``."""

    location: Location
    where: Surroundings
    guards: Guards = NO_GUARDS


@dataclass(eq=False)
class Gradient:
    """``tape.gradient(loss, sources)``; ``sources`` are the models whose variables are asked for."""

    location: Location
    tape: Location | None
    sources: frozenset[Instance]
    sources_unknown: bool
