"""Whatever is wrong with a file is one clear line; the other files are linted, and nothing is fatal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bnlint.cli import main
from bnlint.errors import FileError
from bnlint.source.decode import decode, split_lines

BAD = "from torch import nn\n\nmodel = nn.Sequential(nn.BatchNorm2d(100))\nmodel.eval\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lint(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*paths: str) -> tuple[int, list[str], list[tuple[str, int, int, str]]]:
        """Exit status, ``path:line:column`` of the findings, and the diagnostics."""
        status = main(["--format", "json", "--no-cache", *paths])
        output = capsys.readouterr()
        assert output.err == ""
        report = json.loads(output.out)
        assert all(error["code"] == "BNL900" and "\n" not in error["message"] for error in report["errors"])
        return (
            status,
            [f"{found['path']}:{found['line']}:{found['column']}" for found in report["findings"]],
            [(error["path"], error["line"], error["column"], error["message"]) for error in report["errors"]],
        )

    return run


BROKEN = {
    "syntax error": (b"x = 1\ndef (:\n", 2, 5, "syntax error: "),
    "syntax error in a file that concerns no rule": (b"print 'x'\n", 1, 1, "syntax error: "),
    "unclosed bracket": (b"import torch\nf(\n", 2, 2, "'(' was never closed"),
    "undecodable bytes": (b"a = 1\nb = '\xe9'\n", 2, 6, "byte 0xe9 is not utf-8"),
    "undecodable after what is decodable": ("a = 'äö".encode() + b"\xff'\n", 1, 8, "byte 0xff is not utf-8"),
    "undecodable with a cookie": (b"# coding: ascii\nx = '\xff'\n", 2, 6, "byte 0xff is not ascii"),
    "unknown encoding": (b"# coding: klingon\n", 1, 1, "unknown encoding: klingon"),
    "encoding that is none": (b"# coding: hex\n", 1, 1, "encoding 'hex' cannot be used"),
    "NUL byte": (b"a = 1\nb\x00 = 2\n", 2, 2, "NUL byte"),
    "UTF-16": ("x = 1\n".encode("utf-16"), 1, 4, "NUL byte"),
    "deep expression": (b"import torch\nx = " + b"1 + " * 20_000 + b"1\n", 1, 1, "too deep"),
    "deep expression beside a finding": (
        BAD.encode() + b"x = " + b"1 + " * 20_000 + b"1\n",
        1,
        1,
        "too deep",
    ),
    "deep brackets": (b"x = " + b"(" * 5_000 + b")" * 5_000, 1, None, ""),
    "deep attributes": (b"x = a" + b".b" * 20_000, 1, 1, "too deep"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_one_line_and_the_rest_is_linted(what: str, lint: Any) -> None:
    data, line, column, message = BROKEN[what]
    Path("broken.py").write_bytes(data)
    Path("good.py").write_text(BAD, encoding="utf-8")
    status, findings, ((path, found_line, found_column, said),) = lint()
    assert status == 2
    assert findings == ["good.py:4:1"]
    assert (path, found_line) == ("broken.py", line)
    assert column in (None, found_column)
    assert message in said


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\xef\xbb\xbf",
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        b"x = 1 \x0c\n",
        "# ünïcödé\n".encode(),
    ],
)
def test_odd_but_valid_files_are_no_problem(data: bytes, lint: Any) -> None:
    Path("odd.py").write_bytes(data)
    assert lint() == (0, [], [])


@pytest.mark.parametrize(
    "data",
    [
        BAD.replace("\n", "\r\n").encode(),
        BAD.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + BAD.encode(),
        BAD.rstrip("\n").encode(),
        BAD.replace("from", "# \x0c \x1c \u2028 are no line ends\x0b\x85 for Python\rfrom")
        .encode()[2:]
        .join([b"# ", b""]),
        b"# coding: latin-1 \xe9\n" + BAD.replace("\n\n", "\n", 1).encode(),
    ],
    ids=["CRLF", "CR", "BOM", "no last line end", "other separators", "latin-1"],
)
def test_findings_stand_at_the_same_place_however_the_file_is_written(data: bytes, lint: Any) -> None:
    Path("a.py").write_bytes(data)
    status, findings, problems = lint()
    assert (status, problems) == (1, [])
    assert findings in (["a.py:4:1"], ["a.py:5:1"])
    assert decode(data).splitlines().count("model.eval") == 1
    line = int(findings[0].split(":")[1])
    assert split_lines(decode(data))[line - 1] == "model.eval"


@pytest.mark.parametrize("name", ["with space.py", "ünïcödé.py", "line\nbreak.py", "quote'\".py", "-dash.py"])
def test_odd_file_names(name: str, lint: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_text(BAD, encoding="utf-8")
    assert lint() == (1, [f"{name}:4:1"], [])
    assert main([]) == 1
    assert ":4:1: BNL001" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_file_name_that_is_no_text(project: Path, lint: Any) -> None:
    try:
        Path(os.fsdecode(b"x\xff.py")).write_text(BAD, encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes only text as names")
    status, findings, problems = lint()
    assert (status, len(findings), problems) == (1, 1, [])


def test_an_unreadable_file(lint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked.py").write_text(BAD, encoding="utf-8")
    Path("open.py").write_text(BAD, encoding="utf-8")
    if os.geteuid() == 0:  # root reads everything
        real = open

        def guarded(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).endswith("locked.py"):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *arguments, **options)

        monkeypatch.setattr("builtins.open", guarded)
    else:
        Path("locked.py").chmod(0)
    status, findings, ((path, _, _, message),) = lint()
    assert (status, findings, path) == (2, ["open.py:4:1"], "locked.py")
    assert message.startswith("cannot be read: Permission denied")


def test_a_missing_path_and_a_directory_loop(lint: Any) -> None:
    Path("a").mkdir()
    Path("a/b.py").write_text(BAD, encoding="utf-8")
    Path("a/loop").symlink_to("..", target_is_directory=True)
    status, findings, ((path, _, _, message),) = lint("missing", "a")
    assert (status, findings, path) == (2, ["a/b.py:4:1"], "missing")
    assert message.startswith("no such file or directory")


@pytest.mark.parametrize("error", [ValueError("two\nlines"), RecursionError("deep"), MemoryError(), AssertionError()])
def test_a_fault_of_our_own_is_one_line(
    error: Exception, lint: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bnlint.semantics

    real = bnlint.semantics.analyse

    def analyse(source: Any, *arguments: Any) -> Any:
        if source.path == "fatal.py":
            raise error
        return real(source, *arguments)

    monkeypatch.setattr("bnlint.semantics.analyse", analyse)
    for name in ("fatal.py", "good.py"):
        Path(name).write_text(BAD, encoding="utf-8")
    status, findings, ((path, _, _, message),) = lint()
    assert (status, findings, path) == (2, ["good.py:4:1"], "fatal.py")
    assert message.startswith(f"internal error while analysing this file ({type(error).__name__}")
    assert "test_bad_input.py" in message, "it says where the fault is"

    monkeypatch.setenv("BNLINT_DEBUG", "1")
    main(["--no-cache", "fatal.py"])
    assert "Traceback" in capsys.readouterr().err


def test_lines_end_where_python_ends_them() -> None:
    assert split_lines("a\nb\r\nc\rd\x0ce\x1cf\u2028g\x85h") == ["a", "b", "c", "d\x0ce\x1cf\u2028g\x85h"]
    assert split_lines("a\n") == ["a", ""]


def test_decoding_keeps_line_ends_and_drops_the_byte_order_mark() -> None:
    assert decode(b"\xef\xbb\xbfa\r\nb\r") == "a\r\nb\r"
    with pytest.raises(FileError) as raised:
        decode(b"\xef\xbb\xbf# coding: latin-1\n")
    assert "encoding problem" in raised.value.message
