from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import Experiment
from bnlint.finding import Confidence, Edit, Finding, Fix, Safety, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Layer, ModeOverride
from bnlint.semantics.intent import is_test_file


class BrokenModeOverride(Rule):
    """A module's own `train()` or `eval()` breaks the contract of `nn.Module`.

    ## What it does
    Reports a class derived from `nn.Module` whose `train()` takes no mode, ignores it, reaches no other module or
    returns nothing; whose `eval()` reaches no other module or returns nothing; whose method of that name is a training
    or evaluation loop; or which hides the method by an attribute (`self.train = True`).

    ## Why is this bad?
    `eval()` is `self.train(False)`, `train(mode)` sets the mode of the module and of all below it, and both return the
    module. With an override that takes no mode `eval()` raises `TypeError`; with one that ignores it, or hands it on to
    nobody, BatchNorm and Dropout stay in train mode at inference; with one that returns nothing `model = model.eval()`
    is `None`.

    ## Example
    ```python
    class Net(nn.Module):
        def train(self):
            super().train()
            self.backbone.eval()
    ```

    ## Use instead
    ```python
    class Net(nn.Module):
        def train(self, mode=True):
            super().train(mode)
            self.backbone.eval()
            return self
    ```

    ## When it does not fire
    When the bases are not all known to lead to `nn.Module`; for overrides that do nothing but return or raise (the mode
    is switched off on purpose), and those that set a fixed mode; for loops of classes without BatchNorm and Dropout;
    when `eval()` has an override of its own beside a `train()` that `eval()` could not call; when another method may
    do the rest; in tests.

    ## How --verify confirms it
    It builds a module with such an override around the rebuilt layers and calls `eval()` and `train()` on it: they
    raise, return nothing, or leave the layers in the other mode. What a training loop would do with `False` for its
    data cannot be rebuilt.

    ## Fix safety
    Unsafe: a `mode` parameter that is handed on and `return self` are added where the body is simple enough; they
    change what `eval()` does, as they must. Loops have to be renamed by their author.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.train>
    - <https://github.com/pytorch/pytorch/issues/52272>
    - <https://github.com/seungeunrho/minimalRL/issues/2>
    - <https://github.com/deepinv/deepinv/issues/257>
    - <https://github.com/roytseng-tw/Detectron.pytorch/issues/104>
    """

    code: ClassVar[str] = "BNL006"
    name: ClassVar[str] = "broken-mode-override"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("mode-override",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"def train", b"def eval", b"self.train", b"self.eval"),
        (b"class ",),
    )
    needle_pattern: ClassVar[str] = r"\n[ \t]+def (?:train|eval)[ \t]*\(|self\.(?:train|eval)[ \t]*=[^=]"
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (
        r"(?m:^)[ \t]+def (?:train|eval)[ \t]*\(|self\.(?:train|eval)[ \t]*=(?!=)",
        r"(?m:^)[ \t]*class[ \t]+\w+[ \t]*\(\s*(?!object\b|\))",
    )

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file):
            return
        for override in file.overrides:
            layers = [layer for layer in override.layers if support.is_mode_dependent(layer.instance)]
            if layers or not _matters_to_layers_alone(override):
                yield self._report(override, layers)

    def _report(self, override: ModeOverride, layers: list[Layer]) -> Finding:
        certain = override.sure and not override.loop and not override.cls.has_unknown_base
        return self.finding(
            override.location,
            _message(override, layers),
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            (),
            _fix(override),
            _experiment(override, layers),
        )


def _matters_to_layers_alone(override: ModeOverride) -> bool:
    """Whether nothing is wrong without layers of two modes: nobody will call ``eval()``, or nobody is left behind."""
    return override.fault == "no-super" or (override.loop and not override.owns_unknown)


def _message(override: ModeOverride, layers: list[Layer]) -> str:
    name, method = override.cls.name, override.method
    owned = support.describe(layers) if layers else "any BatchNorm and Dropout in it"
    stays = "stays" if layers and support.is_one(layers) else "stay"
    if override.loop and method == "train":
        return (
            f"train() of {name} is a training loop, but {name} is an nn.Module, whose eval() is train(False): eval() "
            "runs into that loop, and no train() sets the mode; give the loop another name"
        )
    if override.loop:
        return (
            f"eval() of {name} is an evaluation loop, but {name} is an nn.Module: nothing puts {owned} in eval mode; "
            "give the loop another name"
        )
    texts = {
        "no-mode-parameter": f"train() of {name} takes no mode, but eval() is train(False): it raises TypeError; "
        "take mode=True and hand it on",
        "returns-none": f"{method}() of {name} returns nothing, but nn.Module's returns the module: "
        "`net = net.eval()` is None; return self",
        "ignores-mode": f"train() of {name} ignores {override.mode}, but eval() is train(False): {owned} {stays} in "
        "train mode; hand it on to super().train()",
        "no-super": f"{method}() of {name} reaches no other module: {owned} {stays} in the mode it was in; "
        f"call super().{method}({override.mode if method == 'train' else ''})",
        "shadowed": f"an attribute hides the method {method}() of {name}: "
        f"{'eval() and train() raise' if method == 'train' else 'eval() raises'} TypeError; give it another name",
    }
    return texts[override.fault].replace("stay in the mode it was", "stay in the mode they were")


def _experiment(override: ModeOverride, layers: list[Layer]) -> Experiment:
    if override.loop:
        unknown = f"what a loop in place of {override.method}() does cannot be rebuilt"
        return Experiment("mode-override", "torch", (), None, unknown)
    instances = (layer.instance for layer in layers)
    question: Experiment = support.experiment(
        "mode-override", "torch", instances, method=override.method, fault=override.fault
    )
    return question


def _fix(override: ModeOverride) -> Fix | None:
    """Add the parameter, hand it on, and return self: all that the override lacks, or nothing."""
    edits: list[Edit] = []
    if override.loop or override.fault not in ("no-mode-parameter", "ignores-mode", "returns-none"):
        return None
    if override.fault == "no-mode-parameter":
        if override.parameter is None:
            return None
        edits.append(support.insert(override.parameter, f", {override.mode}=True"))
    if override.fault != "returns-none":
        if override.parent_call is None:
            return None
        edits.append(support.insert(override.parent_call, override.mode))
    if not override.returns:
        # As in eval_before: the indentation is repeated unseen, and must not be made of tabs.
        if override.end is None or not override.falls_off or override.indent % 4:
            return None
        edits.append(support.insert(override.end, " " * override.indent + "return self\n"))
    what = "return self" if override.fault == "returns-none" else f"hand {override.mode} on"
    return Fix(Safety.UNSAFE, what, tuple(edits))
