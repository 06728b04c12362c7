"""What earlier runs have measured: verdicts, as long as nothing has changed that they rest on.

A verdict rests on its experiment, on bnlint's own code, on the packages that it was measured with and on the device.
All of that is told from names, sizes and times of files: no framework is imported to find out. What may go otherwise
the next time (no memory, no time, no framework) is not kept; ``runner`` says which answers last.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from bnlint.cache import ResultCache, key
from bnlint.experiment import Experiment
from bnlint.finding import Verification

#: How the distributions begin whose versions count: the frameworks, what they compute and export with, and libraries of
#: models.
_COUNTING = (
    "torch",
    "tensorflow",
    "keras",
    "tf_keras",
    "tf-keras",
    "jax",
    "numpy",
    "onnx",
    "timm",
    "segmentation_models",
)
_FRAMEWORKS = ("torch", "tensorflow", "keras")
#: By which a user decides what a framework finds.
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
#: There where there is a driver.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Recall:
    """The verdicts in a cache that hold here and now."""

    def __init__(self, cache: ResultCache | None, path: Sequence[str], device: str, plots: bool) -> None:
        self._cache = cache if cache else ResultCache()
        self._environment = ""
        if self._cache:
            from bnlint.fingerprint import installed

            facts = [device, plots, sys.platform, list(_packages(path)), list(_devices())]
            self._environment = key(installed(self._cache).fingerprint, json.dumps(facts)).hex()

    def look_up(self, experiments: Sequence[Experiment]) -> list[Verification | None]:
        """The verdict on each of the experiments, None where it has to be measured."""
        keys = [self._key(experiment) for experiment in experiments] if self._cache else []
        texts = self._cache.verdicts(keys)
        return [_thawed(texts.get(name)) for name in keys] if texts else [None] * len(experiments)

    def keep(self, experiment: Experiment, verification: Verification) -> None:
        if self._cache:
            from bnlint.frozen import freeze_verification

            self._cache.keep_verdict(self._key(experiment), freeze_verification(verification))

    def recall(self, question: str) -> Verification | None:
        """The verdict on a whole model, by all that is asked and all that it is built of; None where it has to be
        measured."""
        if not self._cache:
            return None
        name = key(self._environment, question)
        return _thawed(self._cache.verdicts([name]).get(name))

    def remember(self, question: str, verification: Verification) -> None:
        if self._cache:
            from bnlint.frozen import freeze_verification

            self._cache.keep_verdict(key(self._environment, question), freeze_verification(verification))

    def _key(self, experiment: Experiment) -> bytes:
        return key(self._environment, json.dumps(experiment.to_json(), sort_keys=True))


def _thawed(text: str | None) -> Verification | None:
    if text is None:
        return None
    from bnlint.frozen import thaw_verification

    try:
        return thaw_verification(text)
    except ValueError:
        return None  # not what was written: it is measured and written anew


def _packages(path: Sequence[str]) -> Iterator[list[str | int]]:
    """Names with versions of what is installed, and where the frameworks lie, which a checkout has no version for."""
    for folder in path:
        with suppress(OSError):
            for name in sorted(os.listdir(folder)):
                if name.lower().startswith(_COUNTING) and name.endswith((".dist-info", ".egg-info")):
                    yield [name]
    for framework in _FRAMEWORKS:
        found = PathFinder.find_spec(framework, list(path))
        if found is not None and found.origin is not None:
            with suppress(OSError):
                status = os.stat(found.origin)
                yield [found.origin, status.st_size, status.st_mtime_ns]


def _devices() -> Iterator[str]:
    for name in _VARIABLES:
        yield f"{name}={os.environ.get(name)}"
    yield from (driver for driver in _DRIVERS if os.path.exists(driver))
    with suppress(OSError):
        yield Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
