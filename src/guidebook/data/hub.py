"""Data sets of the Hugging Face Hub, streamed: `hf:owner/name`, `hf:owner/name/config:split`."""

from __future__ import annotations

import re
from typing import Any

from guidebook.data.readers.contract import Rows
from guidebook.errors import InputError, require

HUB = "hf:"
SPLIT = "train"
FORM = re.compile(r"hf:(?P<id>[\w.-]+(/[\w.-]+)?)(/(?P<config>[\w.-]+))?(:(?P<split>\w+))?")


def parse_hub(place: str) -> tuple[str, str | None, str]:
    """Return a data set's id, its configuration if one is named, and the split.

    Raises:
        InputError: it is not of the form.

    >>> parse_hub("hf:owner/reviews/en:test"), parse_hub("hf:owner/reviews")
    (('owner/reviews', 'en', 'test'), ('owner/reviews', None, 'train'))
    """
    found = FORM.fullmatch(place)
    if found is None:
        raise InputError(
            f"{place!r} does not name a data set, expected hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or either with :SPLIT, "
            "such as hf:stanfordnlp/imdb:test. Correct it."
        )
    return found["id"], found["config"], found["split"] or SPLIT


def hub_name(place: str) -> str:
    """Return a data set's name without its owner."""
    return parse_hub(place)[0].rpartition("/")[2]


def hub_rows(place: str) -> Rows:
    """Yield (row number, row) of a data set as it is downloaded; numbers of classes become their names.

    Raises:
        InputError: the package `datasets` is missing, or the data set, its configuration or its split is not there.
    """
    name, config, split = parse_hub(place)
    datasets = require("datasets", "hub", f"{place}: reading data sets of the Hub")
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        classes = _class_names(rows.features or {})
        for number, row in enumerate(rows, 1):
            yield number, {key: _named(value, classes.get(key)) for key, value in row.items()}
    except InputError:
        raise
    except Exception as error:  # the package raises whatever its file systems and parsers raise
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        raise InputError(
            f"{place}: the data set cannot be read ({type(error).__name__}: {reason}). Check its id, the configuration "
            f"({config or 'none was named'}), the split ({split}) and the connection, or download it and name a file."
        ) from error


def _class_names(features: Any) -> dict[str, list[str]]:
    """Return the names of the classes of columns that hold them: one a row, or a list of them, as tags of words are."""
    inner = {key: getattr(feature, "feature", feature) for key, feature in features.items()}
    return {key: list(names) for key, feature in inner.items() if (names := getattr(feature, "names", None))}


def _named(value: object, names: list[str] | None) -> object:
    """Return the name of a class, or of each in a list; -1 stands for none."""
    if names is not None and isinstance(value, list):
        return [_named(item, names) for item in value]
    if names is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    return names[value] if 0 <= value < len(names) else None
