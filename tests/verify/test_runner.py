"""The child process: what it may import, how it ends, and what is left when it ends badly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import bnlint
from bnlint.errors import UsageError
from bnlint.experiment import Experiment
from bnlint.finding import Finding, Plot, Verdict, Verification
from bnlint.verify import DEVICES, runner, verify
from bnlint.verify.importing import isolated_path
from bnlint.verify.plan import plan

Ask = Callable[..., list[Verification]]
MakeFinding = Callable[..., Finding]

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")

ANSWER = {
    "layers": [{"layer": "L", "gap": 0.5, "p": 0.5, "identity_gap": 0.0}],
    "outputs": {},
    "device": "cpu",
    "fallback": "",
    "passing": False,
    "versions": {},
}


@pytest.fixture
def fake_child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run a script of the test's own in place of the child; ``ANSWER`` is there as a line to print."""

    def use(script: str) -> None:
        prelude = "import json, os, signal, sys, time\nrequest = json.load(sys.stdin)\n"
        prelude += f"def answer(i): print(json.dumps({{'index': i, **{ANSWER!r}}}), flush=True)\n"
        code = prelude + textwrap.dedent(script)
        monkeypatch.setattr(runner, "command", lambda: [sys.executable, "-I", "-c", code])
        monkeypatch.setattr(runner, "_is_installed", lambda package, path: True)

    return use


@pytest.fixture
def only_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = ("site-packages", "dist-packages")
    bare = [entry for entry in sys.path if os.path.isabs(entry) and not entry.endswith(installed)]
    monkeypatch.setattr(sys, "path", bare)


def test_identical_experiments_are_run_once(
    make_finding: MakeFinding, torch_experiments: Mapping[str, Experiment], keras_experiment: Experiment
) -> None:
    one, other = torch_experiments["seed"], torch_experiments["dropout"]
    planned = plan([make_finding(its) for its in (one, keras_experiment, other, one, None)])
    assert planned.batches == {"torch": [one, other], "keras": [keras_experiment]}
    assert planned.places[:4] == [("torch", 0), ("keras", 0), ("torch", 1), ("torch", 0)]


def test_without_an_experiment_no_child_is_started(make_finding: MakeFinding, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[str]:
        raise AssertionError("a child was started")

    monkeypatch.setattr(runner, "command", refuse)
    bare = Experiment("mode-gap", "torch", unknown="the class Net is defined elsewhere")
    verified = verify([make_finding(None), make_finding(bare), make_finding(Experiment("x", "torch"))])
    verdicts = [its.verification for its in verified if its.verification]
    assert [its.verdict for its in verdicts] == [Verdict.INCONCLUSIVE] * 3
    assert "the rule has no experiment" in verdicts[0].reason
    assert verdicts[1].reason == "the class Net is defined elsewhere"
    assert verdicts[2].reason


def test_findings_keep_their_order_and_everything_else(
    make_finding: MakeFinding,
    torch_experiment: Experiment,
    keras_experiment: Experiment,
    fake_child: Callable[[str], None],
) -> None:
    fake_child("for i in range(len(request['experiments'])): answer(i)")
    findings = [
        make_finding(e, path) for e, path in ((torch_experiment, "b.py"), (None, "c.py"), (keras_experiment, "a.py"))
    ]
    verified = verify(findings)
    assert [its.location.path for its in verified] == ["b.py", "c.py", "a.py"]
    assert [its.experiment for its in verified] == [torch_experiment, None, keras_experiment]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("answer(0); os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("answer(0); os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL, as happens where memory runs out, before"),
        (
            "answer(0); print('the last word', file=sys.stderr); sys.exit(3)",
            "status 3 before it answered; its last words: the last word",
        ),
        ('answer(0); sys.stdout.write(\'{"index": 1, "lay\'); sys.stdout.flush(); os._exit(1)', "status 1"),
    ],
    ids=["signal", "killed", "status", "half a line"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals and their names are POSIX's")
def test_a_dead_child_loses_only_what_it_had_not_answered(
    script: str,
    reason: str,
    fake_child: Callable[[str], None],
    ask: Ask,
    torch_experiments: Mapping[str, Experiment],
) -> None:
    fake_child(script)
    first, second = ask([torch_experiments["dropout"], torch_experiments["seed"]])
    assert first.verdict is Verdict.CONFIRMED
    assert second.verdict is Verdict.INCONCLUSIVE
    assert reason in second.reason


def test_the_time_limit_ends_child_and_grandchild(
    tmp_path: Path, fake_child: Callable[[str], None], ask: Ask, torch_experiments: Mapping[str, Experiment]
) -> None:
    alive = tmp_path / "alive"
    grandchild = f"import time; time.sleep(5); open({str(alive)!r}, 'w')"
    fake_child(
        f"""
        import subprocess
        subprocess.Popen([sys.executable, "-I", "-c", {grandchild!r}])
        answer(0)
        time.sleep(60)
        """
    )
    begin = time.monotonic()
    first, second = ask([torch_experiments["dropout"], torch_experiments["seed"]], time_limit=3)
    assert time.monotonic() - begin < 20
    assert first.verdict is Verdict.CONFIRMED
    assert second.verdict is Verdict.INCONCLUSIVE
    assert second.reason == "torch took longer than 3 s"
    time.sleep(max(0.0, begin + 7 - time.monotonic()))
    assert not alive.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_an_interrupt_ends_the_children(
    tmp_path: Path, fake_child: Callable[[str], None], ask: Ask, torch_experiment: Experiment
) -> None:
    started = tmp_path / "started"
    fake_child(f"open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(60)")

    def interrupt() -> None:
        while not (started.exists() and started.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), 2)

    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask([torch_experiment])
    assert time.monotonic() - begin < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_both_frameworks_run_at_the_same_time(
    tmp_path: Path,
    fake_child: Callable[[str], None],
    ask: Ask,
    torch_experiment: Experiment,
    keras_experiment: Experiment,
) -> None:
    # Each child answers only once it has seen the other one.
    fake_child(
        f"""
        here = {str(tmp_path)!r}
        open(os.path.join(here, request["framework"]), "w").close()
        while len(os.listdir(here)) < 2:
            time.sleep(0.02)
        answer(0)
        """
    )
    answered = ask([torch_experiment, keras_experiment], time_limit=20)
    assert [its.verdict for its in answered] == [Verdict.CONFIRMED] * 2


def test_a_framework_that_is_not_installed_names_the_command(
    only_standard_library: None, ask: Ask, torch_experiment: Experiment, keras_experiment: Experiment
) -> None:
    on_torch, on_keras = ask([torch_experiment, keras_experiment])
    assert on_torch.verdict is on_keras.verdict is Verdict.INCONCLUSIVE
    assert "pip install 'bnlint[torch]'" in on_torch.reason
    assert "pip install 'bnlint[tensorflow]'" in on_keras.reason


def test_a_framework_that_cannot_be_imported_says_why(
    only_standard_library: None, tmp_path: Path, ask: Ask, torch_experiments: Mapping[str, Experiment]
) -> None:
    (tmp_path / "torch.py").write_text("print('on the way')\nraise ImportError('libnothing.so: not\\nfound')\n")
    sys.path.append(str(tmp_path))
    for answer in ask([torch_experiments["seed"], torch_experiments["dropout"]]):
        assert answer.verdict is Verdict.INCONCLUSIVE
        assert answer.reason == "torch is installed but cannot be imported: ImportError: libnothing.so: not found"


def test_what_a_framework_prints_does_not_reach_the_answers(
    only_standard_library: None, tmp_path: Path, ask: Ask, torch_experiment: Experiment
) -> None:
    noise = "import os\nprint('{\"index\": 0}')\nos.write(1, b'{\"index\": 0}\\n')\nos.system('echo noise')\n"
    (tmp_path / "torch.py").write_text(noise + "raise ImportError('after the noise')\n")
    sys.path.append(str(tmp_path))
    assert ask([torch_experiment])[0].reason.endswith("ImportError: after the noise")


@needs_torch
def test_the_users_modules_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_finding: MakeFinding, torch_experiment: Experiment
) -> None:
    trap = f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'trapped').touch(); raise SystemExit('trapped')\n"
    for folder in (".", "src", "lib"):
        for name in ("torch", "random", "json", "bnlint", "sitecustomize"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}.py").write_text(trap)
    project = tmp_path / "elsewhere" / "package"
    project.mkdir(parents=True)
    (project.parent / "torch.py").write_text(trap)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["src", str(tmp_path / "lib")]))
    places = [
        "",
        ".",
        "src",
        str(tmp_path),
        str(tmp_path / "src"),
        str(tmp_path / "lib"),
        str(project.parent),
    ]
    monkeypatch.setattr(sys, "path", [*places, *sys.path])
    verified = verify([make_finding(torch_experiment, str(project / "model.py"))], device="cpu")
    assert verified[0].verification is not None
    assert verified[0].verification.verdict is Verdict.REFUTED, verified[0].verification.reason
    assert not (tmp_path / "trapped").exists()


def test_the_linted_project_is_not_on_the_childs_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere, library = tmp_path / "here", tmp_path / "elsewhere", tmp_path / "library"
    packages = here / ".venv" / "lib" / "site-packages"
    for folder in (packages, elsewhere / "package", library):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", os.path.join("..", "beside"))
    dropped = ["", "src", str(here), str(here / "src"), str(elsewhere), str(tmp_path / "beside")]
    kept = [str(packages), str(library), sysconfig.get_path("stdlib")]
    monkeypatch.setattr(sys, "path", [*dropped, *kept])
    assert isolated_path([str(elsewhere / "package" / "model.py"), "model.py"]) == kept


def test_a_folder_that_is_called_like_a_framework_is_not_one(
    only_standard_library: None, tmp_path: Path, ask: Ask, torch_experiment: Experiment
) -> None:
    (tmp_path / "torch").mkdir()
    sys.path.append(str(tmp_path))
    assert "not installed" in ask([torch_experiment])[0].reason


def test_no_framework_is_imported_in_this_process(torch_experiment: Experiment) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(bnlint.__file__).parent.parent)!r})
        import json
        from bnlint.experiment import Experiment
        from bnlint.finding import Confidence, Finding, Location, Severity
        from bnlint.verify import verify
        import bnlint.verify.runner
        experiment = Experiment.from_json(json.loads({json.dumps(torch_experiment.to_json())!r}))
        where = Location("model.py", 1, 1, 1, 2)
        verify([Finding(where, "BNL001", "n", "m", Severity.INFO, Confidence.LIKELY, experiment=experiment)])
        print(sorted({{"torch", "tensorflow", "keras", "numpy"}} & sys.modules.keys()))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_settings_that_make_no_sense() -> None:
    assert set(DEVICES) == {"auto", "cpu", "cuda", "mps"}
    with pytest.raises(UsageError, match="abacus"):
        verify([], device="abacus")
    for limit in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="time limit"):
            verify([], time_limit=limit)


class Small:
    """A backend without memory, but on the devices that have some; it raises what it is told to."""

    def __init__(self, device: str = "cuda", enough: str = "cpu", error: Exception | None = None) -> None:
        self.device = device
        self.fallback = ""
        self.enough = enough
        self.error = error or MemoryError("out of memory")
        self.versions: dict[str, str] = {}

    def measure(self, experiment: Experiment, layer: Any, device: str) -> dict[str, Any]:
        if device != self.enough:
            raise self.error
        return {"gap": 0.5, "p": 0.5}

    def outputs(self, kind: str, layer: Any, source: Any, device: str) -> dict[str, Any]:
        return {}

    def measure_together(self, kind: str, layers: Any, device: str) -> list[dict[str, Any] | None]:
        return [None] * len(layers)

    def plots(self, experiment: Experiment, layer: Any, device: str) -> list[Plot]:
        return []

    def is_out_of_memory(self, error: BaseException) -> bool:
        return "out of memory" in str(error)


@pytest.mark.parametrize(
    ("device", "error", "lasts"),
    [
        ("cpu", MemoryError("out of memory"), False),
        ("cuda", RuntimeError("out of memory"), False),
        ("cuda", RuntimeError("the driver\nis busy"), False),
        ("cpu", OSError("no space left"), False),
        ("cpu", RuntimeError("negative dimension"), True),
        ("cuda", TypeError("no such argument"), True),
    ],
)
def test_what_goes_wrong_is_one_line_and_kept_only_if_it_will_go_wrong_again(
    device: str, error: Exception, lasts: bool, torch_experiments: Mapping[str, Experiment]
) -> None:
    from bnlint.verify.child import _answer

    answer = _answer(Small(device, "", error), torch_experiments["dropout"], {})
    judged = runner._verification("torch", torch_experiments["dropout"], answer, "")
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert " ".join(str(error).split()) in judged.reason and "\n" not in judged.reason
    assert runner._lasts(answer) is lasts


def test_a_device_that_is_passed_over_is_named(torch_experiments: Mapping[str, Experiment]) -> None:
    from bnlint.verify.child import _answer

    backend = Small("cpu")
    backend.fallback = "torch 2.13.0 cannot use cuda: no driver; measured on the CPU"
    answer = _answer(backend, torch_experiments["dropout"], {})
    judged = runner._verification("torch", torch_experiments["dropout"], answer, "")
    assert judged.verdict is Verdict.CONFIRMED and judged.device == "cpu"
    assert judged.reason.endswith("(torch 2.13.0 cannot use cuda: no driver; measured on the CPU)")
    assert not runner._lasts(answer)


def test_running_out_of_memory_falls_back_to_the_cpu(torch_experiments: Mapping[str, Experiment]) -> None:
    from bnlint.verify.child import _answer

    experiment = torch_experiments["dropout"]
    answer = _answer(Small(), experiment, {})
    judged = runner._verification("torch", experiment, answer, "")
    assert judged.verdict is Verdict.CONFIRMED
    assert judged.device == "cpu"
    assert "out of memory on cuda" in judged.reason
    assert "fallback" not in judged.measurements
    assert not runner._lasts(answer)
