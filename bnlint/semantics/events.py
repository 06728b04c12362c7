"""What a file does, as far as rules care: the facts that the interpreter leaves behind.

An event stands for one place in one chain of callers; what several passes through a loop saw there is joined.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bnlint.assumptions import NOTHING_ASSUMED, Assumptions
from bnlint.finding import Location, TraceStep
from bnlint.semantics import ir
from bnlint.semantics.state import NO_GUARDS, Guards, Mode, compatible
from bnlint.semantics.values import Class, Constant, Instance, Mystery, Trait, Value


@dataclass
class Layer:
    """A BatchNorm, InstanceNorm or Dropout layer inside the object that is run.

    ``certain`` is false where only some paths of the program give the object this layer. ``mode`` is joined
    over the passes that saw the call; None for Keras, where the call decides.
    """

    instance: Instance
    mode: Mode | None
    certain: bool
    frozen: bool = False  # Keras: ``trainable`` is or may be False


@dataclass(frozen=True)
class Loop:
    """A loop around an event; ``reads`` are the names in its iterable (``train_loader``)."""

    location: Location
    reads: frozenset[str]


@dataclass
class Surroundings:
    """Where an event stands.

    ``functions`` are the names of the functions that are running, outermost first (empty at module level),
    ``classes`` the classes whose methods they are. ``calls`` are the call steps of the trace. ``from_script``
    tells that execution came from the module's own top-level code.
    """

    functions: tuple[str, ...]
    classes: tuple[Class, ...]
    calls: tuple[TraceStep, ...]
    loops: tuple[Loop, ...]
    no_grad: TraceStep | None
    tape: TraceStep | None
    from_script: bool


@dataclass(eq=False)
class Freeze:
    """The gradients of a module's parameters are switched off. ``names`` are those in the loop over them, or of the
    module; ``parts`` are the module and all in it at that point; ``undone`` where they are switched on again."""

    location: Location
    names: frozenset[str]
    owner: Instance | Mystery
    parts: frozenset[Instance | Mystery]
    where: Surroundings
    undone: bool = False


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
class LayerBuilt:
    """A mode-dependent layer is constructed. ``call`` is the expression; values are joined over the passes."""

    location: Location
    instance: Instance
    call: ir.Call
    where: Surroundings


@dataclass(eq=False)
class MomentumSet:
    """``layer.momentum = value`` on a BatchNorm layer, or on what ``isinstance`` shows to be one."""

    location: Location
    kind: str
    value: Value
    where: Surroundings


@dataclass(eq=False)
class WeightsOrdered:
    """``layer.set_weights([...])``, or the names that ``layer.get_weights()`` is unpacked into: four expressions in the
    order of a BatchNorm layer's weights. ``items`` are the words that say what each is; ``target`` is the layer, where
    it is known."""

    location: Location
    sets: bool
    items: tuple[frozenset[str], ...]
    target: Instance | None
    where: Surroundings


@dataclass(eq=False)
class VarianceCarried:
    """The running variance of one BatchNorm layer, as it is, becomes that of another."""

    location: Location
    source: Trait
    target: Instance
    where: Surroundings


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


@dataclass(eq=False)
class Exported:
    """A library function makes something lasting of a module as it stands: it traces, exports or fuses it; or it runs
    it as it stands to describe it.

    ``function`` is its name, ``how`` what it does (``bnlint.frameworks.functions.EXPORTERS``, or ``profile``),
    ``receiver`` the module as written, ``alone`` whether the argument can be nothing else. ``arguments`` are those
    given by name.
    """

    location: Location
    function: str
    how: str
    receiver: str | None
    target: Instance | Mystery
    mode: Mode
    layers: list[Layer]
    owns_unknown: bool
    alone: bool
    arguments: dict[str, Value]
    where: Surroundings
    statement: Location
    block: Location | None


@dataclass(eq=False)
class Averaged:
    """Parameters of ``target`` are set in place from those of ``source``, which a loop goes through as ``names`` tells
    (``parameters``, ``state_dict``). ``averages`` tells that their old values count too."""

    location: Location
    target: Instance | Mystery
    source: Instance | Mystery
    names: str
    averages: bool
    layers: list[Layer]
    owns_unknown: bool
    where: Surroundings


@dataclass(eq=False)
class AveragedModel:
    """``AveragedModel(model)``: ``target`` is the wrapper, with a copy of the model in it."""

    location: Location
    target: Instance
    parts: frozenset[Instance | Mystery]
    layers: list[Layer]
    arguments: dict[str, Value]
    where: Surroundings


@dataclass(eq=False)
class StateUse:
    """``module.load_state_dict(...)``, or ``module`` or what its ``state_dict()`` gives is saved (``name``)."""

    location: Location
    target: Instance | Mystery
    name: str
    where: Surroundings


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


@dataclass(eq=False)
class CallMethod:
    """A class of Keras models has a ``call`` of its own, without a parameter ``training``.

    ``passes`` are the calls in it, ``parameters`` is the place before the closing parenthesis of its parameters, where
    one can be added; ``own_step`` tells that the class has a training step of its own.
    """

    location: Location
    cls: Class
    passes: list[Forward]
    parameters: Location | None
    own_step: bool


@dataclass(eq=False)
class GraphCall:
    """A layer or model is called on a symbolic tensor, while a functional model is built. ``training`` is the
    argument, None where there is none; ``layers`` are those in it that depend on the mode."""

    location: Location
    receiver: str | None
    target: Instance
    training: Value | None
    layers: list[Layer]
    where: Surroundings


@dataclass(eq=False)
class Fitted:
    """``model.fit(...)``, another method that trains a Keras model, or ``compile``, as ``name`` says. ``stale`` are the
    layers whose ``trainable`` is surely not what it was when the model was first trained after its last ``compile``,
    each with what it is now; ``layers`` are all that depend on the mode."""

    location: Location
    receiver: str | None
    target: Instance
    name: str
    where: Surroundings
    stale: list[tuple[Layer, bool]] = field(default_factory=list)
    layers: frozenset[Instance] = frozenset()


@dataclass(eq=False)
class TrainableSet:
    """``target.trainable = value`` of a Keras object, or of its parts."""

    location: Location
    receiver: str | None
    target: Instance
    parts: frozenset[Instance | Mystery]
    value: Value


@dataclass
class FileFacts:
    """Everything the rules read about one file.

    ``imports`` holds the top-level packages it imports, ``defines`` its functions and classes. ``complete`` is false
    when the analysis gave up half way (a file too large or too tangled); events that depend on the flow are then
    left out.
    ``flags_of_parts`` are layers whose ``training`` is set as that of some part of a module, and the running functions;
    ``settled`` are Keras objects whose weights are loaded, fitted or compiled somewhere;
    ``mode_managed`` torch modules that get a ``.train()`` or ``.eval()`` anywhere in the file, ``optimised``
    those whose parameters are taken anywhere. ``buffers_read`` are modules whose ``buffers()`` are taken,
    ``put_in_train`` and ``put_in_eval`` what any ``train()`` or ``eval()`` reaches, the latter with the first such
    step. ``modes_saved`` are modules whose ``training`` is kept in a variable, with the calls that lead there.
    ``sets_eps`` tells that the eps of some layer is set after its construction.
    ``named`` are the functions that are called, and some attributes that are read or set, by their bare names.
    ``applied`` and ``input_shapes`` (without the batch, None for what is not written out) are there for rules that
    follow chains of layers.
    """

    path: str
    assumptions: Assumptions = NOTHING_ASSUMED
    imports: frozenset[str] = frozenset()
    defines: frozenset[str] = frozenset()
    complete: bool = True
    forwards: list[Forward] = field(default_factory=list)
    layers: list[LayerBuilt] = field(default_factory=list)
    momentum_sets: list[MomentumSet] = field(default_factory=list)
    weights_ordered: list[WeightsOrdered] = field(default_factory=list)
    variances_carried: list[VarianceCarried] = field(default_factory=list)
    sets_eps: bool = False
    bare_attributes: list[BareAttribute] = field(default_factory=list)
    backwards: list[Backward] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    mode_calls: list[ModeCall] = field(default_factory=list)
    flags_set: list[FlagSet] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    exports: list[Exported] = field(default_factory=list)
    averages: list[Averaged] = field(default_factory=list)
    averaged_models: list[AveragedModel] = field(default_factory=list)
    state_uses: list[StateUse] = field(default_factory=list)
    built_in_forward: list[BuiltInForward] = field(default_factory=list)
    applied_twice: list[AppliedTwice] = field(default_factory=list)
    checkpointed: list[Checkpointed] = field(default_factory=list)
    functional_calls: list[FunctionalCall] = field(default_factory=list)
    flags_of_parts: set[tuple[Instance, tuple[str, ...]]] = field(default_factory=set)
    unregistered: list[Unregistered] = field(default_factory=list)
    overrides: list[ModeOverride] = field(default_factory=list)
    call_methods: list[CallMethod] = field(default_factory=list)
    graph_calls: list[GraphCall] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    trainables: list[TrainableSet] = field(default_factory=list)
    settled: set[Instance] = field(default_factory=set)
    mode_managed: set[Instance | Mystery] = field(default_factory=set)
    optimised: set[Instance | Mystery] = field(default_factory=set)
    buffers_read: set[Instance | Mystery] = field(default_factory=set)
    put_in_train: set[Instance | Mystery] = field(default_factory=set)
    put_in_eval: dict[Instance | Mystery, TraceStep] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    modes_saved: set[tuple[Instance | Mystery, tuple[TraceStep, ...]]] = field(default_factory=set)
    applied: list[Applied] = field(default_factory=list)
    input_shapes: set[tuple[int | None, ...] | None] = field(default_factory=set)


def numbers(value: Value) -> tuple[list[Constant], bool]:
    """The numeric constants a value may be, and whether it can be nothing but those."""
    found = [
        atom
        for atom in value
        if isinstance(atom, Constant) and isinstance(atom.value, (int, float)) and not isinstance(atom.value, bool)
    ]
    found.sort(key=lambda atom: float(atom.value))  # type: ignore[arg-type]
    return found, len(found) == len(value)


def is_exactly(value: Value | None, expected: object) -> bool:
    return value is not None and all(isinstance(atom, Constant) and atom.value is expected for atom in value)
