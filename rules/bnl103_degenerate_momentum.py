from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bnlint.rules import _support as support
from bnlint.rules._marks import MOMENTUM_MARKS, NORM_MARKS
from bnlint.rules._momentum import Given, momenta

from bnlint.experiment import Experiment, Scalar
from bnlint.finding import Confidence, Finding, Severity
from bnlint.rule import Rule
from bnlint.semantics.events import FileFacts
from bnlint.semantics.intent import is_test_file, words
from bnlint.semantics.values import Constant, Unknown

#: What tells that statistics are left alone, or taken from one batch, on purpose.
MEANT = frozenset(
    {"freeze", "freezes", "frozen", "freezing", "fixed", "maml", "meta", "metalearning", "learner", "shot", "shots",
     "fewshot", "oneshot", "fsl", "omniglot", "miniimagenet", "transductive", "episode", "episodes", "episodic",
     "inner", "proto", "prototypical", "protonet", "relation", "precise", "adapt", "adaptation", "adabn", "reptile",
     "support"}
)  # fmt: skip


class DegenerateMomentum(Rule):
    """A BatchNorm's momentum makes no average of its batches.

    ## What it does
    Reports a BatchNorm layer of PyTorch or Keras whose momentum is outside 0 to 1, is such that the running statistics
    never move (0 in PyTorch, 1 in Keras) or are those of the last batch alone (1 in PyTorch, 0 in Keras), or is `None`
    in Keras.

    ## Why is this bad?
    The running statistics are `(1 - a) * running + a * batch`. With a = 0 they stay at 0 and 1, or at what a checkpoint
    held, whatever the layer is trained on: training and evaluation drift apart. With a = 1 every evaluation carries
    the whole noise of the last batch. Beyond 0 and 1 the sum is no average: a running variance becomes negative, and
    the output NaN, or the statistics grow without end; no framework rejects it. `None` is a cumulative average in
    PyTorch and a `TypeError` in Keras.

    ## Example
    ```python
    nn.BatchNorm2d(64, eps=1e-3, momentum=0)
    ```

    ## Use instead
    ```python
    nn.BatchNorm2d(64, eps=1e-3, momentum=0.1)  # to freeze the statistics, eval mode says so
    ```

    ## When it does not fire
    For 0 or 1 that is set on a layer that is already there (a freeze, or statistics kept from one pass), for 0 and 1
    where names speak of freezing, few-shot or meta-learning, in tests, for `momentum=None` in PyTorch, with
    `track_running_stats=False` or `trainable=False`, for Keras layers that are always called with `training=True`, and
    where any value that the argument may take is a usual one. 1 in PyTorch is mostly meant, and therefore only
    *possible*.

    ## How --verify confirms it
    It feeds the rebuilt layer batches and looks at the running mean: one that never moves, carries 99 % or more of a
    batch's noise, or leaves the finite numbers confirms, and so does an exception; anything up to 95 % refutes.

    ## Fix safety
    There is no fix: what was meant, a freeze, an average over all batches or a usual momentum, is the author's to say.

    ## References
    - <https://github.com/Cadene/pretrained-models.pytorch/issues/5>
    - <https://github.com/keras-team/keras/issues/16726>
    - <https://github.com/keras-team/keras/pull/23623>
    - <https://github.com/gmalivenko/pytorch2keras/issues/70>
    """

    code: ClassVar[str] = "BNL103"
    name: ClassVar[str] = "degenerate-momentum"
    severity: ClassVar[Severity] = Severity.ERROR
    frameworks: ClassVar[tuple[str, ...]] = ("PyTorch", "Keras")
    experiments: ClassVar[tuple[str, ...]] = ("degenerate-momentum",)
    evidence: ClassVar[int] = 5
    needles: ClassVar[tuple[tuple[bytes, ...], ...]] = (
        (b"torch", b"keras", b"tensorflow", b"tf_slim"),
        (b"BatchNorm", b"batchnorm", b"batch_norm", b".momentum"),
        (b"momentum", b"MOMENTUM", b"Momentum", b"decay"),
    )
    # The number stands behind a name for a momentum, here or wherever it comes from, or third in the call.
    needle_pattern: ClassVar[str] = (
        r"(?i:(?<!weight_)(?<!lr_)(?:momentum|decay|\bmom))\w*['\"]?\]?[ \t]*(?::[^=\n]{0,40})?[=:][ \t]*"
        r"(?:float\()?(?:-|None\b|0(?:\.0*)?(?![\d.eE])|1(?:\.\d*)?(?![\deE])|[2-9]|\d\d)|"
        r"BatchNorm\w*\([^()\n=]*,[^()\n=]*,[ \t]*(?:-|[01](?:\.0*)?[ \t]*[,)])"
    )
    follows_modes: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = (MOMENTUM_MARKS, NORM_MARKS)

    def check(self, file: FileFacts) -> Iterator[Finding]:
        if is_test_file(file):
            return
        for given in momenta(file):
            judged = _judge(given)
            if judged is None:
                continue
            momentum, confidence = judged
            weight = given.layer.new_batch_weight(momentum) if momentum is not None else None
            if weight in (0, 1):
                if given.built is None or _is_meant(file, given):
                    continue
                if weight == 1 and given.layer.framework == "torch":
                    confidence = Confidence.POSSIBLE
            yield self.finding(
                given.location,
                _message(given, momentum, weight),
                confidence,
                given.where.calls,
                None,
                Experiment("degenerate-momentum", given.layer.framework, (given.spec(momentum),)),
            )


def _judge(given: Given) -> tuple[float | None, Confidence] | None:
    """The momentum and how sure it is; None unless every constant that the value may be is degenerate."""
    constants = [atom for atom in given.value if isinstance(atom, Constant)]
    others = [atom for atom in given.value if not isinstance(atom, Constant)]
    by_default = any(atom.from_default for atom in constants)
    if not constants or not all(isinstance(atom, Unknown) for atom in others) or (others and not by_default):
        return None
    found: list[float | None] = []
    for atom in constants:
        number = atom.value
        if number is None:
            if given.layer.framework != "keras" or by_default:  # a default of None is replaced by something, surely
                return None
            found.append(None)
        elif isinstance(number, (bool, str)) or _averages(given, number):
            return None
        else:
            found.append(float(number))
    return found[0], Confidence.LIKELY if by_default else Confidence.CERTAIN


def _averages(given: Given, momentum: float) -> bool:
    weight: float = given.layer.new_batch_weight(momentum)
    return 0 < round(weight, 10) < 1


def _is_meant(file: FileFacts, given: Given) -> bool:
    names = [*support.names_around(given.where, file.path), *file.defines]
    return any(words(name) & MEANT for name in names)


def _message(given: Given, momentum: Scalar, weight: float | None) -> str:
    name = given.layer.momentum
    if weight is None:
        return f"{name}=None is a cumulative average in PyTorch only: Keras multiplies by it and raises a TypeError"
    written = f"{name}={momentum:g}"
    if weight == 0:
        return (
            f"{written} never moves the running statistics: the layer evaluates with their initial mean 0 and variance "
            "1, or a checkpoint's, whatever it is trained on; to freeze them on purpose, keep it in "
            + ("eval mode" if given.layer.framework == "torch" else "inference mode (trainable=False)")
        )
    if weight == 1:
        return (
            f"{written} makes the running statistics those of the last batch alone, so that every evaluation carries "
            "its noise; if this is meant (transductive or few-shot evaluation), suppress it"
        )
    return (
        f"{written} is outside 0 to 1: the running statistics become {1 - weight:g} * old + {weight:g} * batch, which "
        "is no average, and a variance can become negative and the output NaN"
    )
