"""CSV and TSV: a header line, then one row after the other."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import IO

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text
from guidebook.errors import InputError

LARGEST_FIELD = 2**31 - 1


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


def separator(header: str) -> str:
    r"""Return what separates the cells below this header: semicolons or tabs where there are no commas, else commas.

    Spreadsheets write semicolons into CSV files wherever the comma is the decimal mark.

    >>> separator("text,label;rating"), separator("text;label"), separator("text\tlabel"), separator("text")
    (',', ';', '\t', ',')
    """
    return next((mark for mark in ",;\t" if mark in header), ",")


def _csv_rows(text: IO[str], problems: Problems) -> Rows:
    head = [text.readline()]
    while head[-1] and not head[-1].strip():
        head.append(text.readline())
    reader = csv.reader(itertools.chain(head, text), delimiter=separator(head[-1]), strict=True)
    names: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            if names is None:
                names = _header(cells, problems.path) if cells else None
            elif len(cells) == len(names):
                yield start, dict(zip(names, cells, strict=True))
            elif cells:
                found = f"{len(cells)} cells, expected {len(names)} ({', '.join(names)})."
                problems.add(start, found)
            start = reader.line_num + 1
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
    names: list[str] | None = None
    with as_text(stream) as text:
        for number, line in enumerate(text, 1):
            cells = line.rstrip("\r\n").split("\t")
            if cells == [""]:
                continue
            if names is None:
                names = _header(cells, problems.path)
            elif len(cells) == len(names):
                yield number, dict(zip(names, map(_unquoted, cells), strict=True))
            else:
                problems.add(number, f"{len(cells)} cells, expected {len(names)} ({', '.join(names)}).")
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


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} line 1: two columns are named {name!r}. Rename one.")
    return names


CSV = Reader(read_csv)
TSV = Reader(read_tsv)
