"""Locks that processes share through files, on every system; a process that ends, killed or not, lets go."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from guidebook.errors import MachineError

SOON = 2.0
"""Seconds of waiting after which it is said who is waited for."""
AGAIN = 600.0
"""Seconds after which it is said again."""
LIMIT = 24 * 3600.0
"""Seconds after which waiting is given up."""


@contextmanager
def locked(place: Path, what: str, say: Callable[[str], None] | None = None, limit: float = LIMIT) -> Iterator[None]:
    """Hold a lock file while the context lasts; wait while another process holds it.

    Args:
        place: The lock file; its folder is made.
        what: What is being done under the lock, as in "stage fuse".
        say: Is told who is waited for, soon and then every ten minutes; whoever passes it can be waited for by name.
        limit: Seconds after which waiting is given up.

    Raises:
        MachineError: the lock was not free within the limit, or the file cannot be locked.
    """
    lock, began = _made(place), time.monotonic()
    while not _taken(lock, min(AGAIN if time.monotonic() - began >= SOON else SOON, limit), place):
        waited = time.monotonic() - began
        if waited >= limit:
            raise MachineError(
                f"{what}: waited {waited / 3600:.1f} hours for {owner(place)}, who still holds {place}. End that "
                "process, or set GUIDEBOOK_CACHE to another folder, and run the same command again."
            )
        if say is not None:
            say(f"{what}: waiting for {owner(place)} to finish the same ({place})")
    try:
        if say is not None:
            _sign(place)
        yield
    finally:
        _notice(place).unlink(missing_ok=True)
        lock.release()


@contextmanager
def claimed(place: Path) -> Iterator[bool]:
    """Yield whether no other process holds a lock file, and hold it meanwhile if so.

    Raises:
        MachineError: the file cannot be locked.
    """
    lock = _made(place)
    if not _taken(lock, 0.0, place):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def owner(place: Path) -> str:
    """Return who holds a lock file, as far as that was written down."""
    try:
        signed = json.loads(_notice(place).read_text(encoding="utf8"))
        return f"process {signed['process']} on {signed['host']} (since {signed['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"


def _made(place: Path) -> Any:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unlockable(place, error) from error
    return FileLock(place)


def _taken(lock: Any, seconds: float, place: Path) -> bool:
    try:
        lock.acquire(timeout=seconds, poll_interval=0.1)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        raise _unlockable(place, error) from error
    return True


def _unlockable(place: Path, error: Exception) -> MachineError:
    return MachineError(
        f"{place} cannot be locked: {error}. Use a folder that can be written, on a file system with locks: "
        "GUIDEBOOK_CACHE for the cache, --out for records."
    )


def _notice(place: Path) -> Path:
    return place.with_name(f"{place.name}.owner")


def _sign(place: Path) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        signed = {"process": os.getpid(), "host": platform.node(), "since": since}
        _notice(place).write_text(json.dumps(signed), encoding="utf8")
