"""Text to trees: the guard, the libcst tree, and where its nodes stand.

``ast.parse`` goes first: it is ten times cheaper than libcst, its error messages are the ones users know,
and it guards libcst's native parser, which crashes the process on very deep expressions. The same ``ast``
tree then gives every libcst node its place (``positions.py``), so that no metadata provider is needed.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

import libcst as cst

from bnlint.errors import FileError
from bnlint.finding import Location
from bnlint.source.positions import Span, spans_of

#: Deepest syntax tree that is analysed. libcst's native parser dies somewhere above 5 000 levels with the
#: default stack of a main thread; threads have less. Hand-written code stays below 100.
MAX_DEPTH = 1_000


@dataclass(frozen=True)
class Source:
    """One parsed file.

    ``spans`` gives the place of every call, attribute, number and statement of ``module``, by ``id`` of the
    node; nodes inside f-strings have none.
    """

    path: str
    text: str
    module: cst.Module
    spans: dict[int, Span]

    def location(self, span: Span) -> Location:
        return Location(self.path, *span)


def check_syntax(path: str, text: str) -> ast.Module:
    """Parse with the standard library.

    Raises ``FileError`` for a syntax error and for an expression too deep for Python's own parser.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are for other linters
            tree = ast.parse(text, filename=path)
    except SyntaxError as error:
        # The column of an error after a tab or at the end of input may be 0 or missing.
        raise FileError(
            f"syntax error: {error.msg}; mend it or exclude the file", error.lineno or 1, max(error.offset or 1, 1)
        ) from None
    except (RecursionError, MemoryError):
        raise _too_deep() from None
    except ValueError as error:  # a NUL byte, a lone surrogate
        raise FileError(f"not Python source: {error}; mend it or exclude the file") from None
    return tree


def parse(path: str, text: str) -> Source:
    """Parse one file. Raises ``FileError`` where it cannot be parsed."""
    tree = check_syntax(path, text)
    if _deeper_than(tree, MAX_DEPTH):
        raise _too_deep()
    try:
        module = cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise FileError(
            f"syntax that this version of libcst does not know: {error.message}; update libcst or exclude the file",
            error.raw_line,
            error.raw_column + 1,
        ) from None
    except RecursionError:
        raise _too_deep() from None
    return Source(path, text, module, spans_of(module, tree, text))


def _too_deep() -> FileError:
    return FileError("nested too deep to analyse; split the expression or exclude the file")


def _deeper_than(tree: ast.AST, limit: int) -> bool:
    level = [tree]
    for _ in range(limit):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True
