"""The two ways in which bnlint gives up, each carried by one exception and shown as one line."""

from __future__ import annotations


class UsageError(Exception):
    """The run as a whole cannot go on: a bad option, setting, rule pack or path. Exit status 2.

    The message is one line and says what is wrong, where, and what to do.
    """


class FileError(Exception):
    """One file cannot be analysed; it becomes one ``BNL900`` diagnostic and the others go on.

    ``line`` and ``column`` are 1-based and point at the place that stopped the analysis.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
