"""An experiment: the question a finding puts to the machine, as plain data.

Rules write experiments and ``bnlint.verify`` answers them. The data stands apart from the verifier so
that rules depend on no measuring code, and so that it can cross a process border and be cached as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

Scalar = bool | int | float | str | None

#: Size of a layer whose number of features the source does not tell.
CHOSEN_FEATURES = 16


@dataclass(frozen=True)
class LayerSpec:
    """A layer to rebuild from its statically known arguments.

    ``kind`` is the canonical qualified name (``torch.nn.BatchNorm2d``, ``keras.layers.BatchNormalization``).
    ``chosen`` names the arguments that the experiment had to choose because the source does not tell them;
    a report says so.
    """

    kind: str
    arguments: dict[str, Scalar] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """The model that a finding is about: of the class ``name`` in the file ``path`` of the linted project, or what the
    library's function ``name`` builds, where ``path`` is empty.

    ``arguments`` are those of its construction that the source tells, by name (``positional`` for a library's), models
    and lists among them; ``unknown`` names those whose values it does not tell. Without a name it is what the function
    around ``line`` returns. Where it is not ``called``, the class itself is meant, as an argument of another.
    """

    path: str
    name: str
    arguments: dict[str, Argument] = field(default_factory=dict)
    positional: tuple[Argument, ...] = ()
    unknown: tuple[str, ...] = ()
    line: int = 0
    called: bool = True

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelSpec:
        return cls(
            path=data["path"],
            name=data["name"],
            arguments={name: _argument(value) for name, value in data["arguments"].items()},
            positional=tuple(_argument(value) for value in data["positional"]),
            unknown=tuple(data["unknown"]),
            line=data["line"],
            called=data["called"],
        )

    def inner(self) -> Iterator[ModelSpec]:
        """Itself and the models among its arguments, theirs included."""
        yield self
        waiting: list[Argument] = [*self.arguments.values(), *self.positional]
        while waiting:
            value = waiting.pop(0)
            if isinstance(value, ModelSpec):
                yield from value.inner()
            elif isinstance(value, list):
                waiting += value


#: What a model can be built with, as JSON can hold it.
Argument: TypeAlias = "Scalar | ModelSpec | list[Argument]"


def _argument(data: Any) -> Argument:
    if isinstance(data, dict):
        return ModelSpec.from_json(data)
    return [_argument(item) for item in data] if isinstance(data, list) else data


@dataclass(frozen=True)
class InputSpec:
    """The input that the source itself uses: a tensor of ``shape`` filled with the constant ``fill``."""

    shape: tuple[int, ...]
    fill: float


@dataclass(frozen=True)
class Experiment:
    """What to build and which question to ask of it.

    ``kind`` is one of

    - ``mode-gap`` (torch): does train mode make these layers compute something else than eval mode, make a
      sample's output depend on its batch-mates, and move the running statistics?
    - ``eval-dependence`` (torch): does a sample's output depend on its batch-mates in eval mode?
    - ``batch-of-one`` (torch): after training on single samples, how far is train mode's output from eval mode's?
    - ``inference-gap`` (keras): do the layers, called without ``training=``, compute something else than
      with ``training=True``, and do they merely pass their input through with their initial statistics?
    - ``tape-step`` (keras): do the moving statistics stay where they are in a training step that does not
      pass ``training=True``, while they would move in one that does?
    - ``fit-epoch`` (keras; ``how``: no-training-parameter, hard-coded-false, graph-literal-false, frozen-after-fit,
      thawed-after-fit): does ``fit`` move the moving statistics, or drop values, where it is not meant to, or not where
      it is?
    - ``training-literal`` (keras): what does ``training=True`` make of a call that infers?
    - ``momentum-memory`` (torch, keras): how many batches do the running statistics remember?
    - ``degenerate-momentum`` (torch, keras): do the running statistics never move, or average nothing?
    - ``eps-carried`` (torch; ``eps_of_source``): how far are outputs from those with the eps of the layer that the
      statistics come from?
    - ``weights-order`` (keras; ``order``: names of weights): what does a layer compute that is given its weights in
      this order?
    - ``eps-gap`` (torch): how far do the outputs move from those of the same layer with the default eps?
    - ``half-statistics`` (torch; ``dtype``: float16, bfloat16): where do running statistics end that are kept in this
      dtype?

    These compare the layer as the source has it with the same layer mended (torch, where nothing else is said):

    - ``second-epoch``: is the epoch after a validation trained in the eval mode that the validation left?
    - ``mode-in-forward`` (``method``: eval, train): does a mode that ``forward`` sets win over its caller's?
    - ``freeze-drift`` (``how``: eval-then-train, requires-grad, refrozen, eval-only): do the running statistics of a
      part that was meant to be frozen follow the new data?
    - ``fresh-layer``: what is a layer that ``forward`` builds anew in each call after ``eval()``?
    - ``functional-flag`` (``function``: qualified name): does a function that is not told the mode do in eval mode (or
      train mode) what it would do if it were told?
    - ``container-reach`` (``container``: list, tuple, dict, ModuleList, ModuleDict, Sequential): does ``eval()``
      reach a layer that is kept in this container?
    - ``training-flag`` (``on_layer``: bool): does ``training = False`` on a module do what ``eval()`` does?
    - ``mode-override`` (``method``: train, eval; ``fault``: no-mode-parameter, returns-none, ignores-mode, no-super,
      shadowed, none): does the override keep the contract of ``train()`` and ``eval()``?
    - ``mc-dropout``: does ``train()`` on the whole model, meant for its Dropout layers, switch these to batch
      statistics?
    - ``trace-parity``: can a trace made in train mode be put in eval mode?
    - ``export-parity`` (``exporter``: qualified name; ``dynamo``: bool or None): does what is exported in train mode
      compute what eval mode does?
    - ``ema-buffers`` (``buffers``: ignored, copied): does an average over parameters have the running statistics?
    - ``always-training`` (keras): what does a layer whose mode is always that of training compute for inference?
    - ``update-ops`` (keras): where are the moving statistics when the training steps of a TensorFlow 1 graph do not
      run their updates?
    - ``swa-buffers`` (``update_bn``: bool): do averaged weights have statistics of their own?
    - ``checkpoint-updates``: does a step update the running statistics once more where the layer is checkpointed?
    - ``noise-run``: what does a run on noise in train mode change of a layer that is then evaluated?
    - ``shared-statistics``: does a layer that is run on two different inputs normalise each as one of its own would?
    - ``stats-dropped``: what does a layer compute in eval mode that is given another's state without the running
      statistics?

    These are about a norm and the layer that feeds it, named by ``before`` or ``dropout``:

    - ``axis-layout`` (keras; ``before``, ``data_format``, ``filters``): has the norm one value for each filter?
    - ``bias-gradient`` (torch, keras; ``before``, ``between``, ``data_format`` for keras): does the bias of the layer
      before get a gradient?
    - ``dropout-shift`` (torch, keras; ``dropout``, ``rate``): what is the variance behind the norm in eval mode, beside
      that in train mode?
    - ``norm-fit`` (torch; ``before``, ``rank``, ``features``): does the norm take what the layer before gives?

    ``model`` is what ``--verify-models`` builds and measures, where the source tells. ``framework`` is ``torch`` or
    ``keras``. An experiment without layers cannot be carried out; ``unknown``
    then says which part of the source could not be established. ``options`` are what a kind needs to know beside the
    layers, named in parentheses above.
    """

    kind: str
    framework: str
    layers: tuple[LayerSpec, ...] = ()
    input: InputSpec | None = None
    unknown: str = ""
    options: dict[str, Scalar] = field(default_factory=dict)
    model: ModelSpec | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Experiment:
        source_input, model = data["input"], data.get("model")
        return cls(
            kind=data["kind"],
            framework=data["framework"],
            layers=tuple(
                LayerSpec(layer["kind"], dict(layer["arguments"]), tuple(layer["chosen"])) for layer in data["layers"]
            ),
            input=None
            if source_input is None
            else InputSpec(tuple(source_input["shape"]), float(source_input["fill"])),
            unknown=data["unknown"],
            options=dict(data.get("options", {})),
            model=None if model is None else ModelSpec.from_json(model),
        )
