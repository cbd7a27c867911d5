"""What a reader is: bytes in, numbered rows out; wrong rows are collected, not thrown one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from guidebook.errors import InputError

SHOWN = 5

Row = Mapping[str, object]
Rows = Iterator[tuple[int, Row]]
"""Numbered rows: column -> value."""


@dataclass
class Problems:
    """Wrong rows of one place: the first five and the count.

    Attributes:
        path: The place, as it was given.
        unit: What its rows are numbered by: "line", "row" or "file".
    """

    path: Path
    unit: str = "line"
    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, number: object, found: str) -> None:
        """Note what is wrong with a line."""
        self.count += 1
        if self.count <= SHOWN:
            self.shown.append(f"{self.path} {self.unit} {number}: {found}")

    def report(self, action: str, error: type[InputError] = InputError) -> None:
        """Raise what was collected, if anything.

        Raises:
            InputError: some rows are wrong.
        """
        if self.count:
            more = f"\n{self.count:,} rows are wrong; the first {SHOWN} are shown." if self.count > SHOWN else ""
            raise error("\n".join(self.shown) + more + f" {action}")


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        rows: Yields the numbered rows of an open file, as they are read; what is wrong goes into the problems.
        unit: What the numbers count.
        text: Whether the format is text, so that bytes that are not UTF-8 have a line.
    """

    rows: Callable[[IO[bytes], Problems], Rows]
    unit: str = "line"
    text: bool = True


@dataclass(frozen=True)
class Compression:
    """One way of packing files.

    Attributes:
        open: Opens a packed file for reading what is inside.
        damaged: What it raises where the packed bytes are not right.
    """

    open: Callable[[Path], IO[bytes]]
    damaged: tuple[type[Exception], ...]


def as_text(stream: IO[bytes]) -> TextIOWrapper:
    """Return UTF-8 text, with or without a mark, line ends as they are; close it, which closes the stream."""
    return TextIOWrapper(stream, encoding="utf-8-sig", newline="")
