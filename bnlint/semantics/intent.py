"""What names tell about the purpose of a piece of code: inference, training, or train mode on purpose.

Names are weak evidence. They may make a rule speak only together with a mode that is certain, while any
single one of them may keep it silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from bnlint.semantics.events import FileFacts, Forward
from bnlint.semantics.state import Mode, compatible
from bnlint.semantics.values import Class, Instance, Ref

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_TRAIN = frozenset({"train", "training", "trained", "trainer", "fit", "finetune", "pretrain", "learn"})
_INFERENCE = frozenset(
    {
        "test", "tests", "testing", "val", "valid", "validate", "validation", "eval", "evaluate",
        "evaluation", "infer", "inference", "predict", "prediction", "predictions", "predictor",
    }
)  # fmt: skip
_DATA_WORD = re.compile(r"[xy]?(train|test|val|valid|eval)(loader|set|data|dataset|dataloader|dl|ds|iter|gen)?s?")
_DATA_NOUNS = frozenset({"loader", "dataloader", "dataset", "data", "set", "iter", "iterator", "images", "batches"})
# Numbers of the like, not data.
_OF_NO_DATA = frozenset(
    {"iteration", "iterations", "interval", "step", "steps", "epoch", "epochs", "freq", "frequency", "every", "ratio",
     "size", "num", "loss", "losses", "acc", "accuracy", "score", "best"}
)  # fmt: skip
# On its own "val" is as often short for "value", "valid" a mask, "eval" the built-in.
_AMBIGUOUS_ALONE = frozenset({"val", "valid", "eval", "predict", "prediction", "predictions"})

# Uses of train mode that are meant: GAN sampling, mean teachers, adaptation at test time, re-estimation of
# the statistics, Monte Carlo dropout, transductive few-shot evaluation.
_DELIBERATE = frozenset(
    {
        "generator", "gen", "gan", "gans", "dcgan", "wgan", "cyclegan", "netg", "netd", "discriminator",
        "noise", "latent", "latents", "teacher", "ema", "moco", "byol", "momentum", "adapt", "adapts",
        "adapted", "adaptation", "adaptive", "tent", "cotta", "tta", "adabn", "recalibrate",
        "recalibration", "calibrate", "calibration", "calib", "reestimate", "precise", "mc", "dropout",
        "bayesian", "bayes", "uncertainty", "episode", "episodes", "episodic", "support", "query", "maml",
        "meta", "fewshot", "shot", "transductive", "adversarial", "attack",
    }
)  # fmt: skip
_GENERATIVE = frozenset(
    {"pix2pix", "cyclegan", "translation", "style", "stylize", "vae", "flow", "adversary", "critic"}
)
_FROZEN = frozenset(
    {"frozen", "freeze", "fixed", "pretrained", "teacher", "target", "ema", "reference", "extractor", "perceptual"}
)
_DELIBERATE_TOGETHER = (frozenset({"update", "bn"}), frozenset({"reset", "bn"}), frozenset({"bn", "stats"}))
_GAN_LETTERS = frozenset({"G", "D", "g", "netG", "netD"})
_PARTS = frozenset(
    {"block", "layer", "encoder", "decoder", "head", "neck", "backbone", "module", "unit", "cell", "stem", "attention",
     "embedding", "branch", "stage", "path", "conv", "bottleneck", "discriminator", "generator", "critic", "sampler"}
)  # fmt: skip
_TEST_PACKAGES = frozenset({"pytest", "unittest"})


@cache
def words(name: str) -> frozenset[str]:
    """The words of a name in snake or camel case, in lower case, and its dotted parts as they are."""
    parts = {part.lower() for part in name.split(".")}
    return frozenset({word.lower() for word in _WORD.findall(name)} | parts)


@dataclass(frozen=True)
class Evidence:
    """Why a forward pass is taken for inference.

    ``no_grad`` tells that no gradients are recorded, ``function`` is the name of the running function that
    says so, ``data`` the name of the data.
    """

    no_grad: bool
    function: str | None
    data: str | None

    @property
    def strong(self) -> bool:
        return self.no_grad or (self.function is not None and self.data is not None)

    def __str__(self) -> str:
        reasons = ["it runs under torch.no_grad()"] if self.no_grad else []
        reasons += [f"it is in {self.function}()"] if self.function else []
        reasons += [f"its data is {self.data!r}"] if self.data else []
        return " and ".join(reasons)


def evidence_of_inference(facts: FileFacts, forward: Forward) -> Evidence | None:
    """Why this forward pass is inference; None where it is not, or where train mode may be meant."""
    where = forward.where
    data = None if forward.eager_input else data_for_inference(forward)  # what is made up is no data
    step = forward.mode.train
    if forward.discarded and step is not None and step.location != forward.target.location:
        return None  # train() was called and no output is kept: all that is wanted are the statistics
    if step is not None and step.calls == where.calls:
        if (forward.target, where.calls) in facts.modes_saved:
            return None  # the mode is kept, train() called, and the mode restored: nobody does that by mistake
        if step.asked:
            return None  # a caller says that it is to be run in train mode
    if forward.is_self or is_test_code(facts, forward, data) or is_deliberate(forward):
        return None
    if {"forward", "training_step", "__init__"} & set(where.functions):
        return None  # a model's own step; in __init__ a probe for shapes
    if data is None:
        if where.loops and _purpose(where.loops[-1].reads) == "train":
            return None  # re-estimates the statistics, or measures the training itself
        if _is_inside_training(facts, forward):
            return None
        if forward.eager_input and forward.read_at is None:
            return None  # a warm-up or a probe for shapes: nobody reads what it computes
    function = inference_function(where.functions)
    if where.no_grad is None:
        if function is None and data is None:
            return None
        in_function = [event for event in facts.backwards if event.where.functions == where.functions]
        if in_function and where.functions:
            return None  # names alone do not tell validation from training within one function
    return Evidence(where.no_grad is not None, function, data)


def modes_in_training(facts: FileFacts, forward: Forward) -> list[Mode]:
    """The modes in which this forward pass is trained through; empty where nothing says that it is."""
    if forward.where.no_grad is not None:
        return []
    if forward.trained:
        return [forward.mode_in_training()]
    if "training_step" in forward.where.functions:  # whose loss a runner trains on
        return [forward.mode]
    return [
        forward.mode.given(backward.guards)
        for backward in facts.backwards
        if backward.where.functions == forward.where.functions
        and backward.where.loops[-1:] == forward.where.loops[-1:]
        and backward.where.loops
        and compatible(backward.guards, forward.guards)
    ]


def is_trained_in_train_mode(facts: FileFacts, forward: Forward) -> bool:
    """Whether this forward pass is trained through in a mode that surely is train mode."""
    return any(mode.surely_train for mode in modes_in_training(facts, forward))


def data_for_inference(forward: Forward) -> str | None:
    """The name in the arguments, or else in the loops around the call, that says test or validation data."""
    for names in (forward.reads, *(loop.reads for loop in reversed(forward.where.loops))):
        purpose = _purpose(names)
        if purpose == "inference":
            return min(name for name in names if _data_purpose(name) == "inference")
        if purpose == "train":
            return None
    return None


def is_test_file(facts: FileFacts) -> bool:
    """Whether the file is a test: what it runs in train mode it may well mean to."""
    path = PurePosixPath(facts.path)
    if path.name == "conftest.py" or "tests" in path.parts[:-1] or _TEST_PACKAGES & facts.imports:
        return True
    # Scripts that test a network are named like tests of a program; those consist of functions named so.
    named = re.fullmatch(r"test_.*\.py|.*_test\.py", path.name) or "test" in path.parts[:-1]
    return bool(named) and any(name.startswith(("test_", "Test")) for name in facts.defines)


def is_test_code(facts: FileFacts, forward: Forward, data: str | None = None) -> bool:
    in_test = forward.where.functions[:1] and forward.where.functions[0].startswith(("test_", "_test_"))
    return is_test_file(facts) or (bool(in_test) and data is None)


def is_deliberate(forward: Forward, but: frozenset[str] = frozenset()) -> bool:
    """Whether a name around the call tells of a method that needs train mode; ``but`` are words that tell nothing."""
    names = {*forward.where.functions, *forward.reads, *forward.comprehended, forward.receiver or ""}
    for loop in forward.where.loops:
        names |= loop.reads
    target = forward.target.cls if isinstance(forward.target, Instance) else None
    for cls in (*forward.where.classes, *([target] if target else [])):
        names |= _class_names(cls)
    if (forward.receiver or "").rpartition(".")[2] in _GAN_LETTERS:
        return True
    found = [words(name) for name in names]
    return any((_DELIBERATE - but) & those or any(pair <= those for pair in _DELIBERATE_TOGETHER) for those in found)


def is_deliberate_file(facts: FileFacts, also: Iterable[str]) -> bool:
    """Whether the file, what it defines or the names in ``also`` tell of a method that needs batch statistics in
    inference; for rules about how a model is built, whose use is elsewhere."""
    names = [*facts.defines, *PurePosixPath(facts.path).with_suffix("").parts[-3:], *also]
    found = [words(name) for name in names]
    wanted = _DELIBERATE | _GENERATIVE
    return any(wanted & those or any(pair <= those for pair in _DELIBERATE_TOGETHER) for those in found)


def is_about_freezing(names: Iterable[str]) -> bool:
    """Whether one of the names tells that what is run is meant to stay as it is."""
    return any(_FROZEN & words(name) for name in names)


def is_part_of_a_model(cls: Class) -> bool:
    """Whether a class is named as something that others are made of."""
    return bool(_PARTS & words(cls.name))


def _class_names(cls: Class) -> set[str]:
    names = {ancestor.name for ancestor in cls.ancestors()}
    return names | {base.name for one in cls.ancestors() for base in one.bases if isinstance(base, Ref)}


def inference_function(functions: Iterable[str]) -> str | None:
    """The innermost function whose name says anything, if that is inference and nothing else."""
    for name in reversed(list(functions)):
        its = words(name)
        if its & _TRAIN:
            return None
        if its & _INFERENCE:
            return name
    return None


def _is_inside_training(facts: FileFacts, forward: Forward) -> bool:
    """Whether the loop (or, outside of loops, the function) that the call is in also trains."""
    where = forward.where
    for backward in facts.backwards:
        if where.loops[-1:] != backward.where.loops[-1:]:
            continue
        functions, here = backward.where.functions, where.functions
        if functions == here or (where.loops and functions[: len(here)] == here):
            return True
        helpers = here[len(functions) :]  # a step of the training, unless its name says otherwise
        if where.loops and here[: len(functions)] == functions and inference_function(helpers) is None:
            return True
    return False


def _purpose(names: Iterable[str]) -> str | None:
    """What all names that say anything say: ``train`` or ``inference``; None where they disagree."""
    purposes = {purpose for purpose in map(_data_purpose, names) if purpose}
    return purposes.pop() if len(purposes) == 1 else None


@cache
def _data_purpose(name: str) -> str | None:
    parts = {word.lower() for word in _WORD.findall(name)}
    matches = [match for word in parts if (match := _DATA_WORD.fullmatch(word))]
    kinds = {"train" if match[1] == "train" else "inference" for match in matches}
    if parts & (_TRAIN - {"fit"}):
        kinds.add("train")
    if parts & {"predict", "infer"} and parts & _DATA_NOUNS:
        kinds.add("inference")
    if len(parts) > 1 and parts & {"validation", "evaluation", "testing", "inference"}:
        kinds.add("inference")
    if parts & _OF_NO_DATA or (len(parts) == 1 and parts & _AMBIGUOUS_ALONE):
        return None
    return kinds.pop() if len(kinds) == 1 else None
