"""Label values made comparable across files: "1", 1, 1.0 and True are one label, NaN is none."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from guidebook.data.in_memory import BROKEN, is_broken, is_missing
from guidebook.errors import InputError, nearest

WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.0)?")  # a zero-padded code such as "007" is a word, not a number
NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?")
WORDS = {"true": "1", "false": "0"}
MINUS_ONE, NAN = "-1", "nan"
SHOWN = 5


def normalise(value: object) -> str | None:
    """Return the label that a raw value stands for, or None where it is missing (None, NaN, empty text).

    Text is kept as it is spelled, in Unicode's NFC: only whole numbers have one spelling, so that "1.0" is 1, but the
    section "1.10" is neither 1.1 nor "1.1".

    Raises:
        InputError: the value is neither text nor number.

    >>> [normalise(value) for value in ("1", 1, 1.0, True, " 1 ", "2.50", "good ", "", "-1", float("nan"), None)]
    ['1', '1', '1', '1', '1', '2.50', 'good', None, '-1', None, None]
    """
    if isinstance(value, np.generic):
        value = float(str(value)) if isinstance(value, np.floating) else value.item()  # float32's 1.1 is 1.1
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value.strip())
        if is_broken(text):
            raise InputError(f"label {text!r} {BROKEN}")
        return str(int(text.removesuffix(".0"))) if WHOLE.fullmatch(text) else text or None
    if is_missing(value):
        return None
    if isinstance(value, int | float):
        return _number(value)
    raise InputError(f"label {value!r} is a {type(value).__name__}, expected text or a number. Give one label per row.")


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def normalise_column(raw: Sequence[object], names: Collection[str] = ()) -> list[str | None]:
    """Return the labels of a column; true and false become 1 and 0 if the column holds nothing else.

    A fraction that is a number, not text, takes the spelling that the column's texts or the known `names` have of it,
    where that is one: 2.5 is "2.50" beside "2.50".
    """
    known: dict[object, str | None] = {}  # 1, 1.0 and True are one key, and one label
    for value in raw:
        if not isinstance(value, Hashable):
            normalise(value)
        elif value not in known:
            known[value] = normalise(value)
    found = {label.casefold() for label in known.values() if label is not None}
    if found & WORDS.keys() and found <= {*WORDS, *WORDS.values()}:
        known = {value: label and WORDS.get(label.casefold(), label) for value, label in known.items()}
    texts = {*names, *(label for value, label in known.items() if label and isinstance(value, str))}
    spelled = spellings([text for text in texts if "." in text])
    for value, label in known.items():
        if isinstance(value, float | np.floating) and label is not None and label not in texts:
            same = spelled.get(float(label), [])
            known[value] = same[0] if len(same) == 1 else label
    return [known[value] for value in raw]


def spellings(labels: Collection[str]) -> dict[float, list[str]]:
    """Return the labels that are numbers by their value, each value's in alphabetical order.

    >>> spellings({"1.1", "1.10", "2", "good"}) == {1.1: ["1.1", "1.10"], 2.0: ["2"]}
    True
    """
    found: dict[float, list[str]] = defaultdict(list)
    for label in sorted(labels):
        if NUMBER.fullmatch(label):
            found[float(label)].append(label)
    return dict(found)


def read_as_none(labels: Collection[str], names: Collection[str] | None) -> set[str]:
    """Return those of a column's labels that stand for "no label" though they are written out.

    Args:
        labels: All labels of the column.
        names: The classes, if they are declared; a declared name is always a class.

    -1 is one where the classes are numbered 0, 1, … as data sets number them that write -1 for a missing label; "nan"
    is one because that is how a missing value is written by accident.

    >>> read_as_none(["-1", "0", "1"], None), read_as_none(["-1", "1"], None), read_as_none(["-1", "0"], ["-1", "0"])
    ({'-1'}, set(), set())
    """
    found = {label for label in labels if label.casefold() == NAN and label not in (names or ())}
    classes = set(names) if names is not None else set(labels) - found - {MINUS_ONE}
    if MINUS_ONE in labels and MINUS_ONE not in classes and len(classes) > 1:
        found |= {MINUS_ONE} if classes == {str(number) for number in range(len(classes))} else set()
    return found


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task in their order; a class id is a position in `names`."""

    names: tuple[str, ...]

    @classmethod
    def from_raw(
        cls,
        raw: Sequence[object],
        declared: Sequence[object] | None,
        place: str,
        *,
        lines: Sequence[int] | None = None,
        unit: str = "line",
    ) -> LabelSet:
        """Return the classes of raw labels: as declared, else in numeric or alphabetical order.

        Args:
            raw: Label values as read; missing ones (None, NaN, "") are passed over, and those `read_as_none`.
            declared: Names of the classes in the wanted order, or None.
            place: Where the labels come from, for messages.
            lines: Line of each label, for messages; None: its row.
            unit: What `lines` counts.

        Raises:
            InputError: fewer than two classes, a label that was not declared, names declared twice, or a column
                that does not hold classes.

        >>> LabelSet.from_raw(["10", 2, 2.0, None], None, "books.csv").names
        ('2', '10')
        """
        names = None if declared is None else _declared(declared)
        column = normalise_column(raw, names or ())
        counts = Counter(label for label in column if label is not None)
        for label in read_as_none(counts, names):
            del counts[label]
        if names is not None and declared is not None:
            numbers = lines if lines is not None else range(1, len(column) + 1)
            column = [label if label in counts else None for label in column]
            _refuse_unknown(column, (names, declared), place, (unit if lines is not None else "row", numbers))
        else:
            names = tuple(sorted(counts, key=_order if all(map(_is_number, counts)) else str))
            _refuse_free_text(counts, place)
        if len(counts) < 2:
            found = f"only the label {next(iter(counts))!r}" if counts else "no labels"
            raise InputError(
                f"{place}: {found} in {len(raw):,} rows, expected at least two classes. Add rows of another class, "
                "or name another column under columns.label."
            )
        return cls(names)

    def encode(self, raw: Sequence[object]) -> np.ndarray:
        """Return class ids (N,) int64; -1 where the label is missing or not one of `names` (see `unknown`)."""
        ids = {name: index for index, name in enumerate(self.names)}
        column = normalise_column(raw, self.names)
        return np.fromiter((ids.get(label, -1) if label else -1 for label in column), dtype=np.int64, count=len(column))

    def unknown(self, raw: Sequence[object]) -> dict[str, int]:
        """Return how many rows carry each label that is not one of `names`, most frequent first."""
        known = set(self.names)
        column = normalise_column(raw, self.names)
        counts = Counter(label for label in column if label is not None and label not in known)
        return dict(counts.most_common())


def _is_number(label: str) -> bool:
    return NUMBER.fullmatch(label) is not None


def _order(label: str) -> tuple[float, str]:
    return float(label), label


def _declared(declared: Sequence[object]) -> tuple[str, ...]:
    names = tuple(label for label in normalise_column(declared) if label is not None)
    if len(names) != len(declared) or len(set(names)) != len(names) or len(names) < 2:
        # YAML reads 1.10 as the number 1.1, so two section numbers may arrive as one.
        quote = (
            " Quote names such as '1.10', which are numbers otherwise." if any("." in name for name in names) else ""
        )
        raise InputError(
            f"task.labels: {list(declared)!r} is not a list of two or more different names. Correct the list.{quote}"
        )
    return names


def _refuse_unknown(
    column: Sequence[str | None],
    declared: tuple[tuple[str, ...], Sequence[object]],
    place: str,
    numbered: tuple[str, Sequence[int]],
) -> None:
    (names, given), (unit, numbers) = declared, numbered
    known = {None, *names}
    rows = [row for row, label in enumerate(column) if label not in known]
    if not rows:
        return
    shown = "\n".join(
        f"{place} {unit} {numbers[row]}: "
        f"label {column[row]!r} is not one of {list(names)}.{nearest(str(column[row]), names)}"
        for row in rows[:SHOWN]
    )
    count = f"\n{len(rows):,} rows carry such labels; the first {SHOWN} are shown." if len(rows) > SHOWN else ""
    # YAML 1.1 reads yes and no as true and false, which become "1" and "0", and 1.10 as the number 1.1.
    quoted = (
        " YAML reads a bare yes or no as true or false: quote them." if any(isinstance(x, bool) for x in given) else ""
    )
    if len(spellings({*names, str(column[rows[0]])})) < len(spellings(names)) + _is_number(str(column[rows[0]])):
        quoted += " YAML reads 1.10 as the number 1.1: quote such names."
    raise InputError(f"{shown}{count} Fix the rows, or list the labels under task.labels.{quoted}")


def _refuse_free_text(counts: Counter[str], place: str) -> None:
    rows = sum(counts.values())
    if rows >= 10 and len(counts) > rows / 2:
        examples = ", ".join(repr(label[:30]) for label in list(counts)[:3])
        raise InputError(
            f"{place}: {len(counts):,} different labels in {rows:,} rows ({examples}, …), expected few that repeat. "
            "Name the column that holds the classes under columns.label, or list them under task.labels."
        )
