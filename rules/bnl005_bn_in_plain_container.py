from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Fix, Safety, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, Layer, Unregistered
from bnlint.semantics.intent import is_test_file

# The text of what the mistake looks like, since a file that has none of it need not be parsed. What builds a module
# is named like a class, or is a function of the file or a method, but for those that surely build none.
_BUILDS = (
    r"(?:(?:\w+\.)*[A-Z]\w*|(?:\bself\.|(?<![\w.]))"
    r"(?!(?:dict|int|float|len|range|tuple|list|str|sum|zip|min|max|set|bool|round|sorted|open|get_\w+|compute_\w+)\()"
    r"[a-z_]\w*)\("
)
_ATTRIBUTE = r"\bself\.(?P<{0}>\w+)[ \t]*(?::[^=\n]*)?=[ \t]*"
_EMPTY = r"(?:\[\]|list\(\)|\{\}|dict\(\))"
_LATER = r"(?s:.{0,4000}?)"
_FILLED = (
    _ATTRIBUTE.format("filled")
    + _EMPTY
    + rf"{_LATER}self\.(?P=filled)"
    + r"(?:\.(?:append|extend|insert|add|update)\(|\[[^\]\n]*\][ \t]*=|[ \t]*\+=)"
    + rf"(?:[ \t]*#[^\n]*)?\s*[\[({{]?\s*{_BUILDS}"
)
_FILLED_BY_NAME = (
    _ATTRIBUTE.format("list")
    + _EMPTY
    + rf"{_LATER}(?<![\w.])(?P<module>\w+)[ \t]*=[ \t]*{_BUILDS}"
    + rf"{_LATER}self\.(?P=list)(?:\.(?:append|add)\(|\[[^\]\n]*\][ \t]*=[ \t]*)(?P=module)[ \t]*(?:\)|\n)"
)
_DISPLAYED = _ATTRIBUTE.format("displayed") + (
    rf"(?:[\[{{](?:[^\]}}]*?[\[ \t\n:(])?{_BUILDS}|\([ \t\n]*{_BUILDS}[^\n]*\),|"
    r"\[[ \t]*[a-z_]\w*[ \t]*,[ \t]*[a-z_]\w*[,\]])"
)
_HANDED_OVER = (
    rf"(?<![\w.])(?P<handed>\w+)[ \t]*=[ \t]*(?:{_EMPTY}|[\[{{]\s*{_BUILDS})"
    + rf"{_LATER}self\.\w+[ \t]*=[ \t]*(?P=handed)[ \t]*(?:#|\n|$)"
)


class BatchNormInPlainContainer(Rule):
    """Modules with BatchNorm or Dropout are kept in a plain list, tuple or dict.

    ## What it does
    Reports an attribute of a PyTorch module that is a Python list, tuple, dict or set and holds modules with layers
    whose behaviour depends on the mode, where nothing else registers them.

    ## Why is this bad?
    `nn.Module` registers an attribute only if it is a module itself. What lies in a plain container is reached by
    neither `eval()` nor `to()` nor `parameters()` nor `state_dict()`: its BatchNorm stays in train mode at inference,
    its weights are neither trained nor saved, and nothing fails.

    ## Example
    ```python
    def __init__(self, width, depth):
        super().__init__()
        self.norms = [nn.BatchNorm1d(width) for _ in range(depth)]
    ```

    ## Use instead
    ```python
    def __init__(self, width, depth):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(depth)])
    ```

    ## When it does not fire
    When the same modules are attributes too, or are registered by `add_module()`, `setattr()`, `nn.Sequential(*self.x)`
    or `nn.ModuleList(self.x)`; when the attribute is handed to something that may register them; when the class looks
    after them in a `train()`, `parameters()` or the like of its own; when they are in eval mode, frozen, or a single
    module that is put in a list to hide it; for contents of unknown make; in tests; and in Keras, which tracks lists
    and dicts.

    ## How --verify confirms it
    It puts the rebuilt layers into such a container of a module and calls `eval()` on it: they stay in train mode, are
    not among its modules, and the outputs are not those of the same layers in an `nn.ModuleList`. Layers without
    running statistics or with `p=0` refute it.

    ## Fix safety
    Unsafe: wrapping a list in `nn.ModuleList` gives the optimiser new parameters and checkpoints new entries, as it
    must. Other containers, and lists that hold other things too, get none.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html>
    - <https://github.com/pytorch/pytorch/issues/666>
    - <https://github.com/pytorch/pytorch/issues/715>
    - <https://github.com/pytorch/pytorch/issues/4412>
    - <https://github.com/kanezaki/pytorch-unsupervised-segmentation/issues/6>
    """

    code: ClassVar[str] = "BNL005"
    name: ClassVar[str] = "bn-in-plain-container"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("container-reach",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = ((b"torch", b"timm", b"lightning"), (b"self.",))
    needle_pattern: ClassVar[str] = (
        r"\bself\.\w+[ \t]*(?::[^=\n]*)?=[ \t]*(?:[\[({]|list\(\)|dict\(\)|\w+[ \t]*[#\r\n])"
    )
    # An attribute that is filled later, one that is a display of calls or names, and a local list that becomes one.
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (
        f"{_FILLED}|{_FILLED_BY_NAME}|{_DISPLAYED}|{_HANDED_OVER}",
        r"\bdef forward\b|LightningModule",
        # Part of the first, and much faster to look for.
        r"=[ \t]*(?:[\[{]|list\(\)|dict\(\))|self\.\w+[ \t]*(?::[^=\n]*)?=[ \t]*\(",
    )

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file):
            return
        for found in file.unregistered:
            layers = [layer for layer in found.layers if support.is_mode_dependent(layer.instance)]
            if layers:
                yield self._report(found, layers)

    def _report(self, found: Unregistered, layers: list[Layer]) -> Finding:
        proper = "nn.ModuleDict" if found.container == "dict" else "nn.ModuleList"
        owned = support.describe(layers)
        certain = any(layer.certain for layer in layers) and not found.cls.has_unknown_base
        first = layers[0].instance
        return self.finding(
            found.location,
            f"{found.cls.name} keeps modules in self.{found.attribute}, a plain {found.container}, where nothing "
            f"registers them: neither eval() nor parameters() nor state_dict() reaches {owned}; use {proper}",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            (
                TraceStep(first.location, f"this {support.short_name(first)} stays in the mode it was built in"),
                TraceStep(found.location, f"put into a plain {found.container} here"),
            ),
            _fix(found),
            support.experiment(
                "container-reach",
                "torch",
                (layer.instance for layer in layers),
                container="list" if found.container == "set" else found.container,
            ),
        )


def _fix(found: Unregistered) -> Fix | None:
    at = found.display
    if at is None or found.wrapper is None:
        return None
    edits = (support.insert(at, f"{found.wrapper}("), support.append(at, ")"))
    return Fix(Safety.UNSAFE, f"keep them in {found.wrapper}", edits)
