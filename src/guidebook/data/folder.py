"""A folder's rows: its files in the order of their names; names of folders inside are labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from guidebook.data.files import bare_suffix, file_rows, opener
from guidebook.data.readers import COMPRESSED, READERS
from guidebook.data.readers.contract import Rows
from guidebook.errors import InputError

NOT_DATA = ("readme", "license", "licence", "citation")
"""Files that are passed over, whatever their suffix."""
FILE_BITS = 40  # a row is numbered by its file, then by its line in these many bits
SHOWN = 5


class Numbers(Sequence[str]):
    """File and line of the rows of a folder, put into words when they are asked for."""

    def __init__(self, files: Sequence[tuple[str, str]], numbers: np.ndarray) -> None:
        self._files = files
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        number = int(self._numbers[row])
        name, unit = self._files[number >> FILE_BITS]
        return f"{name} {unit} {number & (1 << FILE_BITS) - 1}" if unit else name

    @property
    def whole_files(self) -> int:
        """How many of the rows are a file each."""
        whole = np.array([not unit for _, unit in self._files])
        return int(whole[self._numbers >> FILE_BITS].sum())

    def take(self, rows: np.ndarray) -> Numbers:
        """Return the words of some rows."""
        return Numbers(self._files, self._numbers[rows])


def data_files(folder: Path) -> list[tuple[Path, str | None]]:
    """Return the files of a folder with their labels, in the order of their names.

    Where the folder holds folders, at least two or nothing else, their names are the labels of what is inside, and
    what lies beside them is not read. Hidden files, readme and licence are passed over.

    Raises:
        InputError: there is no file, or one that no reader knows.
    """
    direct = _inside(folder, deep=False)
    found = {item.name: _inside(item, deep=True) for item in sorted(folder.iterdir()) if item.is_dir()}
    classes = {name: files for name, files in found.items() if name[0] != "." and any(map(_is_readable, files))}
    files: list[tuple[Path, str | None]] = [(path, None) for path in direct]
    if len(classes) > 1 or not any(map(_is_readable, direct)):
        files = [(path, name) for name, inner in classes.items() for path in inner] or files
    unread = [path for path, _ in files if not _is_readable(path)]
    if unread or not files:
        shown = ", ".join(str(path.relative_to(folder)) for path in unread[:SHOWN]) or "no files"
        more = f" and {len(unread) - SHOWN:,} more" if len(unread) > SHOWN else ""
        raise InputError(
            f"{folder}: a folder with {shown}{more}, expected files that end in {', '.join(READERS)}, plain or with "
            f"{', '.join(COMPRESSED)}. Move the others away, or name one file."
        )
    return files


def readable_files(folder: Path) -> list[Path]:
    """Return the files of a folder itself that a reader knows, without hidden files, readme and licence."""
    return [path for path in _inside(folder, deep=False) if _is_readable(path)]


def names_of(folder: Path, files: Sequence[tuple[Path, str | None]], documents: bool = False) -> list[tuple[str, str]]:
    """Return every file's name inside the folder, and what its rows are counted in: "" where it is one text."""
    return [
        (str(path.relative_to(folder)), "" if _is_one_text(path, label, documents) else opener(path)[0].unit)
        for path, label in files
    ]


def folder_rows(files: Sequence[tuple[Path, str | None]], documents: bool = False) -> Rows:
    """Yield the rows of files one after the other; a plain text file with a label, or a document, is one text."""
    for index, (path, label) in enumerate(files):
        first = index << FILE_BITS
        if _is_one_text(path, label, documents):
            text = "\n".join(str(row["text"]) for _, row in file_rows(path))
            yield first, {"text": text} if label is None else {"text": text, "label": label}
            continue
        for number, row in file_rows(path):
            yield first | number, row if label is None else {**_without_label(row), "label": label}


def _inside(folder: Path, *, deep: bool) -> list[Path]:
    files = [path for path in (folder.rglob("*") if deep else folder.iterdir()) if path.is_file()]
    hidden = {path for path in files if any(part[0] == "." for part in path.relative_to(folder).parts)}
    return sorted(path for path in files if path not in hidden and not path.name.lower().startswith(NOT_DATA))


def _is_readable(path: Path) -> bool:
    return bare_suffix(path) in READERS


def _is_one_text(path: Path, label: str | None, documents: bool) -> bool:
    return (label is not None or documents) and bare_suffix(path) == ".txt"


def _without_label(row: Any) -> dict[str, object]:
    return {name: value for name, value in row.items() if name.strip().casefold() != "label"}
