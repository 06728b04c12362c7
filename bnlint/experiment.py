"""An experiment: the question a finding puts to the machine, as plain data.

Rules write experiments and ``bnlint.verify`` answers them. The data stands apart from the verifier so
that rules depend on no measuring code, and so that it can cross a process border and be cached as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

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
    - ``inference-gap`` (keras): do the layers, called without ``training=``, compute something else than
      with ``training=True``, and do they merely pass their input through with their initial statistics?
    - ``tape-step`` (keras): do the moving statistics stay where they are in a training step that does not
      pass ``training=True``, while they would move in one that does?
    - ``momentum-memory`` (torch, keras): how many batches do the running statistics remember?
    - ``eps-gap`` (torch): how far do the outputs move from those of the same layer with the default eps?

    These compare the layer as the source has it with the same layer mended (torch, where nothing else is said):

    - ``second-epoch``: is the epoch after a validation trained in the eval mode that the validation left?
    - ``mode-in-forward`` (``method``: eval, train): does a mode that ``forward`` sets win over its caller's?
    - ``freeze-drift`` (``how``: eval-then-train, requires-grad, refrozen, eval-only): do the running statistics of a
      part that was meant to be frozen follow the new data?
    - ``fresh-layer``: what is a layer that ``forward`` builds anew in each call after ``eval()``?
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

    ``framework`` is ``torch`` or ``keras``. An experiment without layers cannot be carried out; ``unknown``
    then says which part of the source could not be established. ``options`` are what a kind needs to know beside the
    layers, named in parentheses above.
    """

    kind: str
    framework: str
    layers: tuple[LayerSpec, ...] = ()
    input: InputSpec | None = None
    unknown: str = ""
    options: dict[str, Scalar] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Experiment:
        source_input = data["input"]
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
        )
