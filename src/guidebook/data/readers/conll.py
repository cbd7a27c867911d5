"""CoNLL: one word a line with its columns, the tag last; a blank line ends a sentence."""

from __future__ import annotations

from typing import IO

from guidebook.data.readers.contract import Problems, Reader, Rows, as_text

DOCUMENT = "-DOCSTART-"


def read_sentences(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (line, row) of the sentences of a file: "tokens", and "tags" where every word has two columns or more.

    Columns are divided by tabs, or by white space where a line has no tab. Lines that begin with "-DOCSTART-" or with
    "# " (comments, as CoNLL-U has them) are passed over.
    """
    words: list[str] = []
    tags: list[str] = []
    start = 1
    with as_text(stream) as text:
        for number, line in enumerate(text, 1):
            cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
            if not line.strip() or cells[0] == DOCUMENT or line.startswith("# "):
                if words:
                    yield start, _row(words, tags)
                words, tags = [], []
                continue
            if not words:
                start = number
            if len(cells[0].split()) != 1:
                problems.add(number, f"{cells[0]!r} is not a word.")
            if words and (len(cells) > 1) != bool(tags):
                problems.add(number, f"{len(cells)} columns, but the words before it have {2 if tags else 1}.")
            words.append(cells[0])
            if len(cells) > 1:
                tags.append(cells[-1])
        if words:
            yield start, _row(words, tags)
    problems.report("Give every word of a sentence the same columns: the word first, its tag last.")


def _row(words: list[str], tags: list[str]) -> dict[str, object]:
    return {"tokens": words, "tags": tags} if tags else {"tokens": words}


CONLL = Reader(read_sentences)
