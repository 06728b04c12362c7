"""How modules are made of layers: where these are kept, applied, and told their mode."""

from __future__ import annotations

from dataclasses import dataclass, field

from bnlint.finding import Location
from bnlint.semantics import ir
from bnlint.semantics.events.modes import Forward
from bnlint.semantics.events.places import Layer, Surroundings
from bnlint.semantics.values import Class, Instance, Value


@dataclass(eq=False)
class BuiltInForward:
    """``forward`` (or ``__call__``, as ``method`` says) of the class of modules ``cls`` builds layers that depend on
    the mode, at ``location`` and as a ``what``, and applies them there.

    ``conditions`` are the names in the tests that decide whether it does, None where nothing decides it; ``kept``
    tells that the object keeps the layers.
    """

    location: Location
    what: str
    layers: list[Instance]
    forward: Forward
    cls: Class
    method: str
    conditions: frozenset[str] | None
    kept: bool = False


@dataclass(eq=False)
class FunctionalCall:
    """A method of the module class ``cls`` calls a ``function`` that drops or normalises as its arguments say
    (``bnlint.frameworks.functional``).

    ``arguments`` are those given, by parameter; ``written`` the names of those that are written as a name
    (``self.running_mean``). ``itself`` is what the method calls the module. ``conditions`` are the names in the tests
    that decide whether the call is run, None where nothing decides it; ``rate_names`` those that decide how much is
    dropped. ``edge`` and ``needs_comma`` are as in ``Forward``; ``rate_end`` is where the rate ends.
    """

    location: Location
    function: str
    arguments: dict[str, Value]
    written: dict[str, str | None]
    cls: Class
    itself: str
    conditions: frozenset[str] | None
    rate_names: frozenset[str]
    where: Surroundings
    edge: Location | None
    needs_comma: bool
    rate_end: Location | None


@dataclass(eq=False)
class Checkpointed:
    """``torch.utils.checkpoint`` runs ``what`` (as written), which is run anew in the backward pass, all but
    the last part of it if ``in_segments``. ``forwards`` are the calls of modules in it."""

    location: Location
    what: str | None
    forwards: list[Forward]
    in_segments: bool
    where: Surroundings


@dataclass(eq=False)
class AppliedTwice:
    """``forward`` of the class of modules ``cls`` runs one ``layer`` at two places, in each call of it, on what
    different modules have computed."""

    first: Forward
    second: Forward
    layer: Instance
    cls: Class


@dataclass(eq=False)
class Unregistered:
    """Modules are put into a plain ``container`` (``list``, ``tuple``, ``dict`` or ``set``) in an attribute of a
    module, where nothing registers them.

    ``display`` is where a list or tuple is written out that can be wrapped in ``nn.ModuleList``, whose name in the
    file is ``wrapper``.
    """

    location: Location
    attribute: str
    container: str
    cls: Class
    layers: list[Layer]
    display: Location | None
    wrapper: str | None


@dataclass(eq=False)
class ModeOverride:
    """A class of modules has a ``train`` or ``eval`` of its own that breaks the contract of ``nn.Module``: ``fault``,
    ``loop`` and ``sure`` are as in ``bnlint.semantics.overrides``. ``layers`` are those of objects of the class, and
    ``owns_unknown`` tells that they may have others.

    ``parameter`` is where a parameter can be added and ``mode`` its name, ``parent_call`` where it can be handed on to
    the only call of the parent's method, ``end`` the line after the body, which is indented by ``indent``, and
    ``falls_off`` whether that line would be reached. ``returns`` tells that the method returns something.
    """

    location: Location
    cls: Class
    method: str
    fault: str
    loop: bool
    sure: bool
    mode: str
    parameter: Location | None
    parent_call: Location | None
    end: Location | None
    indent: int
    falls_off: bool
    returns: bool
    layers: list[Layer] = field(default_factory=list)
    owns_unknown: bool = False


@dataclass(eq=False)
class Applied:
    """A layer, or a function that does what a layer does, is applied: in a call, or by its place in a sequence.

    ``inputs`` are the applications that made its input, None among them where that may be something else. ``alone``
    tells that what is called can be nothing but this layer. ``readers`` are the places that read a name of the output,
    ``exits`` the calls of a container that give it, ``consumers`` the applications that take it. ``construction`` is
    the call that built the layer; functions have none.
    """

    location: Location
    layer: Instance
    inputs: set[Applied | None]
    alone: bool
    where: Surroundings
    readers: set[int] = field(default_factory=set)
    exits: set[int] = field(default_factory=set)
    consumers: set[Applied] = field(default_factory=set)
    construction: ir.Call | None = None

    @property
    def source(self) -> Applied | None:
        """The one application that its input surely comes from."""
        return next(iter(self.inputs)) if self.alone and len(self.inputs) == 1 else None

    @property
    def read_once(self) -> bool:
        """Whether no more than one place uses the output."""
        return max(len(self.readers), len(self.exits), len(self.consumers)) <= 1
