"""Plain text: one text a line."""

from __future__ import annotations

from typing import IO

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text


def read_lines(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of one text a line."""
    with as_text(stream) as text:
        for number, line in enumerate(text, 1):
            yield number, {"text": line.rstrip("\r\n")}


PLAIN = Reader(read_lines)
