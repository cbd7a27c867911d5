"""Compressed files, unpacked while they are read: gzip, xz, bzip2 and Zstandard."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from guidebook.data.readers.contract import Compression
from guidebook.errors import require

PIECE = 2**16  # packed bytes unpacked at a time


def open_zstandard(path: Path) -> IO[bytes]:
    """Open a Zstandard file: with the standard library where it can, else with the package `zstandard`.

    Raises:
        InputError: neither is there.
    """
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14 and later
    except ImportError:
        package = require("zstandard", "zst", f"{path}: reading .zst files")
        new = lambda: package.ZstdDecompressor(max_window_size=2**31).decompressobj()  # noqa: E731
        return cast(IO[bytes], io.BufferedReader(_Frames(path, new, package.ZstdError)))
    return cast(IO[bytes], io.BufferedReader(_Frames(path, zstd.ZstdDecompressor, zstd.ZstdError)))


class _Frames(io.RawIOBase):
    """Zstandard frames, one after the other; a file that ends inside one is damaged, which the package does not say."""

    def __init__(self, path: Path, new: Callable[[], Any], error: type[Exception]) -> None:
        self._file = path.open("rb")
        self._new, self._error = new, error
        self._frame: Any = None
        self._packed = self._ready = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with unpacked bytes.

        Raises:
            EOFError: the packed bytes are not right, or end too early.
        """
        view = memoryview(buffer).cast("B")
        while not self._ready:
            if self._frame is not None and self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
            self._packed = self._packed or self._file.read(PIECE)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it ends too early")
                return 0
            self._frame = self._frame or self._new()
            try:
                self._ready = self._frame.decompress(self._packed)
            except self._error as error:
                raise EOFError(str(error)) from error
            self._packed = b""
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


GZIP = Compression(cast(Any, gzip.open), (EOFError, zlib.error, gzip.BadGzipFile))
XZ = Compression(cast(Any, lzma.open), (EOFError, lzma.LZMAError))
BZIP2 = Compression(cast(Any, bz2.open), (EOFError, ValueError))
ZSTANDARD = Compression(open_zstandard, (EOFError,))
