"""From bytes to text, the way Python itself reads a source file, and from text to lines."""

from __future__ import annotations

import io
import re
from codecs import BOM_UTF8

from bnlint.errors import FileError

_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def decode(data: bytes) -> str:
    """The text of a source file, honouring a byte-order mark and a PEP 263 coding cookie.

    Line ends are kept as they are. Raises ``FileError`` at the first byte that is no text.
    """
    nul = data.find(0)
    if nul >= 0:
        raise FileError("the file contains a NUL byte; is it really Python source?", *_place(data[:nul]))
    mark, data = (BOM_UTF8, data.removeprefix(BOM_UTF8)) if data.startswith(BOM_UTF8) else (b"", data)
    try:
        # Python reads a coding comment even where its line is not UTF-8; tokenize does not, so it gets ASCII.
        head = b"\n".join(data.split(b"\n", 2)[:2])
        encoding = _declared(mark + _NOT_ASCII.sub(b"?", head)) if b"coding" in head else "utf-8"
    except SyntaxError as error:
        raise FileError(f"{_first_line(error)}; mend the coding comment") from error
    try:
        return data.decode("utf-8" if encoding == "utf-8-sig" else encoding)
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise FileError(
            f"byte 0x{byte:02x} is not {encoding.removesuffix('-sig')}; "
            "save the file as UTF-8 or declare its encoding in a coding comment",
            *_place(data[: error.start]),
        ) from error
    except (LookupError, UnicodeError) as error:  # a codec that is no text encoding, such as "hex"
        raise FileError(f"encoding {encoding!r} cannot be used: {_first_line(error)}") from error


def _declared(head: bytes) -> str:
    """The encoding that the first two lines of a file name."""
    import tokenize  # takes a while, and few files name one

    return tokenize.detect_encoding(io.BytesIO(head).readline)[0]


def split_lines(text: str) -> list[str]:
    """The lines of ``text`` without their ends, split where Python ends a line and nowhere else: ``str.splitlines``
    knows eight more ends and would shift line numbers."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _place(before: bytes) -> tuple[int, int]:
    """1-based line and column of the byte after ``before``; undecodable bytes count as one character."""
    lines = split_lines(before.removeprefix(BOM_UTF8).decode("utf-8", "replace"))
    return len(lines), len(lines[-1]) + 1


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
