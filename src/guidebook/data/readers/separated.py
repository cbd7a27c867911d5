"""CSV and TSV: a header line, then one row after the other."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text
from guidebook.errors import InputError

LARGEST_FIELD = 2**31 - 1
SEPARATORS = ",;\t"
OTHERS = "|^\x01\x1f"
"""Separators of other programs, which are named where a header has them and none of ours."""
SPREADSHEET = re.compile(r'"?sep=(\t|[^\w\s"])"?[,;\t]*', re.IGNORECASE)
"""A first line by which spreadsheets say what separates the cells."""


def read_csv(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of separated text with a header; line breaks inside quotes are part of the cell.

    Commas separate the cells, or what `separator` finds.
    """
    limit = csv.field_size_limit(LARGEST_FIELD)
    try:
        with as_text(stream) as text:
            yield from _csv_rows(text, problems)
    finally:
        csv.field_size_limit(limit)
    problems.report("Fix the rows; put quotes around text that contains what separates the cells.")


def separator(header: str, following: str = "") -> str:
    r"""Return what separates the cells below this header: a comma, a semicolon or a tab that stands outside of quotes.

    Spreadsheets write semicolons into CSV files wherever the comma is the decimal mark. Where the header has several of
    them, it is the one that cuts the line after it into as many cells, the most of them.

    >>> separator("text,label;rating"), separator("text;label"), separator("text\tlabel"), separator("text")
    (',', ';', '\t', ',')
    >>> separator('"text";"stars, 1 to 5"'), separator("text;stars, 1 to 5", "a good pan;5")
    (';', ';')
    """
    found = [mark for mark in SEPARATORS if mark in _unquoted_part(header)]
    fitting = [mark for mark in found if _cells(header, mark) == _cells(following, mark)]
    return max(fitting, key=lambda mark: _cells(header, mark)) if fitting else next(iter(found), ",")


def _cells(line: str, mark: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=mark), []))
    except csv.Error:
        return 0


def _unquoted_part(line: str) -> str:
    return re.sub(r'"[^"]*"?', "", line)


def _csv_rows(text: IO[str], problems: Problems) -> Rows:
    skipped = 0
    line = text.readline()
    stated = SPREADSHEET.fullmatch(line.strip("\r\n"))
    if stated is not None:
        skipped, line = 1, text.readline()
    while line and not line.strip():
        skipped, line = skipped + 1, text.readline()
    following = text.readline()
    whole = line + following if line.count('"') % 2 else line  # a line break inside the header's quotes
    mark = stated[1] if stated is not None else separator(whole, following)
    reader = csv.reader(itertools.chain([line, following], text), delimiter=mark, strict=True)
    header: _Header | None = None
    start = skipped + 1
    try:
        for cells in reader:
            if header is None:
                header = _Header(cells, f"{problems.path} line {start}") if cells else None
            elif cells:
                row = header.row(cells)
                if isinstance(row, str):
                    problems.add(start, row)
                else:
                    yield start, row
            start = skipped + reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{problems.path} line {start}: the row that starts here is not CSV ({error}). Close its quotes, and write "
            'a quote inside a quoted cell twice ("").'
        ) from error


def read_tsv(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of tab-separated text with a header.

    TSV has no quotes, so one that opens a cell is part of the text; only where a program has written a cell as CSV
    does, in quotes and with every quote inside doubled, the cell is what it stands for.
    """
    header: _Header | None = None
    with as_text(stream) as text:
        for number, line in enumerate(text, 1):
            cells = line.rstrip("\r\n").split("\t")
            if cells == [""] or (number == 1 and SPREADSHEET.fullmatch(line.rstrip("\r\n"))):
                continue
            if header is None:
                header = _Header(cells, f"{problems.path} line {number}")
                continue
            row = header.row([_unquoted(cell) for cell in cells])
            if isinstance(row, str):
                problems.add(number, row)
            else:
                yield number, row
    problems.report("Fix the rows: a cell of a TSV file holds neither tabs nor line breaks. Otherwise save it as CSV.")


def _unquoted(cell: str) -> str:
    """Return what a cell stands for.

    >>> [_unquoted(cell) for cell in ('"a ""b"" c"', '"a b"', 'a "b"')]
    ['a "b" c', '"a b"', 'a "b"']
    """
    if len(cell) < 4 or not (cell[0] == cell[-1] == '"'):
        return cell
    inner = cell[1:-1]
    bare = inner.replace('""', "")
    return inner.replace('""', '"') if len(bare) < len(inner) and '"' not in bare else cell


class _Header:
    """The columns that have a name, and their places; columns without one, as spreadsheets append them, are no columns.

    Raises:
        InputError: no column has a name, two have the same, or the cells are separated by something else.
    """

    def __init__(self, cells: Sequence[str], place: str | Path) -> None:
        names = [cell.strip() for cell in cells]
        self._named = [index for index, name in enumerate(names) if name]
        self.names = [names[index] for index in self._named]
        if not self.names:
            raise InputError(f"{place}: none of the columns has a name. Write a header such as text,label.")
        for name in self.names:
            if self.names.count(name) > 1:
                raise InputError(f"{place}: two columns are named {name!r}. Rename one.")
        other = next((mark for mark in OTHERS if len(names) == 1 and names[0].strip(mark).count(mark)), None)
        if other is not None:
            raise InputError(
                f"{place}: {names[0]!r} seems to be separated by {other!r}; commas, semicolons and tabs are known. "
                "Save the file with one of these."
            )
        self._width = self._named[-1] + 1

    def row(self, cells: Sequence[str]) -> dict[str, str] | str:
        """Return column -> cell, or what is wrong with the row: too few cells, or text after the last column."""
        expected = f"expected {len(self.names)} ({', '.join(self.names)})."
        if len(cells) < self._width:
            return f"{len(cells)} cells, {expected}"
        if any(cell and not cell.isspace() for cell in cells[self._width :]):
            return f"{len(cells)} cells, {expected}"
        return {name: cells[index] for name, index in zip(self.names, self._named, strict=True)}


CSV = Reader(read_csv)
TSV = Reader(read_tsv)
