"""Suppression must agree with flake8, or the same comment would mean two things in bnlint's two doors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bnlint.finding import Confidence, Finding, Location, Severity
from bnlint.source.decode import split_lines
from bnlint.suppress import suppressed

CODES = ("BNL002", "BNL101")

SPELLINGS = (
    "# noqa",
    "# NOQA",
    "# NoQa",
    "#noqa",
    "#  noqa",
    "# noqa because of the test",
    "# noqaBNL002",
    "# no qa",
    "# noqa: BNL002",
    "# noqa:BNL002",
    "# noqa:  BNL002",
    "# noqa : BNL101",
    "# noqa: BNL002,E501",
    "# noqa:E501,BNL002",
    "# noqa: E501, BNL002",
    "# noqa: E501 BNL002",
    "# noqa: E501 , BNL002",
    "# noqa: E501,,BNL002,",
    "# noqa: E501;BNL002",
    "# noqa: E501BNL002",
    "# noqa: E501 # noqa: BNL002",
    "# noqa: E501 - kept for BNL002",
    "# noqa: BNL0",
    "# noqa: BNL00",
    "# noqa: BNL1",
    "# noqa: B0",
    "# noqa: BNL",
    "# noqa: BNL, E501",
    "# noqa: E501, BNL",
    "# noqa: bnl002",
    "# NOQA: BNL101",
    "# noqa: BNL0021",
    "# noqa: BNL1 01",
    "# noqa:",
    "# noqa: ",
    "# noqa:\tBNL101",
    "# type: ignore # noqa: BNL101",
    "# see # noqa",
    "# noqa\u00a0: BNL101",
    "# flake8: noqa-like",  # not at the start of its line
    "# pylint: disable=all",
)

#: Where lines belong together: strings and backslashes tie them, brackets do not.
LAYOUTS = '''\
call(1,
     2)  # noqa
call(1,  # noqa: BNL101
     2)
text = """one
two
three"""  # noqa: BNL002
text = """# noqa
two"""
call("""one
two""", [
    3,
])  # noqa
total = 1 + \\
    2  # noqa: BNL101
text = "# noqa"
text = "# noqa: BNL002"
# noqa

if total:

    # a comment alone  # noqa
    pass
call("""one""", f"{total}"
     """two
three""")  # noqa: BNL1
'''

WHOLE_FILE = {
    "whole_plain": "# flake8: noqa\nx = 1\n",
    "whole_equals": "x = 1\n# FLAKE8=NoQA\n",
    "whole_indented": "if 1:\n    # flake8: noqa\n    x = 1\n",
    "whole_with_code": "# flake8: noqa: BNL101\nx = 1\n",
    "whole_with_words": "# flake8:noqa please\nx = 1\n",
    "whole_no_space": "#flake8: noqa\nx = 1\n",
    "whole_after_code": "x = 1  # flake8: noqa\ny = 2\n",
    "whole_in_string": 'x = """\n# flake8: noqa\n"""\n',
}

FILES = {
    "spellings": "".join(f"x = {number}  {comment}\n" for number, comment in enumerate(SPELLINGS)),
    "layouts": LAYOUTS,
    "crlf": "x = 1  # noqa: BNL101\r\ny = 2\r\nz = '''\r\n'''  # noqa\r\n",
    "no_last_newline": "x = 1\ny = 2  # noqa",
    "form_feed": "x = 1\n\x0cy = 2  # noqa\nz = '\x0c\u2028'  # noqa: BNL002\nw = 1\n",
    "without_comments": "x = 1\n",
    **WHOLE_FILE,
}

PLUGIN = '''
class Plugin:
    """Reports two codes on every line."""
    def __init__(self, tree, lines):
        self.lines = lines
    def run(self):
        for line in range(1, len(self.lines) + 1):
            yield line, 0, "BNL002 reported", type(self)
            yield line, 0, "BNL101 reported", type(self)
'''
CONFIG = "[flake8:local-plugins]\nextension =\n    BNL0 = reports_every_line:Plugin\npaths = .\n"


def finding(code: str, line: int) -> Finding:
    place = Location("m.py", line, 1, line, 2)
    return Finding(place, code, "name", "message", Severity.ERROR, Confidence.CERTAIN)


def survivors(text: str) -> set[tuple[int, str]]:
    lines = split_lines(text)
    count = len(lines) - (lines[-1] == "")
    return {
        (line, code) for line in range(1, count + 1) for code in CODES if not suppressed(finding(code, line), lines)
    }


@pytest.mark.parametrize(
    ("comment", "silenced"),
    [
        ("", set()),
        ("# noqa", {"BNL002", "BNL101"}),
        ("# NOQA", {"BNL002", "BNL101"}),
        ("# noqa: BNL002", {"BNL002"}),
        ("# noqa:BNL002,E501", {"BNL002"}),
        ("# noqa: E501 BNL101", {"BNL101"}),
        ("# noqa: BNL0", {"BNL002"}),
        ("# noqa: E501", set()),
        ("# noqa: BNL", {"BNL002", "BNL101"}),
        ("# noqa: bnl002", set()),
        ("#noqa", set()),
    ],
)
def test_comment_on_the_line(comment: str, silenced: set[str]) -> None:
    assert survivors(f"x = 1  {comment}\n") == {(1, code) for code in CODES if code not in silenced}


def test_other_lines_are_not_silenced() -> None:
    assert survivors("x = 1  # noqa\ny = 2\n") == {(2, "BNL002"), (2, "BNL101")}


def test_closing_bracket_does_not_reach_back_but_a_string_does() -> None:
    assert {line for line, _ in survivors("call(1,\n2)  # noqa\n")} == {1}
    assert survivors('call("""\n""")  # noqa\n') == set()


def test_source_that_cannot_be_tokenised_is_taken_line_by_line() -> None:
    assert {line for line, _ in survivors("call(\nx = 1  # noqa\n'''\n")} == {1, 3}


def test_place_outside_the_file_is_not_silenced() -> None:
    assert not suppressed(finding("BNL002", 9), ["x = 1  # noqa"])


def test_lines_may_keep_their_ends() -> None:
    assert suppressed(finding("BNL002", 1), ["x = '''\r\n", "'''  # noqa\r\n"])


def test_agrees_with_flake8(tmp_path: Path) -> None:
    pytest.importorskip("flake8")
    (tmp_path / "reports_every_line.py").write_text(PLUGIN)
    (tmp_path / "flake8.ini").write_text(CONFIG)
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_bytes(text.encode())
    run = subprocess.run(
        [
            *(sys.executable, "-m", "flake8", "--config=flake8.ini", "--select=BNL", "--jobs=1"),
            *("--format=%(path)s:%(row)d:%(code)s", *(f"{name}.py" for name in FILES)),
        ],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stderr
    theirs: dict[str, set[tuple[int, str]]] = {name: set() for name in FILES}
    for reported in run.stdout.splitlines():
        path, line, code = reported.split(":")
        theirs[Path(path).stem].add((int(line), code))
    assert {name: survivors(text) for name, text in FILES.items()} == theirs
    assert theirs["without_comments"] and not theirs["whole_plain"]  # the oracle itself works
