"""A place that holds rows: a file, a folder of files, or a data set of the Hub; opened as one run of numbered rows."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.data.files import bare_suffix, file_rows, opener
from guidebook.data.folder import Numbers, data_files, folder_rows, names_of
from guidebook.data.hub import HUB, hub_name, hub_rows
from guidebook.data.readers import COMPRESSED, READERS
from guidebook.data.readers.contract import Rows
from guidebook.errors import InputError

MANY = 1_000_000
"""From so many rows on, numbers stay in an array, which takes a quarter of a list's memory."""


@dataclass(frozen=True)
class Place:
    """An open place.

    Attributes:
        rows: The numbered rows, once.
        unit: What the numbers count: "line", "row", or "file" in a folder.
        files: Of a folder: the files' names and what their rows are counted in.
    """

    rows: Rows
    unit: str
    files: list[tuple[str, str]] = field(default_factory=list)

    def numbers(self, numbers: array[int], rows: np.ndarray) -> Sequence[Any]:
        """Return what messages call some rows: their numbers, in a folder with the file before."""
        found = np.frombuffer(numbers, dtype=np.int64)[rows]
        if self.files:
            return Numbers(self.files, found)
        return found.tolist() if len(found) < MANY else array("q", found.tobytes())


def open_place(path: Path, *, documents: bool = False) -> Place:
    """Return the rows of a place; with `documents`, every plain text file of a folder is one row.

    Raises:
        InputError: nothing is there, or nothing that can be read; the rest while the rows are read.
    """
    if str(path).startswith(HUB):
        return Place(hub_rows(str(path)), "row")
    if os.path.isdir(path):
        try:
            files = data_files(path)
        except OSError as error:
            raise InputError(f"{path}: the folder cannot be read ({error.strerror or error}).") from error
        return Place(folder_rows(files, documents), "file", names_of(path, files, documents))
    reader, _ = opener(path)
    return Place(file_rows(path), reader.unit)


def stem(path: Path) -> str:
    """Return a place's name: a file's without its suffixes, a data set's without its owner.

    >>> stem(Path("data/books.csv.gz")), stem(Path("hf:owner/reviews/en:train"))
    ('books', 'reviews')
    """
    if str(path).startswith(HUB):
        return hub_name(str(path))
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return bare.stem if bare_suffix(path) in READERS else bare.name
