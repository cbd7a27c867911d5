"""Parquet: batches of rows, so that a file of any size is read in little memory."""

from __future__ import annotations

from typing import IO

from guidebook.data.readers.contract import Problems, Reader, Rows
from guidebook.errors import InputError, first_line, require

BATCH = 4096


def read_parquet(stream: IO[bytes], problems: Problems) -> Rows:
    """Yield (row number, row) of a Parquet file.

    Raises:
        InputError: pyarrow is not installed, or the file is not Parquet.
    """
    arrow = require("pyarrow", "parquet", f"{problems.path}: reading Parquet")
    parquet = require("pyarrow.parquet", "parquet", f"{problems.path}: reading Parquet")
    number = 0
    try:
        for batch in parquet.ParquetFile(stream).iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:  # also of values Python does not have
        after = f" after row {number:,}" if number else ""
        raise InputError(
            f"{problems.path}{after}: not a whole Parquet file ({first_line(error)}). Write or copy it again."
        ) from error


PARQUET = Reader(read_parquet, unit="row", text=False)
