"""The rows of a file, a folder or a data set of the Hub: texts, pairs and raw labels, the columns by name or alias."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.data.columns import ALIASES, Columns, choose_columns, plain
from guidebook.data.in_memory import CUT, is_broken
from guidebook.data.places import open_place, stem
from guidebook.data.readers import READERS
from guidebook.data.readers.contract import SHOWN, Problems, Row
from guidebook.data.tags import tags_of, words_of
from guidebook.data.texts import Column
from guidebook.data.where import Condition, comparable
from guidebook.errors import InputError, LabelError, nearest

__all__ = ["READERS", "Columns", "Table", "choose_columns", "read_table", "stem"]

LISTED = 50


@dataclass(frozen=True)
class Table:
    """Rows of one place that have text.

    Attributes:
        texts: First or only text of each row, as written; on disk where they are many.
        text_pairs: Second texts, if the place has pairs.
        labels: Raw label values; None without a label column, or where it holds no value at all.
        lines: Where each row starts: its line from 1, its row in formats without lines, file and line in a folder.
        columns: The columns that were chosen.
        path: The place, as it was given.
        empty: Number of rows dropped for empty text.
        names: All columns of the place.
        unit: What `lines` counts: "line", "row" or "file".
    """

    texts: Sequence[str]
    text_pairs: Sequence[str] | None
    labels: list[object] | None
    lines: Sequence[Any]
    columns: Columns
    path: str
    empty: int
    names: tuple[str, ...] = ()
    unit: str = "line"


def read_table(
    path: Path,
    columns: Columns,
    where: Mapping[str, object],
    *,
    labels: bool = True,
    words: bool = False,
    documents: bool = False,
) -> Table:
    """Return the rows of a place, UTF-8 with or without a mark: a file by its suffix, a folder of such files, `hf:…`.

    Args:
        path: The place.
        columns: Names of columns; those left None are found by alias.
        where: Column -> value or list of values that a kept row has there, compared as labels are.
        labels: Whether to look for labels at all.
        words: Whether a row is words with one tag each; both may be lists, or texts cut at white space.
        documents: Whether rows are documents: every plain text file of a folder is one, and where no column is known
            to hold the text, the first one does.

    Raises:
        InputError: no such file, not UTF-8, broken rows (first five and the count), no or several candidates for a
            column, no rows left. The message names the line and what to do.
    """
    path = Path(path)
    place = open_place(path, documents=documents)
    allowed = {name: Condition.of(value) for name, value in where.items()}
    rows = _collect(place.rows, columns, allowed, documents=documents)
    if not rows.names:
        raise InputError(f"{path}: the file holds no rows, expected texts. Check that it is the right file.")
    _refuse_where(path, allowed, rows)
    chosen = choose_columns(columns, tuple(rows.names), path, labels=labels, words=words, documents=documents)
    numbers = place.numbers(rows.numbers, np.arange(len(rows.numbers)))
    if words:
        _join_words(Problems(path, place.unit), rows, chosen, numbers)
    first, pair = _column(rows, chosen.text), _column(rows, chosen.text_pair)
    assert first is not None
    blank = np.frombuffer(first.blank, dtype=np.bool_)
    if pair is not None:
        blank = blank | np.frombuffer(pair.blank, dtype=np.bool_)
    kept = np.flatnonzero(~blank)
    label = _column(rows, chosen.label)
    raw = None if label is None else [None if value == [] else value for value in label.values(kept)]
    _refuse_values(Problems(path, place.unit), rows, chosen, numbers, blank)
    if not len(kept):
        raise InputError(f"{path}: all {len(blank):,} rows have empty text. Check the column {chosen.text!r}.")
    if raw is not None and all(value is None or value in ("", ()) for value in raw):
        raw = None
    return Table(
        texts=first.texts(kept),
        text_pairs=None if pair is None else pair.texts(kept),
        labels=raw,
        lines=numbers if len(kept) == len(blank) else place.numbers(rows.numbers, kept),
        columns=chosen,
        path=str(path),
        empty=len(blank) - len(kept),
        names=tuple(rows.names),
        unit=place.unit,
    )


def _column(rows: _Rows, name: str | None) -> Column | None:
    return None if name is None else rows.cells[name]


def _join_words(problems: Problems, rows: _Rows, chosen: Columns, numbers: Sequence[Any]) -> None:
    """Put words as texts, divided by single spaces, and tags as tuples into the cells."""
    for name, join in ((chosen.text, True), (chosen.label, False)):
        if name is None:
            continue
        made = Column()
        for row, value in enumerate(rows.cells[name].values(np.arange(len(numbers)))):
            try:
                found = tags_of(value) if not join else " ".join(words_of(value)) if value is not None else None
            except InputError as error:
                problems.add(numbers[row], f"{name}: {error}")
                found = None
            if any(isinstance(part, str) and is_broken(part) for part in ([found] if join else found or ())):
                problems.add(numbers[row], f"the {name} {CUT}")
            made.append(found)
        rows.cells[name] = made
    problems.report("Give lists of words and of tags, or texts that white space divides.")


def _refuse_values(problems: Problems, rows: _Rows, chosen: Columns, numbers: Sequence[Any], blank: np.ndarray) -> None:
    """Refuse values that are not text, and nested labels, in rows that have text."""
    names = [name for name in (chosen.text, chosen.text_pair, chosen.label) if name is not None]
    for name in names:
        for row in rows.cells[name].broken:
            if not blank[row]:
                problems.add(numbers[row], f"the {name} {CUT}")
    problems.report("Write it again as valid Unicode.")
    for name in names[: len(names) - (chosen.label is not None)]:
        for row, value in rows.cells[name].not_text():
            if not blank[row]:
                problems.add(numbers[row], f"{name} holds {_kind(value)}, expected text.")
    labels = Problems(problems.path, problems.unit)
    if chosen.label is not None:
        for row, value in rows.cells[chosen.label].not_text():
            if isinstance(value, list | dict) and value != [] and not blank[row]:  # an empty list is no label
                labels.add(numbers[row], f"{chosen.label} holds {_kind(value)}, expected text or a number.")
    problems.report("Write plain values, or name another column under columns.")
    labels.report("Write plain values, or name another column under columns.", LabelError)


@dataclass
class _Rows:
    """What is kept of a file while it is read: cells only of columns that may be wanted."""

    numbers: array[int] = field(default_factory=lambda: array("q"))
    cells: dict[str, Column] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)


def _collect(
    rows: Iterator[tuple[int, Row]], columns: Columns, allowed: Mapping[str, Condition], *, documents: bool = False
) -> _Rows:
    """Return the rows that `where` keeps; with `documents`, the first column is kept whatever its name.

    A JSONL row may bring a new column at any line, so the text and label columns are chosen when all have been seen.
    """
    wanted = ALIASES | {plain(name) for name in (columns.text, columns.text_pair, columns.label) if name}
    kept = _Rows(seen={name: set() for name in allowed})
    for number, row in rows:
        if row.keys() - kept.names.keys():
            for name in row:
                if name not in kept.names and (plain(name) in wanted or (documents and not kept.names)):
                    kept.cells[name] = Column(len(kept.numbers))
                kept.names[name] = None
        if all(_matches(row, name, values, kept.seen[name]) for name, values in allowed.items()):
            kept.numbers.append(number)
            for name, column in kept.cells.items():
                column.append(row.get(name))
    return kept


def _matches(row: Row, name: str, wanted: Condition, seen: set[str]) -> bool:
    value = comparable(row.get(name))
    if len(seen) < LISTED:
        seen.add(value)
    return wanted.holds(value)


def _refuse_where(path: Path, allowed: Mapping[str, Condition], rows: _Rows) -> None:
    for name, wanted in allowed.items():
        if name not in rows.names:
            known = ", ".join(rows.names)
            raise InputError(
                f"{path}: there is no column {name!r} for `where`.{nearest(name, rows.names)} Columns: {known}."
            )
        for found in wanted.ambiguous():
            raise InputError(
                f"{path}: `where` asks for {name} {found[0]}, and the column spells that number in several ways: "
                f"{', '.join(found)}. Quote the one you mean: where: {{{name}: '{found[0]}'}}."
            )
        for value in wanted.values if not rows.numbers else ():
            there = ", ".join(sorted(rows.seen[name])[:SHOWN])
            raise InputError(
                f"{path}: no row is kept by where: {{{name}: {value}}}.{nearest(value, rows.seen[name])} "
                f"Values found there: {there}. Correct `where`."
            )


def _kind(value: object) -> str:
    names = {list: "a list", dict: "a nested object", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
