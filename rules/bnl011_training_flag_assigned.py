from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Edit, Finding, Fix, Safety, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, FlagSet, Layer, is_exactly
from bnlint.semantics.intent import is_test_file


class TrainingFlagAssigned(Rule):
    """The flag `training` of a module is assigned, which leaves its layers in the mode they are in.

    ## What it does
    Reports `module.training = False` (or `True`) for a PyTorch module with BatchNorm or Dropout layers below it that
    are not in that mode.

    ## Why is this bad?
    Each module has a flag of its own, and each layer reads its own. `eval()` and `train()` walk through all of them; an
    assignment sets one. The model says that it is in eval mode while its BatchNorm normalises with the statistics of
    the batch and its Dropout drops.

    ## Example
    ```python
    model.load_state_dict(torch.load("model.pt"))
    model.training = False
    ```

    ## Use instead
    ```python
    model.load_state_dict(torch.load("model.pt"))
    model.eval()
    ```

    ## When it does not fire
    On a layer itself, in a `train()` or `eval()` of the module's own, in a loop over all modules, for values that are
    not known, for modules without such layers below them or of unknown make, and where `train()` or `eval()` is called
    on the same module, or on a part with these layers, in the same function.

    ## How --verify confirms it
    It sets the flag on a module that holds the rebuilt layers: they are still in train mode, and the outputs are not
    those after `eval()`. Layers without running statistics or with `p=0` refute it.

    ## Fix safety
    Unsafe: `eval()` instead of the assignment changes the results, as it must.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.eval>
    - <https://docs.pytorch.org/docs/stable/notes/autograd.html#evaluation-mode-nn-module-eval>
    """

    code: ClassVar[str] = "BNL011"
    name: ClassVar[str] = "training-flag-assigned"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("training-flag",)
    evidence: ClassVar[int] = 8
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm", b"lightning"), (b".training",))
    needle_pattern: ClassVar[str] = r"\.training[ \t]*=[ \t]*(?:True|False|[01])\b"
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (r"\.training[ \t]*=[ \t]*(?:True|False|[01])\b",)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for flag in file.flags_set:
            for wanted in (False, True):
                if is_exactly(flag.value, wanted) and not _is_one_of_several(file, flag):
                    layers = [layer for layer in flag.layers if _stays_behind(file, flag, layer, wanted)]
                    if layers:
                        yield self._report(file, flag, layers, wanted)

    def _report(self, file: FileFacts, flag: FlagSet, layers: list[Layer], wanted: bool) -> Finding:
        receiver = flag.receiver or "the module"
        method, other = ("train", "eval") if wanted else ("eval", "train")
        stays = "stays" if support.is_one(layers) else "stay"
        behind = [layer.instance for layer in layers]
        steps = [file.put_in_eval[layer] for layer in behind if wanted and layer in file.put_in_eval][:1]
        steps += [TraceStep(behind[0].location, f"this {support.short_name(behind[0])} has a flag of its own")]
        certain = any(layer.certain and layer.mode is not None and layer.mode.known for layer in layers)
        return self.finding(
            flag.location,
            f"{receiver}.training = {wanted} sets one flag and not those below it: {support.describe(layers)} "
            f"{stays} in {other} mode; call {receiver}.{method}()",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            (*flag.where.calls, *steps),
            _fix(flag, method),
            support.experiment("training-flag", "torch", behind, on_layer=False),
        )


def _stays_behind(file: FileFacts, flag: FlagSet, layer: Layer, wanted: bool) -> bool:
    mode = layer.mode
    if mode is None or layer.instance is flag.target or not support.is_mode_dependent(layer.instance):
        return False
    if wanted:
        return layer.instance in file.put_in_eval and not mode.surely_train
    return not mode.surely_eval


def _is_one_of_several(file: FileFacts, flag: FlagSet) -> bool:
    """Whether the flag is set where a mode is: in an override, or beside a call of ``train()`` or ``eval()``."""
    functions = flag.where.functions
    mine = {layer.instance for layer in flag.layers}
    if functions[-1:] in (("train",), ("eval",), ("__init__",)):
        return True
    if any((layer, functions) in file.flags_of_parts for layer in mine):
        return True
    return any(
        call.where.functions == functions
        and (call.target is flag.target or not mine.isdisjoint(layer.instance for layer in call.layers))
        for call in file.mode_calls
    )


def _fix(flag: FlagSet, method: str) -> Fix | None:
    if flag.statement is None or flag.receiver is None:
        return None
    edit = Edit(flag.statement, f"{flag.receiver}.{method}()")
    return Fix(Safety.UNSAFE, f"call {flag.receiver}.{method}()", (edit,))
