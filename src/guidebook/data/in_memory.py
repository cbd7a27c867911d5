"""Columns given in memory: lists, arrays and columns of data frames become lists; what is no column is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from guidebook.errors import InputError

SURROGATE = re.compile("[\ud800-\udfff]")
CUT = "holds half of a surrogate pair (a cut emoji)."
BROKEN = f"{CUT} Write it again as valid Unicode."


def is_broken(text: str) -> bool:
    r"""Return whether a text is not valid Unicode, as a cut emoji in JSON is.

    >>> is_broken("caf\u00e9 \U0001f600"), is_broken("\ud83d")
    (False, True)
    """
    return not text.isascii() and SURROGATE.search(text) is not None


def refuse_broken(content: object, what: str) -> None:
    """Raise InputError where a text somewhere in lists and mappings is not valid Unicode."""
    try:
        json.dumps(content, ensure_ascii=False, default=lambda _: "", skipkeys=True).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(error.start - 20, 0) : error.start]
        raise InputError(f"{what} holds a character that is not valid Unicode after {near!r}. Correct it.") from error
    except ValueError as error:  # a list that holds itself, as YAML can say
        raise InputError(f"{what} cannot be read: {error}. Correct it.") from error


def is_missing(value: object) -> bool:
    """Return whether a value stands for none: None, NaN, or what data frames write in its place.

    >>> is_missing(None), is_missing(float("nan")), is_missing(""), is_missing(0)
    (True, True, False, False)
    """
    if value is None or isinstance(value, str):
        return value is None
    try:
        return bool(value != value)  # noqa: PLR0124
    except (TypeError, ValueError):  # pandas.NA is not equal, nor unequal, to anything
        return type(value).__name__ == "NAType"


def column_of(values: Any, name: str) -> Sequence[Any]:
    """Return one value per row: lists and other sequences as they are, anything else that is a column as a list.

    No value is looked at.

    Raises:
        InputError: one string, a table, a mapping, or something without an order.

    >>> column_of((text for text in ("a", "b")), "texts")
    ['a', 'b']
    """
    if isinstance(values, str | bytes):
        raise InputError(f"{name} is one string, expected a list of texts. Write [text]; for a file write path=.")
    if getattr(values, "ndim", 1) != 1:
        raise InputError(f"{name} has the shape {values.shape}, expected one column. Choose it: frame['text'].")
    if isinstance(values, Mapping | set | frozenset) or not hasattr(values, "__iter__"):
        raise InputError(f"{name} is a {type(values).__name__}, expected a list with one value per row. Give a list.")
    if hasattr(values, "tolist"):
        return list(values.tolist())
    return values if isinstance(values, Sequence) else list(values)


def texts_of(values: Any, name: str) -> list[str]:
    """Return texts as a list.

    Raises:
        InputError: what `column_of` refuses, a value that is missing or no string, or half of a surrogate pair.

    >>> texts_of(("a", "b"), "X")
    ['a', 'b']
    """
    texts = list(column_of(values, name))
    for row, text in enumerate(texts, 1):
        if not isinstance(text, str):
            found = "missing" if is_missing(text) else repr(text)
            raise InputError(f"{name} row {row} is {found}, expected a string. Give one text per row.")
        if is_broken(text):
            raise InputError(f"{name} row {row}: the text {BROKEN}")
    return texts
