"""Arrays that are put together piece by piece: in memory, or in an unnamed file where they are too large for that."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import numpy as np

from guidebook.data.texts import unnamed_file

LARGE = 2**27
"""Bytes from which an array stands in a file."""


def joined(parts: Iterable[np.ndarray], total: int, dtype: np.dtype[np.int32]) -> np.ndarray:
    """Return the parts, one after the other: (total,) of `dtype`, memory-mapped and read-only where it is large."""
    if total * dtype.itemsize < LARGE:
        values = np.empty(total, dtype)
        place = 0
        for part in parts:
            values[place : place + len(part)] = part
            place += len(part)
        return values
    with unnamed_file() as file:
        for part in parts:  # written, not mapped: dirty pages of a mapping count as the process's memory
            file.write(np.ascontiguousarray(part, dtype).data)
        file.flush()
        return np.memmap(file, dtype=dtype, mode="r", shape=(total,))  # the mapping keeps what the file held


def release(values: np.ndarray) -> None:
    """Let the system take back the pages of a mapped file that were read; they are read again when needed."""
    mapping = getattr(values, "_mmap", None)
    if isinstance(mapping, mmap.mmap) and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)
