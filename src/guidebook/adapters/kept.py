"""Folders of the cache that are made once: by one process, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from guidebook.data.cache import cache_root
from guidebook.errors import InputError

COMPLETE = "COMPLETE"
"""File of a finished folder, written after everything else is on the disk."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FOLDER = "bases"


def kept(key: str) -> Path | None:
    """Return the finished folder of a key, or None."""
    folder = cache_root() / FOLDER / key
    return folder if (folder / COMPLETE).is_file() else None


def keep(key: str, make: Callable[[Path], None]) -> Path:
    """Return the finished folder of a key; where there is none, `make` fills it.

    Processes that ask for the same key at once wait for the one that makes it. The folder appears by rename after all
    of it is on the disk, so whatever ends the process leaves either nothing or a whole folder; what a process that was
    killed left behind is removed by the next one.

    Raises:
        InputError: the disk is full, or the cache cannot be written.
    """
    root = cache_root() / FOLDER
    with _explained(root):
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f"{key}.lock"):
            if (found := kept(key)) is not None:
                return found
            for left in root.glob(f"{key}.*.new"):
                shutil.rmtree(left, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".new", dir=root))
            try:
                work.chmod(0o755)
                make(work)
                for path in work.rglob("*"):  # safetensors writes files that nobody else may read; caches are shared
                    path.chmod(path.stat().st_mode | 0o444)
                _flush(work)
                (work / COMPLETE).touch()
                _flush(work)
                folder = root / key
                shutil.rmtree(folder, ignore_errors=True)
                work.rename(folder)
                _flush_one(root)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
            return folder


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turn what the disk refuses into one message."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise InputError(
                f"{root}: the disk is full ({str(error).strip().splitlines()[-1]}). Nothing was kept. Free some space "
                "and run the same command again, or set GUIDEBOOK_CACHE to a folder on another disk."
            ) from error
        if isinstance(error, OSError):
            raise InputError(
                f"{root}: cannot be written ({error.strerror or error}). Set GUIDEBOOK_CACHE to a folder that can."
            ) from error
        raise


def is_full(error: BaseException) -> bool:
    """Return whether an error says that there is no room on the disk (safetensors tells it in words only)."""
    told = str(error)
    return getattr(error, "errno", None) in FULL or "No space left" in told or "File too large" in told


@contextmanager
def _lock(place: Path) -> Iterator[None]:
    """Keep other processes out meanwhile; a process that dies lets go."""
    with place.open("ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows has no flock; one process at a time may fetch there
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _flush_one(path)


def _flush_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
