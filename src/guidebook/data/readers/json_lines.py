"""JSON lines: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text


def read_json_lines(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of one JSON object a line; blank lines are passed over."""
    with as_text(stream) as text:
        yield from rows_of_lines(text, problems)


def rows_of_lines(lines: Iterable[str], problems: Problems) -> Rows:
    """Yield (line, row) of lines of text."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.add(number, f"not JSON ({error}).")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(number, f'a JSON {type(row).__name__}, expected an object such as {{"text": …}}.')
    problems.report("Write one JSON object per line.")


JSON_LINES = Reader(read_json_lines)
