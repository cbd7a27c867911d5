"""What a disk refuses, said so that one knows what to do: full, or not to be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guidebook.data.cache import VARIABLE, cache_root
from guidebook.errors import GuidebookError, MachineError

AGAIN = "The last complete checkpoint is kept"


@contextmanager
def disk_explained() -> Iterator[None]:
    """Turn what a disk refuses into one MachineError that says what to do.

    Raises:
        MachineError: a disk is full, or something in the cache cannot be read or written.
    """
    try:
        yield
    except GuidebookError:
        raise  # it says already what to do
    except Exception as error:
        if is_full(error):
            raise MachineError(
                f"The disk is full: {error}. {AGAIN}: free some space and run the same command again, or set "
                f"{VARIABLE} to a folder on another disk."
            ) from error
        if is_refused(error):
            raise MachineError(
                f"A file could not be read or written: {error}. {AGAIN}: make it possible and run the same command "
                f"again, or set {VARIABLE} (now {cache_root()}) to another folder."
            ) from error
        raise


def is_full(error: Exception) -> bool:
    """Return whether an error says that a disk has no space left.

    torch's writer does not say why it could not write; where it could not open the file, it does.
    """
    text = str(error)
    torch_wrote = isinstance(error, RuntimeError) and "inline_container" in text and "strerror" not in text
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or torch_wrote


def is_refused(error: Exception) -> bool:
    """Return whether an error is the cache's file system refusing something else."""
    text = str(error)
    if isinstance(error, OSError):
        return _inside(error.filename, cache_root()) or _inside(error.filename2, cache_root())
    torch_opened = isinstance(error, RuntimeError) and (
        ("inline_container" in text and "strerror" in text)
        or (text.startswith("Parent directory") and "does not exist" in text)
    )
    return torch_opened or "(os error" in text  # the last: safetensors


def _inside(path: object, folder: Path) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    return Path(os.fsdecode(path)).absolute().is_relative_to(folder.absolute())
