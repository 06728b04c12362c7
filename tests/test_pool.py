"""Several processes: the same answer as one, and what happens to a file that kills its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bnlint.semantics
from bnlint.cli import main

CLEAN = "import torch\nfrom nets.net{number} import build\n\nmodel = build()\nmodel.eval()\nmodel(x)\n"
BAD = CLEAN.replace("model.eval()\nmodel(x)", "with torch.no_grad():\n    print(model(x))")
NET = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d({number}))\n"
OTHER = "print('nothing to do with it')\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty files, some with findings, some broken, in which each net has several users."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bnlint.pool.ENOUGH", 0)
    for folder in ("nets", "use"):
        Path(folder).mkdir()
        Path(folder, "__init__.py").touch()
    for number in range(10):
        Path(f"nets/net{number}.py").write_text(NET.format(number=number), encoding="utf-8")
        for kind, text in (("bad", BAD), ("clean", CLEAN), ("other", OTHER)):
            Path(f"use/{kind}{number}.py").write_text(text.format(number=number), encoding="utf-8")
    Path("use/broken.py").write_text("import torch\ndef (\n", encoding="utf-8")
    Path("use/none.py").write_bytes(b"\xff")
    return tmp_path


@pytest.fixture
def lint(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Any:
        main(["--format", "json", "--no-cache", *arguments])
        return json.loads(capsys.readouterr().out)

    return run


def test_the_same_answer_from_any_number_of_processes(lint: Any) -> None:
    alone = lint("--jobs", "1")
    assert {found["path"] for found in alone["findings"]} == {f"use/bad{number}.py" for number in range(10)}
    assert [problem["path"] for problem in alone["errors"]] == ["use/broken.py", "use/none.py"]
    assert lint("--jobs", "2") == alone
    assert lint("--jobs", "5") == alone
    assert lint() == alone


def test_one_job_and_little_work_need_no_other_process(lint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lint("--jobs", "3")
    monkeypatch.setattr("bnlint.workers.Pool", None)
    assert lint("--jobs", "1") == expected
    monkeypatch.setattr("bnlint.pool.ENOUGH", 1_000_000)
    assert lint("--jobs", "3") == expected


def test_results_of_workers_are_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--jobs", "2", "nets", "use/bad1.py"]) == 1
    first = capsys.readouterr().out
    monkeypatch.setattr("bnlint.pool.lint_all", None)
    assert main(["--jobs", "2", "nets", "use/bad1.py"]) == 1
    assert capsys.readouterr().out == first


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start processes afresh")
def test_a_file_that_kills_its_process_is_one_diagnostic(lint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bnlint.semantics.analyse

    def analyse(source: Any, *arguments: Any) -> Any:
        if source.path in ("use/clean3.py", "use/clean4.py"):
            os.kill(os.getpid(), signal.SIGKILL)
        if source.path == "use/clean5.py":
            os._exit(3)
        return real(source, *arguments)

    expected = lint("--jobs", "2")
    monkeypatch.setattr("bnlint.semantics.analyse", analyse)
    for jobs in ("2", "3"):
        found = lint("--jobs", jobs)
        assert found["findings"] == expected["findings"]
        lost = [problem for problem in found["errors"] if problem not in expected["errors"]]
        assert [(problem["path"], problem["code"]) for problem in lost] == [
            (f"use/clean{number}.py", "BNL900") for number in (3, 4, 5)
        ]
        assert "was ended by SIGKILL" in lost[0]["message"]
        assert "ended with status 3" in lost[2]["message"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_control_c_ends_all_processes_quietly(project: Path) -> None:
    program = (
        "import bnlint.semantics, bnlint.pool, bnlint.cli, os, sys, time\n"
        "bnlint.pool.ENOUGH = 0\n"
        "bnlint.semantics.analyse = lambda *arguments: (os.write(2, b'at it\\n'), time.sleep(60))\n"
        "sys.exit(bnlint.cli.main(['--jobs', '2']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["at it\n"] * 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, errors = process.communicate(timeout=30)  # which ends when no process holds the pipes any more
    assert (process.returncode, output, errors) == (130, "", "")


@pytest.mark.parametrize("jobs", ["0", "-1", "many", ""])
def test_a_wrong_number_of_jobs(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--jobs={jobs}"]) == 2
    assert capsys.readouterr().err == f"bnlint: error: --jobs: must be a whole number from 1 upward, not {jobs!r}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start processes afresh")
def test_workers_end_when_their_parent_is_killed(project: Path) -> None:
    program = (
        "import bnlint.semantics, bnlint.pool, bnlint.cli, os, time\n"
        "bnlint.pool.ENOUGH = 0\n"
        "bnlint.semantics.analyse = lambda *arguments: (os.write(1, f'{os.getpid()}\\n'.encode()), time.sleep(0.5))\n"
        "bnlint.cli.main(['--jobs', '3'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(3)}
    assert process.pid not in workers
    process.kill()
    process.communicate(timeout=30)  # which ends when the last of them has closed the pipe
