"""Tags of words: the labels of a row are one tag per word, as in IOB2 ("B-person I-person O"), or none at all."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from guidebook.data.in_memory import is_missing
from guidebook.data.schemes import OUTSIDE, Scheme, scheme_of, translated
from guidebook.errors import InputError, nearest

UNTAGGED = -2
"""Id of a word whose row has no tags; -1 is a word with a tag that the source does not have."""
SHOWN = 5
Tag = str | int
"""A tag, or its number where a data set counts tags."""


def words_of(value: object) -> tuple[str, ...]:
    """Return the words (or tags) of a row: a list of them, or a text cut at white space.

    Raises:
        InputError: something else, or a word that is empty or holds white space.

    >>> words_of("the  kettle boils"), words_of(["O", "B-tool", "O"])
    (('the', 'kettle', 'boils'), ('O', 'B-tool', 'O'))
    """
    if isinstance(value, str):
        return tuple(value.split())
    if hasattr(value, "tolist"):  # an array, as data frames hold lists
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise InputError(f"{value!r} is not a list of words or a text.")
    for word in value:
        if not isinstance(word, str) or len(word.split()) != 1:
            raise InputError(f"{word!r} is not a word: expected text without white space.")
    return tuple(value)


def tags_of(value: object) -> tuple[Tag, ...]:
    """Return the tags of a row as text in Unicode's NFC, or as numbers; none where the row is missing or empty.

    Raises:
        InputError: something else than a list of tags, a list of their numbers, or a text cut at white space.

    >>> tags_of("O B-tool"), tags_of([0, 3]), tags_of(None), tags_of(float("nan"))
    (('O', 'B-tool'), (0, 3), (), ())
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if is_missing(value):
        return ()
    if isinstance(value, list | tuple) and value and all(map(_is_number, value)):
        return tuple(int(number) for number in value)
    try:
        return tuple(unicodedata.normalize("NFC", tag) for tag in words_of(value))
    except InputError as error:
        raise InputError(f"{error} A tag is a text without white space, or a number.") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_lengths(texts: Sequence[str], raw: Sequence[object], place: str, lines: Sequence[object]) -> None:
    """Refuse rows whose tags are not one per word; rows without tags pass. Only the form of tags is looked at.

    Args:
        texts: Words of each row, divided by single spaces.
        raw: Tags of each row, as read.
        place: What stands before the line in a message.
        lines: Line of each row.

    Raises:
        InputError: the first five rows that do not fit, and how many there are.
    """
    problems = []
    for text, row, line in zip(texts, raw, lines, strict=True):
        words = text.count(" ") + 1
        try:
            found = len(tags_of(row))
        except InputError as error:
            problems.append(f"{place} {line}: {error}")
            continue
        if found not in (0, words):
            problems.append(f"{place} {line}: {found} tags for {words} words, expected one per word.")
    if problems:
        more = f"\n{len(problems):,} rows are wrong; the first {SHOWN} are shown." if len(problems) > SHOWN else ""
        raise InputError("\n".join(problems[:SHOWN]) + f"{more} Give every word of a row its tag, or the row no tags.")


def per_word(encoded: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Return ids (N,) of rows of words with one id for every word: `UNTAGGED` for those of rows without tags.

    Raises:
        InputError: a row has tags, and not one per word.
    """
    rows = []
    for number, (ids, text) in enumerate(zip(encoded, texts, strict=True), 1):
        words = text.count(" ") + 1
        if len(ids) not in (0, words):
            raise InputError(f"row {number}: {len(ids)} tags for {words} words, expected one per word.")
        rows.append(ids or (UNTAGGED,) * words)
    return ragged(rows)


def flat(labels: np.ndarray) -> np.ndarray:
    """Return class ids one after the other: of rows (N,), or of the words of rows (an object array of tuples).

    >>> flat(np.array([1, 0])).tolist()
    [1, 0]
    """
    if labels.dtype != object:
        return labels
    return np.array([tag for row in labels for tag in row], dtype=np.int64)


def ragged(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return an object array (N,) of tuples, whatever their lengths."""
    found = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        found[index] = tuple(row)
    return found


@dataclass(frozen=True)
class TagSet:
    """The tags of a task in their order: "O" first, then by name; a class id is a position in `names`."""

    names: tuple[str, ...]
    numbered: bool = False
    """Whether a number stands for the tag at its position: where the source holds numbers."""
    iob1: bool | None = None
    """Whether entities begin with "I", as in IOB1; None: not known."""

    @property
    def scheme(self) -> Scheme:
        """How the tags spell entities."""
        found = scheme_of(self.names)
        return found if found.iob1 else replace(found, iob1=self.iob1)

    @classmethod
    def from_raw(
        cls,
        raw: Sequence[object],
        declared: Sequence[object] | None,
        place: str,
        *,
        lines: Sequence[int] | None = None,
        unit: str = "line",
    ) -> TagSet:
        """Return the tags found in the rows of a source, or the declared ones if they cover those found.

        Raises:
            InputError: fewer than two tags, or a tag that was not declared; with place and line. Numbers without names.
        """
        rows = [tags_of(row) for row in raw]
        counts = Counter(tag for row in rows for tag in row)
        numbered = any(isinstance(tag, int) for tag in counts)
        if declared is None and numbered:
            highest = max(tag for tag in counts if isinstance(tag, int))
            raise InputError(
                f"{place}: the tags are numbers, 0 to {highest}. Give their names in order: "
                "task.labels: [O, B-PER, I-PER, …]."
            )
        if len(counts) < 2:
            raise InputError(
                f"{place}: only the tags {sorted(map(str, counts))} in {len(raw):,} rows, expected at least two. "
                "Name the column of the tags under columns.label."
            )
        if declared is None:
            written = [tuple(map(str, row)) for row in rows]
            names = tuple(sorted(map(str, counts), key=lambda tag: (tag != OUTSIDE, tag[2:], tag)))
            return cls(names, numbered, scheme_of(names, written).iob1)
        names = tuple(unicodedata.normalize("NFC", str(tag)) for tag in declared)
        made = cls(names, numbered)
        written = made.written(raw)
        numbers = lines if lines is not None else range(1, len(raw) + 1)
        _refuse_unknown(written, names, place, unit if lines is not None else "row", numbers)
        return replace(made, iob1=scheme_of(names, written).iob1)

    def written(self, raw: Sequence[object]) -> list[tuple[str, ...]]:
        """Return the tags (N,) of rows in the scheme of `names`, whatever scheme they are in; () without tags.

        Tags that are numbers are named where the source's are numbers too. Tags that do not spell entities, here or
        there, stay as they are.
        """
        names = dict(enumerate(self.names)) if self.numbered else {}
        rows = [tuple(tag if isinstance(tag, str) else names.get(tag, str(tag)) for tag in tags_of(row)) for row in raw]
        there, here = scheme_of({tag for row in rows for tag in row}, rows), self.scheme
        if here.iob1 is None:
            here = replace(here, iob1=there.iob1)
        styles = [(found.form, found.sign, found.letters, found.iob1) for found in (there, here)]
        if not there.form or not here.form or styles[0] == styles[1]:
            return rows
        return [translated(row, there, here) for row in rows]

    def encode(self, raw: Sequence[object]) -> np.ndarray:
        """Return an object array (N,) of tuples of class ids; -1 for an unknown tag, an empty tuple without tags."""
        ids = {name: index for index, name in enumerate(self.names)}
        return ragged([tuple(ids.get(tag, -1) for tag in row) for row in self.written(raw)])

    def unknown(self, raw: Sequence[object]) -> dict[str, int]:
        """Return how many words carry each tag that is not one of `names`, most frequent first."""
        known = set(self.names)
        counts = Counter(tag for row in self.written(raw) for tag in row if tag not in known)
        return dict(counts.most_common())


def _refuse_unknown(
    rows: Sequence[tuple[str, ...]], names: tuple[str, ...], place: str, unit: str, numbers: Sequence[int]
) -> None:
    known = set(names)
    wrong = [(number, tag) for number, row in zip(numbers, rows, strict=True) for tag in row if tag not in known]
    if wrong:
        shown = "\n".join(
            f"{place} {unit} {number}: tag {tag!r} is not one of {list(names)}.{nearest(tag, names)}"
            for number, tag in wrong[:SHOWN]
        )
        raise InputError(f"{shown}\n{len(wrong):,} such tags. Fix the rows, or list the tags under task.labels.")
