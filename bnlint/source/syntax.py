"""The standard library's parser: the guard before everything else, and what of a file's text counts.

Apart from ``parse``, whose classes take longer to import than one file takes to parse.
"""

from __future__ import annotations

import ast
import gc
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from bnlint.errors import FileError
from bnlint.source.decode import decode, split_lines
from bnlint.source.dependencies import digest

#: Characters of an imported file: larger ones are data or generated, and cost more than they tell.
LARGEST = 1_000_000
_NOQA = re.compile(r"noqa", re.IGNORECASE)


def check_syntax(path: str, text: str) -> ast.Module:
    """Parse with the standard library.

    Raises ``FileError`` for a syntax error and for an expression too deep for Python's own parser.
    """
    try:
        with warnings.catch_warnings(), no_collection():
            warnings.simplefilter("ignore")  # invalid escapes and the like are for other linters
            return ast.parse(text, filename=path)
    except SyntaxError as error:
        # The column of an error after a tab or at the end of input may be 0 or missing.
        raise FileError(
            f"syntax error: {error.msg}; mend it or exclude the file", error.lineno or 1, max(error.offset or 1, 1)
        ) from None
    except (RecursionError, MemoryError):
        raise too_deep() from None
    except ValueError as error:  # a NUL byte, a lone surrogate
        raise FileError(f"not Python source: {error}; mend it or exclude the file") from None


def too_deep() -> FileError:
    """The problem of a file that nobody could have written by hand."""
    return FileError("nested too deep to analyse; split the expression or exclude the file")


def code_of(lines: Sequence[str], tree: ast.Module) -> str:
    """The statements of a file where they stand: lines between them, and docstrings, are blank.

    The analysis sees nothing else of a file, so that nothing else can change its findings.
    """
    kept = [""] * len(lines)
    for statement in tree.body:
        if docstring(statement) is None:
            first, last = first_line(statement) - 1, statement.end_lineno or statement.lineno
            kept[first:last] = lines[first:last]
    return "\n".join(kept)


def gist(code: str) -> str:
    """The name of what ``code_of`` gives; what follows the last statement does not count."""
    return digest(code.rstrip("\n").encode("utf-8", "surrogatepass"))


def gist_of(data: bytes) -> str:
    """The gist of a file as it lies on disk; empty where that is not Python, or too much of it."""
    try:
        text = decode(data)
        return gist(code_of(split_lines(text), check_syntax("", text))) if len(text) <= LARGEST else ""
    except FileError:
        return ""


def essence(gist: str, text: str, codes: Iterable[str]) -> str:
    """The name of all that the findings in a file depend on in that file: its gist, the lines that may silence them,
    and which rules its text concerns."""
    lines = enumerate(split_lines(text)) if _NOQA.search(text) else ()
    noqa = [(number, line) for number, line in lines if _NOQA.search(line)]
    return digest(repr((gist, noqa, sorted(codes))).encode("utf-8", "surrogatepass"))


def docstring(statement: ast.stmt) -> ast.Constant | None:
    """The constant that is all of a statement, if it is nothing else."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value if isinstance(value, ast.Constant) else None


def first_line(statement: ast.stmt) -> int:
    """The line of a statement, its decorators included."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


#: Objects more than at the last collection.
_WORTH_COLLECTING = 100_000


@contextmanager
def no_collection(*, then_collect: bool = False) -> Iterator[None]:
    """A tree is many objects and no garbage: looking for some among them takes a fifth of the time.

    An analysis leaves garbage behind, but nearly all at its end, when it is found in one go (``then_collect``).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if then_collect and gc.get_count()[0] > _WORTH_COLLECTING:
                gc.collect(0)  # what is older has been looked at before
            gc.enable()
