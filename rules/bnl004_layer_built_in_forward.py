from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.frameworks.layers import LAYERS
from bnlint.rule import Rule
from bnlint.semantics import ir
from bnlint.semantics.events import BuiltInForward, FileFacts
from bnlint.semantics.intent import is_test_file, words
from bnlint.semantics.ir import nodes
from bnlint.semantics.values import Function, Instance, only_constant
from bnlint.source.marks import Pattern

_LAYER = r"(?:BatchNorm\dd|SyncBatchNorm|InstanceNorm\dd|(?:Feature)?(?:Alpha)?Dropout\d?d?)\("
_ARGUMENTS = r"[^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)(?:\.(?:to|cuda|type_as)\([^()\n]*\))?"
# Names by which a mode is handed on, or which tell that dropping at inference is meant.
_MODE_WORDS = frozenset({"train", "training", "eval", "evaluate", "test", "inference", "deterministic", "mode"})
# Classes that drop at inference by design, and losses, which are computed in training only.
_MEANT = frozenset({"mc", "montecarlo", "bayesian", "bayes", "uncertainty", "prenet", "loss", "criterion", "objective"})


class LayerBuiltInForward(Rule):
    """A BatchNorm or Dropout layer is built anew in each call of `forward()`.

    ## What it does
    Reports a layer whose behaviour depends on the mode (or an object of a class of the project that owns one) that
    the `forward()` of a PyTorch module, or a method called by it, builds and applies.

    ## Why is this bad?
    A new layer is in train mode, and `eval()` on the model cannot reach a layer that does not exist yet: at inference,
    too, BatchNorm normalises with the statistics of the batch and Dropout drops. Its weights are new in every call, so
    nothing is learned; it keeps no running statistics, is in no `state_dict` and stays on the CPU.

    ## Example
    ```python
    def forward(self, x):
        x = self.conv(x)
        return torch.relu(nn.BatchNorm2d(x.shape[1])(x))
    ```

    ## Use instead
    ```python
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))
    ```

    ## When it does not fire
    When the layer is built only once and kept (`if self.norm is None: self.norm = …`), when it is built only in train
    mode or its mode or probability is handed on (`nn.Dropout(p).train(self.training)`), when it is only returned or is
    trained there, for layers without two modes, in tests, and where a name tells of Monte Carlo dropout or of a loss.
    Flax builds layers in the call by design, and Keras raises an error by itself.

    ## How --verify confirms it
    It puts a module in eval mode that builds the layer in `forward()`, and one that has built it in `__init__`: the
    outputs of the first depend on the rest of the batch (or on chance) and are not those of the second. Layers without
    running statistics or with `p=0` refute it.

    ## Fix safety
    There is no fix: in `__init__` the number of features must be known, and checkpoints get new entries.
    `F.dropout(x, p, self.training)` replaces a Dropout layer without any.

    ## References
    - <https://docs.pytorch.org/docs/stable/notes/modules.html#modules-as-building-blocks>
    - <https://github.com/pytorch/pytorch/issues/46818>
    - <https://github.com/mapillary/inplace_abn/issues/101>
    - <https://github.com/yangze0930/NTS-Net/issues/14>
    """

    code: ClassVar[str] = "BNL004"
    name: ClassVar[str] = "layer-built-in-forward"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("fresh-layer",)
    evidence: ClassVar[int] = 3
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"BatchNorm", b"Dropout", b"InstanceNorm"),
        (b"def forward", b"def __call__"),
    )
    # In forward itself, applied where it is built, or through a local name; or an object of another class.
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str | Pattern, ...]] = (
        Pattern(
            r"def (?:forward|__call__)\b(?s:(?!\n[ \t]*(?:async )?def ).)*?"
            rf"(?:{_LAYER}|(?<![\w.])[A-Z]\w*\({_ARGUMENTS}\()"
            rf"|{_LAYER}{_ARGUMENTS}\("
            rf"|(?<![\w.])(\w+)[ \t]*=[ \t]*[\w.]*{_LAYER}(?s:.{{0,1500}}?)(?<![\w.])\1\(",
            (")(", "batchnorm", "instancenorm", "dropout"),
        ),
    )

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for built in file.built_in_forward:
            layers = [layer for layer in built.layers if support.is_mode_dependent(layer) and not _follows_mode(layer)]
            if layers and built.forward.mode.surely_train and not _is_meant(built):
                yield self._report(built, layers)

    def _report(self, built: BuiltInForward, layers: list[Instance]) -> Finding:
        norms = [layer for layer in layers if not support.is_dropout(layer)]
        known = bool(norms) or any(_has_known_probability(layer) for layer in layers)
        certain = known and built.conditions is None and not built.kept
        instead = "build it in __init__" if norms else "build it in __init__, or call F.dropout(x, p, self.training)"
        return self.finding(
            built.location,
            f"{built.what} is built anew in each call of {built.method}(): no eval() reaches it, so "
            f"{_effect(built, norms)}; {instead}",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            (
                TraceStep(built.location, f"built here, in every call of {built.method}()"),
                TraceStep(built.forward.location, "applied here, in train mode"),
            ),
            None,
            support.experiment("fresh-layer", "torch", layers),
        )


def _effect(built: BuiltInForward, norms: list[Instance]) -> str:
    if not norms:
        return "it goes on dropping values at inference"
    what = "it always normalises" if built.what in _short_names(norms) else "its BatchNorm always normalises"
    return f"{what} with the statistics of its batch, and what it learns is lost"


def _short_names(layers: list[Instance]) -> set[str]:
    return {support.short_name(layer) for layer in layers}


def _is_meant(built: BuiltInForward) -> bool:
    conditions = built.conditions
    if conditions is not None and (built.kept or _tells_mode(conditions)):
        return True
    if conditions and _is_at_the_callers_wish(built, conditions):
        return True
    return bool(_MEANT & (words(built.cls.name) | words(built.forward.receiver or "")))


def _is_at_the_callers_wish(built: BuiltInForward, conditions: frozenset[str]) -> bool:
    """Whether it only drops values, and only where an argument of forward says so: a perturbation that is meant."""
    if not all(support.is_dropout(layer) for layer in built.layers):
        return False
    methods = [atom for atom in built.cls.lookup(built.method) or () if isinstance(atom, Function)]
    return any(param.name in conditions for method in methods for param in method.node.params[1:])


def _follows_mode(layer: Instance) -> bool:
    """Whether an argument depends on the mode: ``nn.Dropout(self.p if self.training else 0)``, at once or before."""
    probability = layer.arguments.get("p", frozenset()) if support.is_dropout(layer) else frozenset()
    if any(support.is_zero(frozenset({atom})) for atom in probability):
        return True
    names = set()
    for node in nodes(tuple(layer.argument_nodes.values())):
        names |= {node.id} if isinstance(node, ir.Name) else {node.name} if isinstance(node, ir.Attr) else set()
    return _tells_mode(names)


def _tells_mode(names: Iterable[str]) -> bool:
    return any(_MODE_WORDS & words(name) for name in names)


def _has_known_probability(layer: Instance) -> bool:
    name = LAYERS[layer.kind].parameters[0]
    return name not in layer.arguments or only_constant(layer.arguments[name])[0]
