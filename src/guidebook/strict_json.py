"""JSON that every reader accepts: no NaN, nothing that was turned into text because it could not be written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def plain(value: Any, place: str = "") -> Any:
    """Return a value of plain JSON types: mappings, lists, texts, whole and finite numbers, true, false, null.

    NumPy numbers and arrays become numbers and lists, paths become texts, and numbers that JSON cannot hold (nan, inf)
    become null.

    Raises:
        TypeError: something else is inside; the message names its place.

    >>> plain({"a": (1, float("nan")), "b": Path("x")})
    {'a': [1, None], 'b': 'x'}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_name(key, place): plain(item, f"{place}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{place}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        found = value.tolist()
        if type(found) is not type(value):
            return plain(found, place)
    raise TypeError(f"{place or 'the value'} is {value!r:.100} ({type(value).__name__}), which JSON cannot hold.")


def undefined(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the text (nan, inf, -inf) of every number that `plain` turns into null.

    >>> dict(undefined({"scores": [0.5, float("nan")]}))
    {'scores[1]': 'nan'}
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from undefined(item, f"{place}.{key}".lstrip("."))
    elif type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        yield from undefined(value.tolist(), place)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from undefined(item, f"{place}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, str(value)


def dumps(value: Any, indent: int | None = None) -> str:
    """Return the JSON text of a value, as `plain` makes it.

    Raises:
        TypeError: as `plain`.
    """
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _name(key: Any, place: str) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"{place or 'the value'} has the key {key!r}, and JSON knows texts only.")
    return str(key)
