"""CoNLL: one word a line with its columns, the tag last; a blank line ends a sentence."""

from __future__ import annotations

import re
from typing import IO, NamedTuple

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text

DOCUMENT = "-DOCSTART-"
OUTSIDE = "O"
MARKED = re.compile(r"[BIMELSUW][-_].+|.+[-_][BIMELSUW]")


def read_sentences(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of the sentences of a file: "tokens", and "tags" where every word has two columns or more.

    Columns are divided by tabs, or by white space where a line has no tab. Lines that begin with "-DOCSTART-" or with
    "# " (comments, as CoNLL-U has them) are passed over; "# O" is the word "#" with its tag, see `_is_comment`.
    """
    lines: list[Line] = []
    known = {OUTSIDE}
    with as_text(stream) as text:
        for number, line in enumerate(text, 1):
            cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
            if line.strip() and cells[0] != DOCUMENT:
                lines.append(Line(number, cells, line.startswith("# ")))
                continue
            yield from _sentences(lines, known, problems)
            lines = []
        yield from _sentences(lines, known, problems)
    problems.report("Give every word of a sentence the same columns: the word first, its tag last.")


class Line(NamedTuple):
    """One line that is not empty: its number, its columns, and whether it begins as a comment does."""

    number: int
    cells: list[str]
    hashed: bool


def _sentences(lines: list[Line], known: set[str], problems: Problems) -> Rows:
    """Yield the sentences of lines without an empty one between them: a comment divides them, too."""
    sure = [line for line in lines if not line.hashed]
    known |= {line.cells[-1] for line in sure if len(line.cells) > 1}
    widths = {len(line.cells) for line in sure} or {2}
    words: list[Line] = []
    for line in lines:
        if line.hashed and _is_comment(line, widths, known, first=not words):
            yield from _row(words, problems)
            words = []
        else:
            words.append(line)
    yield from _row(words, problems)


def _is_comment(line: Line, widths: set[int], known: set[str], *, first: bool) -> bool:
    """Return whether a line that begins with "# " is a comment, and not the word "#".

    The word has as many columns as the words around it. A comment may have as many by chance, but stands before a
    sentence; there a word's last column must also be a tag, one of those `known` or one that looks like it.
    """
    if len(line.cells) not in widths or len(line.cells) < 2 or line.cells[0] != "#":
        return True
    return first and line.cells[-1] not in known and MARKED.fullmatch(line.cells[-1]) is None


def _row(lines: list[Line], problems: Problems) -> Rows:
    if not lines:
        return
    tagged = len(lines[0].cells) > 1
    for line in lines:
        if len(line.cells[0].split()) != 1:
            problems.add(line.number, f"{line.cells[0]!r} is not a word.")
        if (len(line.cells) > 1) != tagged:
            found = f"{len(line.cells)} columns, but the words before it have {2 if tagged else 1}."
            problems.add(line.number, found)
    row: dict[str, object] = {"tokens": [line.cells[0] for line in lines]}
    yield lines[0].number, row | ({"tags": [line.cells[-1] for line in lines]} if tagged else {})


CONLL = Reader(read_sentences)
