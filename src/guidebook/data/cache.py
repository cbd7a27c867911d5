"""The cache: the folder of everything that is kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from guidebook.errors import InputError

VARIABLE = "GUIDEBOOK_CACHE"
PARTS = ("arrays", "locks", "machine", "scratch", "tokens")
"""Folders inside it that several runs share."""


def cache_root() -> Path:
    """Return the cache's folder: $GUIDEBOOK_CACHE, else ~/.cache/guidebook.

    Raises:
        InputError: there is no home folder, and the variable is not set.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    try:
        return Path.home() / ".cache" / "guidebook"
    except RuntimeError as error:
        raise InputError(f"There is no home folder to keep a cache in ({error}). Set {VARIABLE} to a folder.") from None


def require_cache() -> Path:
    """Return the cache's folder, which is made, after a file was written there and removed again.

    Raises:
        InputError: nothing can be written there.
    """
    root = cache_root()
    place = root
    try:
        root.mkdir(parents=True, exist_ok=True)
        for place in (root, *(root / name for name in PARTS)):
            if place.exists():
                with tempfile.NamedTemporaryFile(dir=place, prefix=".probe-") as file:
                    file.write(b"1")
    except OSError as error:
        given = f"which {VARIABLE} names" if os.environ.get(VARIABLE) else f"as {VARIABLE} is not set"
        raise InputError(
            f"The cache {root}, {given}, cannot be written: {place}: {error.strerror or error}. "
            f"Set {VARIABLE} to a folder that can be written."
        ) from error
    return root


def scratch_folder() -> Path:
    """Return where large temporary files go: beside the cache, since /tmp may be memory.

    Raises:
        InputError: nothing can be written there.
    """
    folder = cache_root() / "scratch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        require_cache()
        raise
    return folder
