"""Carry out experiments: one child process per framework, all at the same time.

The child is given an import path from which the linted project is removed, a temporary working directory and
its experiments on standard input; it answers line by line, so that one that dies or is killed at the time
limit loses only what it had not answered.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from bnlint.experiment import Experiment
from bnlint.finding import Plot, Verdict, Verification
from bnlint.verify.verdict import judge, reported

#: Script that the child runs, without the interpreter's own arguments.
CHILD = Path(__file__).with_name("child.py")


#: A verdict, and whether it will be the same the next time.
Answer = tuple[Verification, bool]


def run(
    batches: Mapping[str, Sequence[Experiment]],
    device: str,
    time_limit: float,
    path: Sequence[str],
    plots: bool = False,
) -> dict[str, list[Answer]]:
    """Answer every framework's experiments, in order. ``path`` is where the children may import from."""
    verifications: dict[str, list[Answer]] = {}
    waiting: dict[str, Future[tuple[dict[int, dict[str, Any]], str]]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bnlint-", ignore_cleanup_errors=True))
        threads = stack.enter_context(ThreadPoolExecutor(max_workers=max(1, len(batches))))
        for framework, experiments in batches.items():
            engine = engine_of(framework, path)
            if engine is None:
                verifications[framework] = [(_inconclusive(missing(framework), framework), False)] * len(experiments)
                continue
            request = {
                "framework": framework,
                "device": device,
                "limit": time_limit,
                "path": path,
                "plots": plots,
                "experiments": [experiment.to_json() for experiment in experiments],
            }
            try:
                child = Child(request, _environment(engine, device, folder), folder)
            except OSError as error:
                reason = f"no child process could be started: {error}"
                verifications[framework] = [(_inconclusive(reason, framework), False)] * len(experiments)
                continue
            # Whatever ends this block, Ctrl-C included, ends the children before their threads are waited for.
            stack.callback(child.kill)
            waiting[framework] = threads.submit(child.finish)
        for framework, future in waiting.items():
            answers, ending = future.result()
            verifications[framework] = [
                (_verification(framework, experiment, answers.get(index), ending), _lasts(answers.get(index)))
                for index, experiment in enumerate(batches[framework])
            ]
    return verifications


class Child:
    """One framework's process, in a process group of its own."""

    def __init__(self, request: dict[str, Any], environment: dict[str, str], folder: str) -> None:
        self.framework: str = request["framework"]
        self.limit: float = request["limit"]
        self.request = json.dumps(request).encode("ascii")
        self.process = subprocess.Popen(
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )

    def finish(self) -> tuple[dict[int, dict[str, Any]], str]:
        """Wait for the end; return the answers by index and why there are not more."""
        try:
            out, err = self.process.communicate(self.request, timeout=self.limit)
            ending = self._ending(err)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self._rest()
            ending = f"{self.framework} took longer than {self.limit:g} s"
        answers: dict[int, dict[str, Any]] = {}
        for line in out.splitlines(keepends=True):
            if line.endswith(b"\n"):  # the last line of a killed child may be half a one
                answer = json.loads(line)
                if "failed" in answer:
                    return {}, answer["failed"]
                answers[answer["index"]] = answer
        return answers, ending

    def kill(self) -> None:
        if self.process.poll() is not None:
            return
        if sys.platform == "win32":
            self.process.kill()
        else:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _rest(self) -> tuple[bytes, bytes]:
        """What the killed child had said; a process that left the group can hold the pipes open."""
        try:
            return self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired as error:
            return error.output or b"", error.stderr or b""

    def _ending(self, stderr: bytes) -> str:
        status = self.process.returncode
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = f"signal {-status}"
            how = f"was ended by {name}{', as happens where memory runs out,' if name == 'SIGKILL' else ''}"
        else:
            how = f"ended with status {status}"
        lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        words = f"; its last words: {lines[-1][:300]}" if lines else ""
        return f"the {self.framework} process {how} before it answered{words}"


def command() -> list[str]:
    # -I drops what PYTHONDONTWRITEBYTECODE asks for.
    quiet = ["-B"] if sys.dont_write_bytecode else []
    return [sys.executable, "-I", *quiet, "-X", "utf8", str(CHILD)]


def engine_of(framework: str, path: Sequence[str]) -> str | None:
    """What computes for this framework, or None if it is not installed. Nothing is imported to find out."""
    if framework == "torch":
        return "torch" if _is_installed("torch", path) else None
    if not _is_installed("keras", path):
        return None
    return next((engine for engine in ("tensorflow", "torch") if _is_installed(engine, path)), None)


def _is_installed(package: str, path: Sequence[str]) -> bool:
    found = PathFinder.find_spec(package, list(path))
    # A folder without __init__ of that name has no origin and is not the package.
    return found is not None and found.origin is not None


def missing(framework: str) -> str:
    extra = {"torch": "torch", "keras": "tensorflow"}[framework]
    names = {"torch": "PyTorch is", "keras": "Keras with TensorFlow (or PyTorch) is"}
    return f"{names[framework]} not installed; to measure this: pip install 'bnlint[{extra}]'"


def _environment(engine: str, device: str, folder: str) -> dict[str, str]:
    return {**os.environ, **for_engine(engine, device, folder)}


def for_engine(engine: str, device: str, folder: str) -> dict[str, str]:
    """What a child's framework is to find among the environment variables."""
    environment = {
        "KERAS_BACKEND": engine,
        "KERAS_HOME": folder,  # the user's keras.json could change defaults such as the axis
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    return environment


def _verification(framework: str, experiment: Experiment, answer: dict[str, Any] | None, ending: str) -> Verification:
    if answer is None:
        return _inconclusive(ending, framework)
    verdict, reason = judge(experiment.kind, answer["layers"])
    measurements = reported(experiment.kind, answer["layers"])
    plots = tuple(Plot.from_json(plot) for plot in measurements.pop("plots", ()))
    outputs = answer["outputs"]
    if "error" in outputs:
        reason += f"; the source's own input could not be run: {outputs['error']}"
    else:
        measurements |= {name: value for name, value in outputs.items() if name != "fallback"}
    if answer["fallback"]:
        reason += f" ({answer['fallback']})"
    return Verification(verdict, reason, answer["device"], framework, answer["versions"], measurements, plots)


def _lasts(answer: dict[str, Any] | None) -> bool:
    """Whether an answer is worth keeping: not where the machine was at its limits, or nobody knows what happened."""
    return answer is not None and not answer["fallback"] and not answer.get("passing", True)


def _inconclusive(reason: str, framework: str) -> Verification:
    return Verification(Verdict.INCONCLUSIVE, reason, framework=framework)
