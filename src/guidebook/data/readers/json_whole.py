"""JSON: an array of objects, read piece by piece, or one object of columns; `.json` files of JSON lines are such."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import StringIO
from itertools import chain
from typing import IO, Any

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text
from guidebook.data.readers.json_lines import rows_of_lines
from guidebook.errors import InputError

PIECE = 2**16  # characters read at a time
SPACE = " \t\r\n"
EXPECTED = 'expected an array of objects ([{"text": …}, …]) or an object of columns ({"text": […], …})'
DECODER = json.JSONDecoder()


def read_json(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of a JSON file.

    An array is never in memory as a whole, an object of columns is. Its rows are numbered from 1, for want of lines. A
    file whose first line is a whole object and not the last is read as JSON lines: many are named .json.
    """
    with as_text(stream) as text:
        yield from _rows(text, problems)


def _rows(text: IO[str], problems: Problems) -> Rows:
    head = text.read(PIECE)
    while not head.strip() and (more := text.read(PIECE)):
        head += more
    start = head.lstrip(SPACE)[:1]
    if start == "[":
        yield from _array(_Buffer(chain([head], iter(lambda: text.read(PIECE), ""))), problems)
        problems.report('Write every row as an object such as {"text": "…", "label": "…"}.')
    elif start == "{":
        yield from _objects(chain(StringIO(head + text.readline(), newline=""), text), problems)
    elif start:
        line = head[: head.index(start)].count("\n") + 1
        found = head.strip()[:20]
        raise InputError(f"{problems.path} line {line}: JSON that starts with {found!r}, {EXPECTED}. Correct it.")


def _objects(lines: Iterator[str], problems: Problems) -> Rows:
    """Yield the rows of a file that starts with an object: the only one, or the first of JSON lines."""
    first: list[str] = []
    for line in lines:
        first.append(line)
        if line.strip():
            break
    if not _is_whole(first[-1]):
        yield from _columns(_parsed("".join([*first, *lines]), problems), problems)
        return
    for line in lines:
        first.append(line)
        if line.strip():
            yield from rows_of_lines(chain(first, lines), problems)
            return
    yield from _columns(json.loads("".join(first)), problems)


def _is_whole(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _parsed(text: str, problems: Problems) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{problems.path} line {line}: not JSON ({error}), {EXPECTED}. Correct the file.") from error


def _has_columns(content: Mapping[str, Any]) -> bool:
    return bool(content) and all(isinstance(column, list | dict) for column in content.values())


def _columns(content: Mapping[str, Any], problems: Problems) -> Rows:
    """Yield (row number, row) of columns: lists, or objects keyed by row as data frames write them."""
    if not _has_columns(content):
        yield 1, content
        return
    columns = {name: list(column.values()) if isinstance(column, dict) else column for name, column in content.items()}
    keys = [tuple(column) for column in content.values() if isinstance(column, dict)]
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1 or len(set(keys)) > 1:
        shown = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
        raise InputError(f"{problems.path}: the columns hold different rows ({shown}). Give every row every column.")
    for number, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield number, dict(zip(columns, values, strict=True))


def _array(buffer: _Buffer, problems: Problems) -> Rows:
    """Yield (line, row) of an array's objects, one after the other."""
    buffer.skip("[")
    while not buffer.stands_at("]"):
        line = buffer.line
        try:
            value = buffer.value()
        except (ValueError, RecursionError) as error:
            reason = f"the element that starts here is not JSON ({error}). Correct the file."
            raise InputError(f"{problems.path} line {line}: {reason}") from error
        if isinstance(value, dict):
            yield line, value
        else:
            problems.add(line, f'a JSON {type(value).__name__}, expected an object such as {{"text": …}}.')
        if not buffer.stands_at("]"):
            if not buffer.stands_at(","):
                found = repr(buffer.ahead()) if buffer.ahead() else "the end of the file"
                reason = f'{found} where "," or "]" is expected. Complete the file.'
                raise InputError(f"{problems.path} line {buffer.line}: {reason}")
            buffer.skip(",")
    buffer.skip("]")
    if buffer.ahead():
        reason = f"{buffer.ahead()!r} after the array, {EXPECTED}. Remove it."
        raise InputError(f"{problems.path} line {buffer.line}: {reason}")


class _Buffer:
    """A window on a text: the values that stand one after the other, and the line of the next."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._place = 0
        self._passed = 1  # line of the window's first character

    @property
    def line(self) -> int:
        """Line of the next character that is not white space, from 1."""
        self.ahead()
        return self._passed + self._text.count("\n", 0, self._place)

    def ahead(self) -> str:
        """Return a few of the next characters, white space passed over; "" at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in SPACE:
                self._place += 1
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 10]

    def stands_at(self, character: str) -> bool:
        """Return whether this character comes next."""
        return self.ahead().startswith(character)

    def skip(self, character: str) -> None:
        """Pass over a character that comes next."""
        if self.stands_at(character):
            self._place += 1

    def value(self) -> Any:
        """Return the next value and pass over it.

        Raises:
            ValueError: what stands there is not JSON, however much more is read.
        """
        self.ahead()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._place)
            except ValueError:
                if not self._more(len(self._text) - self._place):
                    raise
                continue
            if end == len(self._text) and self._more():  # a number may go on
                continue
            self._place = end
            return value

    def _more(self, least: int = 0) -> bool:
        """Read another piece, at least as long as given, drop what lies behind; False at the end of the text."""
        pieces: list[str] = []
        length = 0
        while length < max(PIECE, least) and (piece := next(self._pieces, "")):
            pieces.append(piece)
            length += len(piece)
        self._passed += self._text.count("\n", 0, self._place)
        self._text = "".join([self._text[self._place :], *pieces])
        self._place = 0
        return bool(pieces)


JSON_WHOLE = Reader(read_json)
