"""One store for resume, cache and sharing: what a stage made, under the hash of everything that decided it."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from guidebook.data.cache import cache_root
from guidebook.folders import fsync_folder
from guidebook.locks import locked

COMPLETE = "COMPLETE"
"""A file in a finished folder: what its other files looked like when it was written."""
END = 2**20
"""Bytes at either end of a file that are compared."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "bitsandbytes")
"""Packages that take part in training: another version is another key."""
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


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the packages that take part in training, of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def key_of(facts: dict[str, Any]) -> str:
    """Return the hash of plain data."""
    return xxhash.xxh3_128_hexdigest(json.dumps(facts, sort_keys=True, default=str).encode())


def mark_complete(folder: Path) -> None:
    """Flush a folder to the disk, then write into it that it is complete, and what its files look like."""
    fsync_folder(folder)
    files = {name: _look(folder / name) for name in _files(folder)}
    (folder / COMPLETE).write_text(json.dumps(files, sort_keys=True), encoding="utf8")
    fsync_folder(folder)


def damage(folder: Path) -> str:
    """Return what is wrong with a folder that was marked as complete: a file that is gone or another; "" if nothing."""
    try:
        files = json.loads((folder / COMPLETE).read_text(encoding="utf8"))
        for name, look in files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _look(folder / name) != look:
                return f"{name} is not what was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"{COMPLETE} cannot be read: {error}"
    return ""


def _files(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != COMPLETE
    ]


def _look(path: Path) -> list[Any]:
    """Return a file's size and a hash of its ends, which is quick for a file of any size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = xxhash.xxh3_128(file.read(END))
        file.seek(max(0, size - END))
        digest.update(file.read(END))
    return [size, digest.hexdigest()]


def complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint under `folder` and delete all others."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    newest = next((path for path in reversed(found) if (path / COMPLETE).exists() and not damage(path)), None)
    for path in found:
        if path != newest:
            shutil.rmtree(path)
    return newest


@dataclass(frozen=True)
class Store:
    """Folders named by key: `<key>/` when finished, `<key>.work/` while a stage trains."""

    root: Path

    def find(self, key: str) -> Path | None:
        """Return the finished folder of a key, if there is one and it is whole."""
        folder = self.root / key
        return folder if (folder / COMPLETE).exists() and not damage(folder) else None

    def damage(self, key: str) -> str:
        """Return what is wrong with the folder of a key; "" if there is none or it is whole."""
        folder = self.root / key
        return f"{folder}: {what}" if folder.exists() and (what := damage(folder)) else ""

    def work(self, key: str) -> Path:
        """Return the folder in which the stage of a key keeps its checkpoints."""
        folder = self.root / f"{key}.work"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def lock(
        self, key: str, what: str = "a stage", say: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """Keep other processes from training the same stage meanwhile; a process that dies lets go.

        Args:
            key: The stage's key.
            what: What a message calls it.
            say: Is told who is waited for.
        """
        return locked(self.root / "locks" / key, what, say)

    def put(self, key: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a temporary folder and make it the finished one by rename; the working folder goes."""
        temporary = self.root / f"{key}.new"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            mark_complete(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        folder = self.root / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.unlink(missing_ok=True) if folder.is_file() else None
        temporary.rename(folder)
        shutil.rmtree(self.root / f"{key}.work", ignore_errors=True)
        return folder

    def array(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array of a key: the stored one if it can be read, else what `make` returns, which is stored.

        Other versions of the libraries make it anew.
        """
        name = key_of({"key": key, "libraries": library_versions()})
        place = self.root / "arrays" / f"{name}.npy"
        with suppress(OSError, ValueError, EOFError):  # not there, or damaged
            found: np.ndarray = np.load(place, allow_pickle=False)
            return found
        values = make()
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"{name}.{os.getpid()}.new")
        with temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
        return values
