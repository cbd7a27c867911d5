"""Texts in a file instead of in memory, and the columns of a table that move there once they are many."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, overload

import numpy as np

from guidebook.data.cache import scratch_folder
from guidebook.data.in_memory import is_broken

BLOCK = 8_192  # texts read at a time
SPILL = 2**27
"""Bytes of texts, as Python keeps them, from which a column moves to disk."""
OVERHEAD = 57  # bytes that Python adds to a text, and to the list that holds it
KNOWN = 4_096
"""Different short values of a column that are kept once; a column of labels has no more."""
SHORT = 64


def unnamed_file(folder: Path | None = None) -> IO[bytes]:
    """Return a file without a name: the system removes it with the last that holds it, whatever happens."""
    return tempfile.TemporaryFile(dir=folder or scratch_folder())  # type: ignore[return-value]


class _Unnamed:
    """An unnamed file that is closed, and so removed, when nothing reads it any more."""

    def __init__(self) -> None:
        self.file = unnamed_file()

    def __del__(self) -> None:
        self.file.close()


class Texts(Sequence[str]):
    """Texts that stand one after the other in a file, read when they are asked for.

    They are read, not mapped: a mapped file that is gone through counts as the process's memory.

    >>> texts = Texts.of(["one", "two", "three"])
    >>> texts[1], texts[-2:], list(texts.take(np.array([2, 0])))
    ('two', ['two', 'three'], ['three', 'one'])
    """

    def __init__(self, file: _Unnamed, starts: np.ndarray, ends: np.ndarray) -> None:
        self._file = file
        self._starts = starts
        self._ends = ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return the texts, written to an unnamed file."""
        spool = Spool()
        for text in texts:
            spool.append(text)
        return spool.texts()

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if not isinstance(row, slice):
            place = range(len(self))[row]
            return self._read(slice(place, place + 1))[0]
        if row.step in (None, 1):
            return self._read(row)
        return [self[place] for place in range(*row.indices(len(self)))]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self._read(slice(start, start + BLOCK))

    def take(self, rows: np.ndarray) -> Texts:
        """Return some rows, in the given order, of the same file."""
        return Texts(self._file, self._starts[rows], self._ends[rows])

    def _read(self, rows: slice) -> list[str]:
        """Return consecutive rows: one read where they stand close together in the file."""
        starts, ends = self._starts[rows], self._ends[rows]
        if not len(starts):
            return []
        first, last = int(starts.min()), int(ends.max())
        if last - first > 4 * int((ends - starts).sum()) + 2**16:
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            return [_decoded(self._bytes(start, end)) for start, end in pairs]
        data = self._bytes(first, last)
        pairs = zip((starts - first).tolist(), (ends - first).tolist(), strict=True)
        return [_decoded(data[start:end]) for start, end in pairs]

    def _bytes(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            part = self._part(start, end - start)
            if not part:
                raise OSError(f"a temporary file of texts ends at byte {start:,}, expected {end:,}")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _part(self, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # leaves the file's position alone, which other threads and processes may share
            return os.pread(self._file.file.fileno(), size, start)
        self._file.file.seek(start)
        return self._file.file.read(size)


class Spool:
    """Writes texts to an unnamed file, one after the other."""

    def __init__(self) -> None:
        self._file = _Unnamed()
        self._ends = array("q")
        self._written = 0

    def append(self, text: str) -> None:
        """Add one text."""
        # Half of a surrogate pair is kept, so that whoever refuses it can name its line.
        self._written += self._file.file.write(text.encode("utf8", "surrogatepass"))
        self._ends.append(self._written)

    def texts(self) -> Texts:
        """Return what was written."""
        self._file.file.flush()
        ends = np.frombuffer(self._ends, dtype=np.int64) if self._ends else np.zeros(0, np.int64)
        return Texts(self._file, np.concatenate([[0], ends[:-1]]) if len(ends) else ends, ends)


def _decoded(data: bytes) -> str:
    return data.decode("utf8", "surrogatepass")


class Column:
    """The cells of one column while a file is read: in a list, or on disk once they are many.

    A value that repeats, as labels do, is kept once, so that only columns of free text move to disk.

    Attributes:
        blank: Whether each cell is missing, empty or white space.
        strange: Row -> value of cells on disk that are neither text nor missing.
        broken: Rows whose cell is not valid Unicode.
    """

    def __init__(self, missing: int = 0) -> None:
        """Start with so many cells that are missing."""
        self.blank = bytearray(b"\x01" * missing)
        self.strange: dict[int, object] = {}
        self.broken: list[int] = []
        self._cells: list[object] = [None] * missing
        self._known: dict[str, str] = {}
        self._spool: Spool | None = None
        self._texts: Texts | None = None
        self._size = 0

    def append(self, value: object) -> None:
        """Add the cell of the next row."""
        self.blank.append(value is None or (isinstance(value, str) and (not value or value.isspace())))
        if isinstance(value, str) and is_broken(value):
            self.broken.append(len(self.blank) - 1)
        if self._spool is not None:
            self._write(value, len(self.blank) - 1)
            return
        if isinstance(value, str):
            if len(value) <= SHORT and (value in self._known or len(self._known) < KNOWN):
                value = self._known.setdefault(value, value)
            else:
                self._size += len(value) + OVERHEAD
        self._cells.append(value)
        if self._size > SPILL:
            self._spill()

    def values(self, rows: np.ndarray) -> list[object]:
        """Return some cells as they are; a missing one on disk is empty text."""
        if self._spool is None:
            return [self._cells[row] for row in rows.tolist()]
        found = zip(rows.tolist(), self._on_disk().take(rows), strict=True)
        return [self.strange.get(row, text) for row, text in found]

    def not_text(self) -> Iterator[tuple[int, object]]:
        """Yield row and value of the cells that are neither text nor missing."""
        if self._spool is not None:
            yield from self.strange.items()
            return
        for row, value in enumerate(self._cells):
            if value is not None and not isinstance(value, str):
                yield row, value

    def texts(self, rows: np.ndarray) -> Sequence[str]:
        """Return some cells, all of them texts: a list, or rows of the file."""
        if self._spool is None:
            return [self._cells[row] for row in rows.tolist()]  # type: ignore[misc]
        texts = self._on_disk()
        return texts if len(rows) == len(texts) else texts.take(rows)

    def _on_disk(self) -> Texts:
        if self._texts is None:
            assert self._spool is not None
            self._texts = self._spool.texts()
        return self._texts

    def _spill(self) -> None:
        self._spool = Spool()
        for row, value in enumerate(self._cells):
            self._write(value, row)
        self._cells, self._known = [], {}

    def _write(self, value: object, row: int) -> None:
        assert self._spool is not None
        if value is not None and not isinstance(value, str):
            self.strange[row] = value
        self._spool.append(value if isinstance(value, str) else "")


def take(texts: Sequence[str], rows: np.ndarray) -> Sequence[str]:
    """Return some rows of texts, in the given order, wherever they stand."""
    return texts.take(rows) if isinstance(texts, Texts) else [texts[row] for row in np.asarray(rows).tolist()]
