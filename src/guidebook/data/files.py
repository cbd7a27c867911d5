"""A file's rows: its suffix says which reader, and how it is unpacked."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from guidebook.data.readers import COMPRESSED, READERS
from guidebook.data.readers.contract import Compression, Problems, Reader, Rows
from guidebook.errors import InputError, nearest

SIGNATURES = {
    b"\x1f\x8b": "compressed with gzip (.gz)",
    b"\xfd7zXZ\x00": "compressed with xz (.xz)",
    b"BZh": "compressed with bzip2 (.bz2)",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard (.zst)",
    b"PK\x03\x04": "a zip archive or a spreadsheet (.zip, .xlsx)",
    b"PAR1": "a Parquet file (.parquet)",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet or document (.xls, .doc)",
    b"SQLite f": "an SQLite database",
}
"""How files begin that are no text -> what they are."""


def bare_suffix(path: Path) -> str:
    """Return the suffix that names a file's format, without that of its compression.

    >>> bare_suffix(Path("books.CSV.gz"))
    '.csv'
    """
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return bare.suffix.lower()


def file_rows(path: Path, reader: Reader | None = None) -> Rows:
    """Yield the numbered rows of a file, plain or compressed: by its suffix's reader, if none is given.

    Raises:
        InputError: not UTF-8, damaged, cannot be read, or whatever its reader refuses.
    """
    reader, compression = opener(path, reader)
    damaged: tuple[type[Exception], ...] = compression.damaged if compression else ()
    unreadable: tuple[type[Exception], ...] = (*damaged, OSError)
    problems = Problems(path, reader.unit)
    try:
        with _open(path, compression) as stream:
            yield from reader.rows(stream, problems)
    except UnicodeDecodeError as error:
        said = f"{path}: a text in it is not UTF-8. Write it again."
        if reader.text:
            try:
                said = _wrong_bytes(path, compression)
            except unreadable as worse:  # the bytes before the place of the damage are wrong already
                said = _damaged(path, worse)
        raise InputError(said) from error
    except damaged as error:
        raise InputError(_damaged(path, error)) from error
    except OSError as error:
        if compression is not None and error.errno is None:  # bzip2 raises it without a number
            raise InputError(_damaged(path, error)) from error
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _entry(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _open(path: Path, compression: Compression | None) -> IO[bytes]:
    return compression.open(path) if compression is not None else path.open("rb")


def opener(path: Path, reader: Reader | None = None) -> tuple[Reader, Compression | None]:
    """Return what reads a file, by its suffix if no reader is given, and what unpacks it.

    Raises:
        InputError: there is no such file, or nothing reads its kind.
    """
    if not os.path.isfile(path):  # also of a name that is too long, which Path.is_file raises for
        raise InputError(_missing(path))
    packed = COMPRESSED.get(path.suffix.lower())
    suffix = bare_suffix(path)
    place = READERS.get(suffix)
    if reader is None and place is None:
        raise InputError(
            f"{path}: files that end in {suffix or path.name!r} cannot be read.{nearest(suffix, READERS)} "
            f"Expected {', '.join(READERS)}, plain or with {', '.join(COMPRESSED)}. Convert the file."
        )
    return reader or _entry(str(place)), _entry(packed) if packed else None


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: the compressed file is damaged ({error}). Compress or copy it again."


def _missing(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return f"{path}: the folder {path.parent} does not exist. Correct the path."
    known = [item.name for item in path.parent.iterdir()]
    return f"{path}: no such file.{nearest(path.name, known) or ' Correct the path.'}"


def _wrong_bytes(path: Path, compression: Compression | None) -> str:
    """Say where a file stops being UTF-8; lines can be decoded one by one, no character contains a line break."""
    before = 0
    with _open(path, compression) as stream:
        start = stream.read(8)
    kind = next((kind for mark, kind in SIGNATURES.items() if start.startswith(mark)), None)
    if kind is not None:
        return f"{path}: {kind}, expected text. Give the file the name of what it is, or save it as UTF-8 text."
    with _open(path, compression) as stream:
        for number, line in enumerate(stream, 1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return f"{path}: UTF-16, expected UTF-8. Save the file as UTF-8."
            try:
                line.decode("utf8")
            except UnicodeDecodeError as error:
                where = f"line {number} (byte {before + error.start:,} of the file)"
                found = f"byte 0x{line[error.start]:02x} is not UTF-8"
                return f"{path} {where}: {found}. Save the file as UTF-8; it may be Latin-1 or Windows-1252 now."
            before += len(line)
    return f"{path}: not UTF-8. Save the file as UTF-8."
