from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _averages as averages
from bnlint.rules import _support as support

from bnlint.finding import Confidence, Finding, Severity, TraceStep
from bnlint.rule import Rule
from bnlint.semantics.events import Averaged, FileFacts, Layer, StateUse
from bnlint.semantics.intent import is_test_file, words
from bnlint.semantics.values import Instance

# What tells that a copy gets its buffers after all, wherever that stands.
_RENEWING = r"buffers\(|load_state_dict\([^\n]*state_dict\(|" + averages.RENEWING_MARKS
_LOADING = frozenset({"load", "resume", "restore", "checkpoint", "ckpt"})


class EmaParamsOnly(Rule):
    """An averaged copy of a model gets the parameters, but not the running statistics of BatchNorm.

    ## What it does
    Reports a loop that averages the `parameters()` of one module into those of another, where the averaged one has
    BatchNorm, is put in eval mode, and nothing in the file renews its running statistics.

    ## Why is this bad?
    Running means and variances are buffers, not parameters. Those of the copy stay what they were when it was made
    (mean 0 and variance 1 in a new model), while its weights become those of a trained one: in eval mode it
    computes garbage, though the loss of the trained model looks fine.

    ## Example
    ```python
    ema = copy.deepcopy(model).eval()
    for x, y in loader:
        step(model, x, y)
        for averaged, current in zip(ema.parameters(), model.parameters()):
            averaged.data.mul_(0.999).add_(current.data, alpha=0.001)
    ```

    ## Use instead
    ```python
    ema = copy.deepcopy(model).eval()
    for x, y in loader:
        step(model, x, y)
        for averaged, current in zip(ema.parameters(), model.parameters()):
            averaged.data.mul_(0.999).add_(current.data, alpha=0.001)
        for averaged, current in zip(ema.buffers(), model.buffers()):
            averaged.data.copy_(current.data)
    ```

    ## When it does not fire
    When the copy is ever put in train mode or run in it (the teachers of mean teacher and MoCo have statistics of
    their own), when anything goes through its `buffers()` or the values of a `state_dict()`, when a state is loaded
    into it after the first one, when `update_bn` or its like is called, where running statistics are named, in
    tests, and for models in which no BatchNorm is found. Of a model that comes from elsewhere only the copy is known.

    ## How --verify confirms it
    It trains the rebuilt layers, averages the parameters alone into a copy, and compares the copy's output in eval
    mode with that of a copy which got the buffers too. Layers without running statistics refute it.

    ## Fix safety
    There is no fix: whether buffers are to be copied or averaged, or estimated anew with `update_bn`, is the
    author's choice.

    ## References
    - <https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema>
    - <https://github.com/pytorch/pytorch/issues/84053>
    - <https://github.com/pytorch/ignite/issues/2590>
    - <https://github.com/lucidrains/ema-pytorch/issues/8>
    - <https://github.com/fadel/pytorch_ema/issues/13>
    - <https://github.com/odegeasslbc/FastGAN-pytorch/issues/4>
    """

    code: ClassVar[str] = "BNL302"
    name: ClassVar[str] = "ema-params-only"
    severity: ClassVar[Severity] = Severity.WARNING
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("ema-buffers",)
    evidence: ClassVar[int] = 6
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"parameters(",),
        (
            *(b".add_(", b".sub_(", b".lerp_(", b".copy_(", b".addcmul_(", b"_foreach_"),
            *(b".data" + space + sign + b"=" for space in (b"", b" ") for sign in (b"", b"+", b"-", b"*")),
        ),
    )
    marks: ClassVar[tuple[str, ...]] = (
        r"\.(?:add_|sub_|lerp_|copy_|addcmul_)\(|\.data\s*[-+*]?=|_foreach_",
        r"\bzip\([^)]*(?:param|weight|ema|shadow|average|avg|teacher|target|slow|state)|\b(?:(?:named_)?parameters|state_dict)\((?s:.*)\b(?:(?:named_)?parameters|state_dict)\(",
    )
    excuse: ClassVar[str] = _RENEWING

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if not file.complete or is_test_file(file) or averages.renews_statistics(file):
            return
        # Where one of several models is known, so is what the others are like.
        known = {event.location for event in file.averages if isinstance(event.target, Instance)}
        for event in file.averages:
            if not event.averages or event.names == "state_dict":
                continue
            layers = averages.batch_norms(event.layers)
            concerned = bool(layers) or event.location not in known
            if concerned and _is_only_evaluated(file, event) and not _gets_buffers(file, event):
                yield self._report(file, event, layers)

    def _report(self, file: FileFacts, event: Averaged, layers: list[Layer]) -> Finding:
        if layers:
            s = "s" if support.is_one(layers) else ""
            effect = f"{support.describe(layers)} keep{s} the running statistics that the copy was made with"
        else:
            effect = "if it has BatchNorm, that keeps the running statistics that the copy was made with"
        certain = any(layer.certain for layer in layers)
        built = TraceStep(event.target.location, "built here")
        evaluated = _evaluated(file, event)
        assert evaluated is not None
        return self.finding(
            event.location,
            f"an average over parameters() leaves out buffers, and the averaged copy is only evaluated: {effect}; "
            "copy buffers() too",
            Confidence.CERTAIN if certain else Confidence.LIKELY,
            (
                *([built] if isinstance(event.target, Instance) else []),
                evaluated,
                *event.where.calls,
                TraceStep(event.location, "only its parameters are averaged here"),
            ),
            None,
            support.experiment("ema-buffers", "torch", (layer.instance for layer in layers), buffers="ignored"),
        )


def _is_only_evaluated(file: FileFacts, event: Averaged) -> bool:
    """Whether the averaged copy is put in eval mode and never, as far as can be seen, in train mode."""
    target = event.target
    if target in file.put_in_train or _evaluated(file, event) is None:
        return False
    return all(forward.mode.surely_eval for forward in file.forwards if target in forward.parts)


def _evaluated(file: FileFacts, event: Averaged) -> TraceStep | None:
    return file.put_in_eval.get(event.target)


def _gets_buffers(file: FileFacts, event: Averaged) -> bool:
    """Whether the copy's buffers, or its whole state, are set anywhere but where it is made."""
    if event.target in file.buffers_read or event.source in file.buffers_read:
        return True
    if any(
        other.target is event.target and ("state_dict" in other.names or "buffers" in other.names)
        for other in file.averages
    ):
        return True
    loads = [use for use in file.state_uses if use.name == "loaded" and use.target is event.target]
    return any(not _is_initial(use, event) for use in loads)


def _is_initial(use: StateUse, event: Averaged) -> bool:
    """Whether a state is loaded but once: in a constructor, from a checkpoint, or before the loop that averages."""
    functions = use.where.functions
    if functions and (functions[-1] == "__init__" or words(functions[-1]) & _LOADING):
        return True
    same = functions == event.where.functions[: len(functions)]
    return same and not use.where.loops and use.location.line < event.location.line
