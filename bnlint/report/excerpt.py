"""A line of foreign text as a terminal can show it: harmless, aligned, and no longer than there is room.

Source code and file names may contain anything. Here control characters become escapes, so that no linted
file can move the reader's cursor or reorder what is read, and characters that the terminal's encoding lacks
become a look-alike or an escape.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from rich.cells import cell_len

TAB = 4

#: Stand-ins for what bnlint itself likes to print.
_ASCII = {
    "│": "|",
    "·": "-",
    "…": "...",
    "–": "-",
    "—": "-",
    "←": "<-",
    "→": "->",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
}

#: Control, format (bidirectional overrides among them), surrogates, line and paragraph separators.
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


@lru_cache(maxsize=4096)
def _shown(character: str, encoding: str) -> str:
    if character <= "\x7f":
        return character if character.isprintable() else f"\\x{ord(character):02x}"
    if unicodedata.category(character) not in _UNSAFE:
        try:
            character.encode(encoding)
            return character
        except UnicodeEncodeError:
            if character in _ASCII:
                return _ASCII[character]
    return character.encode("ascii", "backslashreplace").decode("ascii")


def clean(text: str, encoding: str) -> str:
    """``text`` without anything that a terminal of this encoding would obey or could not print."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, encoding) for character in text)


@dataclass(frozen=True)
class Excerpt:
    """A shown line in three parts, of which the middle one is the span."""

    before: str
    span: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.span + self.after

    @property
    def indent(self) -> int:
        """Terminal cells before the span."""
        return cell_len(self.before)

    @property
    def width(self) -> int:
        """Terminal cells of the span, at least the one that a mark needs."""
        return max(1, cell_len(self.span))


def excerpt(line: str, start: int, end: int, limit: int, encoding: str, dedent: bool = False) -> Excerpt:
    """``line`` with its span from ``start`` to ``end`` (0-based, the end exclusive) in ``limit`` cells.

    A line that is too long is cropped around the span, or around the beginning of a span that is too long.
    A span that reaches beyond the line is taken to the line's last visible character.
    """
    length = len(line.rstrip())
    start = max(0, min(start, length))
    end = max(start, min(end, length))
    first = min(len(line) - len(line.lstrip()), start) if dedent else 0
    # No more characters than these can be shown; looking at no others keeps a line of megabytes cheap.
    low, high = max(first, start - limit), min(length, min(end, start + limit) + limit)
    pieces = _pieces(line, low, high, encoding)
    start, end = start - low, min(end, high) - low
    more = clean("…", encoding)
    if low == first and high == length and cell_len("".join(pieces)) <= limit:
        left, right = 0, len(pieces)
    else:
        left, right = _window(pieces, start, end, limit - 2 * cell_len(more))
    end = min(end, right)
    return Excerpt(
        (more if low + left > first else "") + "".join(pieces[left:start]),
        "".join(pieces[start:end]),
        "".join(pieces[end:right]) + (more if low + right < length else ""),
    )


def _pieces(line: str, low: int, high: int, encoding: str) -> list[str]:
    """What is shown for each of the characters ``low`` to ``high``; a tab reaches to the next tab stop."""
    pieces: list[str] = []
    cells = 0
    for character in line[low:high]:
        piece = " " * (TAB - cells % TAB) if character == "\t" else clean(character, encoding)
        cells += cell_len(piece)
        pieces.append(piece)
    return pieces


def _window(pieces: list[str], start: int, end: int, room: int) -> tuple[int, int]:
    """The part of ``pieces`` in ``room`` cells: as much of the span as fits, then what stands around it."""
    sizes = [cell_len(piece) for piece in pieces]
    left = right = start
    while right < end and sizes[right] <= room:
        room -= sizes[right]
        right += 1
    if right < end:
        return left, right
    grew = True
    while grew:
        grew = False
        if right < len(sizes) and sizes[right] <= room:
            room -= sizes[right]
            right, grew = right + 1, True
        if left > 0 and sizes[left - 1] <= room:
            room -= sizes[left - 1]
            left, grew = left - 1, True
    return left, right
