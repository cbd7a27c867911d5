"""A file's rows: texts, pairs and raw labels with their line numbers, the columns found by name or alias."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

from guidebook.data.columns import ALIASES, Columns, choose_columns
from guidebook.data.labels import WORDS, normalise
from guidebook.data.tags import words_of
from guidebook.errors import InputError, nearest

__all__ = ["READERS", "Columns", "Table", "choose_columns", "read_table", "stem"]

SHOWN = 5
LISTED = 50
LARGEST_FIELD = 2**31 - 1

Row = Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """Rows of one file that have text.

    Attributes:
        texts: First or only text of each row, as written.
        text_pairs: Second texts, if the file has pairs.
        labels: Raw label values; None without a label column, or where it holds no value at all.
        lines: Line of the file at which each row starts, from 1.
        columns: The columns that were chosen.
        path: The file, as it was given.
        empty: Number of rows dropped for empty text.
        names: All columns of the file.
    """

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[object] | None
    lines: list[int]
    columns: Columns
    path: str
    empty: int
    names: tuple[str, ...] = ()


@dataclass
class Problems:
    """Wrong rows of one file: the first five and the count."""

    path: Path
    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, found: str) -> None:
        """Note what is wrong with a line."""
        self.count += 1
        if self.count <= SHOWN:
            self.shown.append(f"{self.path} line {line}: {found}")

    def report(self, action: str) -> None:
        """Raise what was collected, if anything.

        Raises:
            InputError: some rows are wrong.
        """
        if self.count:
            more = f"\n{self.count:,} rows are wrong; the first {SHOWN} are shown." if self.count > SHOWN else ""
            raise InputError("\n".join(self.shown) + more + f" {action}")


def read_csv(stream: Iterable[str], problems: Problems) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of comma-separated text with a header; line breaks inside quotes are part of the cell."""
    reader = csv.reader(stream, strict=True)
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
    problems.report("Fix the rows; put quotes around text that contains commas.")


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} line 1: two columns are named {name!r}. Rename one.")
    return names


def read_jsonl(stream: Iterable[str], problems: Problems) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of one JSON object a line; blank lines are passed over."""
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.add(number, f"not JSON ({error}).")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(number, f'a JSON {type(row).__name__}, expected an object such as {{"text": …}}.')
    problems.report("Write one JSON object per line.")


def read_txt(stream: Iterable[str], problems: Problems) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of one text a line."""
    for number, line in enumerate(stream, 1):
        yield number, {"text": line.rstrip("\r\n")}


Reader = Callable[[Iterable[str], Problems], Iterator[tuple[int, Row]]]
READERS: dict[str, Reader] = {".csv": read_csv, ".jsonl": read_jsonl, ".txt": read_txt}
COMPRESSED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open}


def read_table(
    path: Path, columns: Columns, where: Mapping[str, object], *, labels: bool = True, words: bool = False
) -> Table:
    """Return the rows of a CSV, JSONL or TXT file, plain or compressed (.gz, .xz), UTF-8 with or without a mark.

    Args:
        path: The file; its suffix decides how it is read.
        columns: Names of columns; those left None are found by alias.
        where: Column -> value or list of values that a kept row has there, compared as labels are.
        labels: Whether to look for labels at all.
        words: Whether a row is words with one tag each; both may be lists, or texts cut at white space.

    Raises:
        InputError: no such file, not UTF-8, broken rows (first five and the count), no or several candidates for a
            column, no rows left. The message names the line and what to do.
    """
    path = Path(path)
    reader, opened = _opener(path)
    problems = Problems(path)
    allowed = {name: _allowed(value) for name, value in where.items()}
    limit = csv.field_size_limit(LARGEST_FIELD)
    try:
        with opened(path) as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as stream:
            rows = _collect(reader(stream, problems), columns, allowed)
    except UnicodeDecodeError as error:
        raise InputError(_wrong_bytes(path, opened)) from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the compressed file is damaged ({error}). Compress or copy it again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    finally:
        csv.field_size_limit(limit)
    if not rows.names:
        raise InputError(f"{path}: the file holds no rows, expected texts. Check that it is the right file.")
    _refuse_where(path, allowed, rows)
    chosen = choose_columns(columns, tuple(rows.names), path, labels=labels, words=words)
    if words:
        _join_words(path, chosen, rows)
    return _table(path, chosen, rows, words=words)


def stem(path: Path) -> str:
    """Return a file's name without its suffixes.

    >>> stem(Path("data/books.csv.gz"))
    'books'
    """
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return bare.stem if bare.suffix.lower() in READERS else bare.name


def _opener(path: Path) -> tuple[Reader, Callable[[Path], IO[bytes]]]:
    if not path.is_file():
        raise InputError(_missing(path))
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    reader = READERS.get(bare.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: files that end in {bare.suffix or bare.name!r} cannot be read.{nearest(bare.suffix, READERS)} "
            f"Expected {', '.join(READERS)}, plain or with {' or '.join(COMPRESSED)}. Convert the file."
        )
    return reader, COMPRESSED.get(path.suffix.lower(), lambda path: path.open("rb"))


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path}: a folder, expected a file ({', '.join(READERS)}). Name one of its files."
    if not path.parent.is_dir():
        return f"{path}: the folder {path.parent} does not exist. Correct the path."
    known = [item.name for item in path.parent.iterdir()]
    return f"{path}: no such file.{nearest(path.name, known) or ' Correct the path.'}"


def _allowed(value: object) -> set[str]:
    values = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return {_comparable(item) for item in values}


def _comparable(value: object) -> str:
    """A value of a `where` column: as a label, true and false always as 1 and 0, nested values as nothing."""
    label = None if isinstance(value, list | dict) else normalise(value)
    return "" if label is None else WORDS.get(label.casefold(), label)


@dataclass
class _Rows:
    """What is kept of a file while it is read: cells only of columns that may be wanted."""

    lines: list[int] = field(default_factory=list)
    cells: dict[str, list[object]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)


def _collect(rows: Iterator[tuple[int, Row]], columns: Columns, allowed: Mapping[str, set[str]]) -> _Rows:
    """Return the rows that `where` keeps.

    A JSONL row may bring a new column at any line, so the text and label columns are chosen when all have been seen.
    """
    wanted = ALIASES | {name.strip().casefold() for name in (columns.text, columns.text_pair, columns.label) if name}
    kept = _Rows(seen={name: set() for name in allowed})
    for line, row in rows:
        if row.keys() - kept.names.keys():
            for name in row:
                if name not in kept.names and name.strip().casefold() in wanted:
                    kept.cells[name] = [None] * len(kept.lines)
                kept.names[name] = None
        if all(_matches(row, name, values, kept.seen[name]) for name, values in allowed.items()):
            kept.lines.append(line)
            for name, column in kept.cells.items():
                column.append(row.get(name))
    return kept


def _matches(row: Row, name: str, values: set[str], seen: set[str]) -> bool:
    value = _comparable(row.get(name))
    if len(seen) < LISTED:
        seen.add(value)
    return value in values


def _refuse_where(path: Path, allowed: Mapping[str, set[str]], rows: _Rows) -> None:
    for name, values in allowed.items():
        if name not in rows.names:
            known = ", ".join(rows.names)
            raise InputError(
                f"{path}: there is no column {name!r} for `where`.{nearest(name, rows.names)} Columns: {known}."
            )
        for value in values if not rows.lines else ():
            found = ", ".join(sorted(rows.seen[name])[:SHOWN])
            raise InputError(
                f"{path}: no row is kept by where: {{{name}: {value}}}.{nearest(value, rows.seen[name])} "
                f"Values found there: {found}. Correct `where`."
            )


def _join_words(path: Path, chosen: Columns, rows: _Rows) -> None:
    """Put words as texts, divided by single spaces, and tags as tuples into the cells."""
    problems = Problems(path)
    for name, join in ((chosen.text, True), (chosen.label, False)):
        if name is None:
            continue
        column = rows.cells[name]
        for row, value in enumerate(column):
            if value is None:
                continue
            try:
                column[row] = " ".join(words_of(value)) if join else words_of(value)
            except InputError as error:
                problems.add(rows.lines[row], f"{name}: {error}")
    problems.report("Give lists of words and of tags, or texts that white space divides.")


def _table(path: Path, chosen: Columns, rows: _Rows, *, words: bool = False) -> Table:
    """Return the rows that have text; refuse values that are not text, and nested labels."""
    lines, cells = rows.lines, rows.cells
    problems = Problems(path)
    kept = list(range(len(lines)))
    for name in (chosen.text, chosen.text_pair):
        if name is not None:
            column = cells[name]
            kept = [row for row in kept if not _is_empty(column[row])]
            for row in kept:
                if not isinstance(column[row], str):
                    problems.add(lines[row], f"{name} holds {_kind(column[row])}, expected text.")
    labels = cells[chosen.label] if chosen.label is not None else None
    for row in kept if labels is not None else ():
        if isinstance(labels[row], list | dict) and not words:  # type: ignore[index]
            problems.add(lines[row], f"{chosen.label} holds {_kind(labels[row])}, expected text or a number.")  # type: ignore[index]
    problems.report("Write plain values, or name another column under columns.")
    if not kept:
        raise InputError(f"{path}: all {len(lines):,} rows have empty text. Check the column {chosen.text!r}.")
    if labels is not None and all(value is None or value in ("", ()) for value in labels):
        labels = None
    return Table(
        texts=[cast(str, cells[cast(str, chosen.text)][row]) for row in kept],
        text_pairs=[cast(str, cells[chosen.text_pair][row]) for row in kept] if chosen.text_pair is not None else None,
        labels=[labels[row] for row in kept] if labels is not None else None,
        lines=[lines[row] for row in kept],
        columns=chosen,
        path=str(path),
        empty=len(lines) - len(kept),
        names=tuple(rows.names),
    )


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _kind(value: object) -> str:
    names = {list: "a list", dict: "a nested object", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def _wrong_bytes(path: Path, opened: Callable[[Path], IO[bytes]]) -> str:
    """Say where a file stops being UTF-8; lines can be decoded one by one, no character contains a line break."""
    before = 0
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return f"{path}: UTF-16, expected UTF-8. Save the file as UTF-8."
            try:
                line.decode("utf8")
            except UnicodeDecodeError as error:
                where = f"line {number} (byte {before + error.start:,} of the file)"
                found = f"byte 0x{line[error.start]:02x} is not UTF-8"
                return f"{path} {where}: {found}. Save the file as UTF-8; it may be Latin-1 or Windows-1252 now."
            before += len(line)
    return f"{path}: not UTF-8. Save the file as UTF-8."
