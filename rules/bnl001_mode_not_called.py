from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Fix, Safety, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import BareAttribute, FileFacts
from bnlint.semantics.intent import words
from bnlint.semantics.values import Function, Instance, Unknown

# Packages built on PyTorch whose names do not say so.
_ON_TORCH = frozenset({"timm", "lightning", "fastai", "monai", "skorch", "catalyst", "ignite"})
# Settings and data have parts named "train" and "eval" too, and a notebook shows them by naming them.
_SETTINGS_AND_DATA = frozenset(
    {"args", "cfg", "conf", "config", "configs", "options", "opt", "opts", "hparams", "params", "flags", "settings",
     "data", "dataset", "datasets", "dls", "dataloader", "dataloaders", "loaders", "splits", "paths"}
)  # fmt: skip


class ModeNotCalled(Rule):
    """A statement names `model.eval` or `model.train` without calling it.

    ## What it does
    Reports a statement that consists of nothing but `something.eval` or `something.train`, where `something`
    is a PyTorch module, or may be one in a file that uses PyTorch.

    ## Why is this bad?
    Without parentheses the statement only looks the method up. The module keeps its mode: BatchNorm goes on
    normalising with the statistics of each batch and moving its running statistics, Dropout goes on dropping.
    Nothing warns, and the numbers look plausible.

    ## Example
    ```python
    model = Net()
    model.load_state_dict(torch.load("net.pt"))
    model.eval
    with torch.no_grad():
        prediction = model(x)
    ```

    ## Use instead
    ```python
    model.eval()
    with torch.no_grad():
        prediction = model(x)
    ```

    ## When it does not fire
    When the attribute is used (`switch = model.eval`), when the object is known to be something else than a
    PyTorch module or is named like settings or data (`cfg.train`), when its class defines `eval` or `train` as
    a property, and in files without PyTorch.

    ## How --verify confirms it
    It rebuilds the module's BatchNorm, InstanceNorm and Dropout layers and compares their outputs in train
    and eval mode. Layers whose two modes compute the same refute the finding.

    ## Fix safety
    Unsafe: adding the parentheses changes what the program computes, which is what its author meant.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval>
    """

    code: ClassVar[str] = "BNL001"
    name: ClassVar[str] = "mode-not-called"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-gap",)
    evidence: ClassVar[int] = 17
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b".eval", b".train", b". eval", b". train"),
        (b"torch", *sorted(name.encode() for name in _ON_TORCH)),
    )
    marks: ClassVar[tuple[str, ...]] = (r"\.[ \t]*(?:eval|train)[ \t]*(?:[#;\\]|\n|$)",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not any("torch" in root or root in _ON_TORCH for root in file.imports):
            return
        for bare in file.bare_attributes:
            confidence = _confidence(bare) if bare.name in ("eval", "train") else None
            if confidence is not None:
                yield self._report(bare, confidence)

    def _report(self, bare: BareAttribute, confidence: Confidence) -> Finding:
        receiver = bare.receiver or "the module"
        layers = [layer for layer in bare.layers if support.is_mode_dependent(layer.instance)]
        owns = f", and {support.describe(layers)} with it" if layers else ""
        message = (
            f"{receiver}.{bare.name} is named but not called: {receiver} keeps the mode it is in{owns}; "
            f"write {receiver}.{bare.name}()"
        )
        built = [atom.location for atom in bare.value if isinstance(atom, Instance)]
        trace = [TraceStep(location, "built here") for location in sorted(built)[:1]]
        at = bare.location
        return self.finding(
            at,
            message,
            confidence,
            (*trace, *bare.where.calls),
            Fix(Safety.UNSAFE, f"call {bare.name}()", (support.append(at, "()"),)),
            support.experiment("mode-gap", "torch", (layer.instance for layer in layers)),
        )


def _confidence(bare: BareAttribute) -> Confidence | None:
    """None where the receiver is, or may be, known to be something else than a module."""
    modules = [atom for atom in bare.value if isinstance(atom, Instance) and atom.framework == "torch"]
    unknown = any(isinstance(atom, Unknown) for atom in bare.value)
    if len(modules) + unknown < len(bare.value) or any(_is_property(module, bare.name) for module in modules):
        return None
    if unknown:
        if bare.receiver is None or words(bare.receiver.rpartition(".")[2]) & _SETTINGS_AND_DATA:
            return None
        return Confidence.LIKELY
    return Confidence.CERTAIN if modules else None


def _is_property(module: Instance, name: str) -> bool:
    defined = module.cls.lookup(name) if module.cls else None
    return defined is not None and any(
        not isinstance(atom, Function)
        or atom.strange_decorator
        or any(decorator.rpartition(".")[2].endswith("property") for decorator in atom.decorators)
        for atom in defined
    )
