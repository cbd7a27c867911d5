"""One store for resume, cache and sharing: what a stage made, under the hash of everything that decided it."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from guidebook.data.texts import cache_root
from guidebook.errors import GuidebookError, RunError
from guidebook.folders import fsync_folder

COMPLETE = "COMPLETE"
CODE = ("adapters", "data", "losses", "tasks", "training", "peft", "methods/stage.py")
"""What takes part in training a stage; methods say what a stage is, and that is in its key as data."""


def default_root() -> Path:
    """Return the store's folder: $GUIDEBOOK_CACHE, else ~/.cache/guidebook."""
    return cache_root()


@cache
def code_digest(places: tuple[str, ...] = CODE) -> str:
    """Return a hash of what parts of the package's code do, by default those that take part in training.

    Docstrings, comments and layout are not in it: new code makes new keys, new words do not.
    """
    package = Path(__file__).parent.parent
    digest = xxhash.xxh3_128()
    for name in places:
        place = package / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{path.relative_to(package).as_posix()}\n{without_words(path.read_text('utf8'))}\n".encode())
    return digest.hexdigest()


def without_words(source: str) -> str:
    """Return the syntax tree of Python source as text, without comments and without strings that stand by themselves.

    >>> without_words("x = 1") == without_words("x =  1  # one")
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name, inner in ast.iter_fields(node):
            if isinstance(inner, list) and inner and isinstance(inner[0], ast.stmt):
                setattr(node, name, [item for item in inner if not _is_text(item)])
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def key_of(facts: dict[str, Any]) -> str:
    """Return the hash of plain data."""
    return xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True, default=str).encode())


def complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint under `folder` and delete all others."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    newest = next((path for path in reversed(found) if (path / COMPLETE).exists()), None)
    for path in found:
        if path != newest:
            shutil.rmtree(path)
    return newest


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Turn the many errors that a full disk makes into one RunError that says what to do."""
    try:
        yield
    except GuidebookError:
        raise  # it says already what to do
    except Exception as error:
        # torch's writer only says that it stands at the wrong place of its file
        torch_failed = isinstance(error, RuntimeError) and "inline_container" in str(error)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if not full and not torch_failed:
            raise
        raise RunError(
            f"The disk is full: {error}. The last complete checkpoint is kept: free some space and run the same "
            "command again, or set GUIDEBOOK_CACHE to a folder on another disk."
        ) from error


@dataclass(frozen=True)
class Store:
    """Folders named by key: `<key>/` when finished, `<key>.work/` while a stage trains."""

    root: Path

    def find(self, key: str) -> Path | None:
        """Return the finished folder of a key, if there is one."""
        folder = self.root / key
        return folder if (folder / COMPLETE).exists() else None

    def work(self, key: str) -> Path:
        """Return the folder in which the stage of a key keeps its checkpoints."""
        folder = self.root / f"{key}.work"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Keep other processes from training the same stage meanwhile; a process that dies lets go."""
        place = self.root / "locks" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab") as file:
            try:
                import fcntl
            except ImportError:  # Windows has no flock; one process at a time may train there
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def put(self, key: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a temporary folder and make it the finished one by rename; the working folder goes."""
        temporary = self.root / f"{key}.new"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            fsync_folder(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        (temporary / COMPLETE).write_text("", encoding="utf8")
        fsync_folder(temporary)
        folder = self.root / key
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        shutil.rmtree(self.root / f"{key}.work", ignore_errors=True)
        return folder

    def array(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array of a key: the stored one, else what `make` returns, which is then stored."""
        place = self.root / "arrays" / f"{key}.npy"
        if place.exists():
            found: np.ndarray = np.load(place, allow_pickle=False)
            return found
        values = make()
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"{key}.{os.getpid()}.new")
        with temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(place)
        return values
