"""Folders and files that are replaced in one step, and in which nothing that a person wrote is ever lost.

A folder carries a journal of the files that guidebook wrote into it, with a digest of each. A file that is not in the
journal, or differs from it, is a person's: when the folder is replaced it moves into the new one, and when guidebook
has another file of that name, the person's stays beside it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePosixPath

import xxhash

from guidebook.errors import InputError

JOURNAL = ".written.jsonl"
UNFINISHED = ".unfinished"
SEAL = "<!-- written by guidebook, digest "
NEW, OLD = "new", "old"
_TABLES = {"guidebook.json", "evidence.json", "report.html", "records.jsonl", "adapter_config.json", "config.json"}
"""Files of guidebooks that were written before there was a journal; README.md is not among them: people add to it."""
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD: paths are relative to the working directory


def replace_folder(
    folder: Path, fill: Callable[[Path], None], settle: Callable[[Path, Path], None] | None = None
) -> list[str]:
    """Let `fill` write a folder beside `folder`, then put it in its place; return the person's files that it keeps.

    At every moment `folder` is the old one or the new one, whole; where the file system cannot exchange two folders in
    one step, `recover` ends what a crash interrupted. If anything raises, the old folder is as it was.

    Args:
        folder: The place.
        fill: Writes into the folder it is given.
        settle: Is called with the old and the new folder after a person's files were carried over.
    """
    clear_leftovers(folder)
    fresh = _beside(folder, NEW)
    fresh.mkdir(parents=True)
    try:
        (fresh / UNFINISHED).touch()
        fill(fresh)
        if journal(fresh) is None:  # a copied folder brings its own, which knows what a person wrote there
            note(fresh, list(_files(fresh)))
        kept = _carry(folder, fresh) if folder.exists() else []
        if settle is not None and folder.exists():
            settle(folder, fresh)
        fsync_folder(fresh)
        _swap(fresh, folder)
    finally:
        clear_leftovers(folder)
    return kept


def recover(folder: Path) -> None:
    """Put a folder back that a crash between two renames left beside its place."""
    old = _beside(folder, OLD) if folder.name else folder
    if not folder.exists() and old.is_dir():
        old.rename(folder)


def clear_leftovers(folder: Path) -> None:
    """Remove what a replacement left beside a folder, after whatever a person wrote there was carried over.

    A folder that is marked as unfinished has not been in its place, and holds no more of a person than copies.
    """
    recover(folder)
    if folder.is_dir():
        (folder / UNFINISHED).unlink(missing_ok=True)
    for end in (NEW, OLD):
        place = _beside(folder, end)
        if not place.is_dir():
            continue
        if not (place / UNFINISHED).exists() and folder.is_dir():
            _carry(place, folder)
        _remove(place)


def _remove(folder: Path) -> None:
    """Remove a folder, last what says which of its files are guidebook's: a kill may leave a part of it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (JOURNAL, UNFINISHED):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def copy_folder(folder: Path, into: Path) -> None:
    """Copy everything in a folder, a person's files and the journal too, into another."""
    shutil.copytree(folder, into, symlinks=True, dirs_exist_ok=True)


def put(path: Path, content: bytes) -> Path | None:
    """Write a file in one step and note it in its folder's journal; return where a person's file of its name went.

    A reader meets the old content or the new one, never a part.
    """
    kept = set_aside(path)
    note(path.parent, [], {path.name: xxhash.xxh3_128_hexdigest(content)})  # first, or a crash makes it a person's
    replace_file(path, content)
    return kept


def replace_file(path: Path, content: bytes) -> None:
    """Write a file by rename, on disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Give a person's file at `path` a second name, which outlives that `path` is replaced; return it, None if none."""
    if not path.exists() or _is_ours(path.parent, path, journal(path.parent)):
        return None
    other = free_name(path)
    _link(path, other)
    return other


def free_name(path: Path) -> Path:
    """Return `path`, or where something has that name already the first free one beside it: `name.2.csv`, `name.3.csv`.

    >>> free_name(Path("no-such-folder/rows.csv")).name
    'rows.csv'
    """
    return next(other for other in _names(path) if not os.path.lexists(other))


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}.{number}{path.suffix}")


def check_free(path: Path, flag: str = "--out", is_ours: Callable[[Path], bool] = lambda path: False) -> Path:
    """Return a path that a user named for a new file.

    Args:
        path: What the user named.
        flag: The flag it was named with.
        is_ours: Says of a file there whether guidebook wrote it and nobody changed it: such a file may be replaced.

    Raises:
        InputError: something else is there; it is not overwritten.
    """
    if os.path.lexists(path) and not (path.is_file() and is_ours(path)):
        raise InputError(f"{path}: exists already, and is not overwritten. Choose another {flag}, or remove it first.")
    return path


def sealed(page: str) -> str:
    """Return an HTML page with a last line by which `is_sealed` knows that nobody changed it."""
    return f"{page}\n{SEAL}{xxhash.xxh3_128_hexdigest(page.encode())} -->\n"


def is_sealed(path: Path) -> bool:
    """Whether a file is a page that `sealed` made and nobody changed."""
    try:
        page, _, end = path.read_bytes().rpartition(b"\n" + SEAL.encode())
    except OSError:
        return False
    return end == f"{xxhash.xxh3_128_hexdigest(page)} -->\n".encode()


def journal(folder: Path, kind: str = "file") -> dict[str, set[str]] | None:
    """Return the digests of all that guidebook wrote into a folder, by relative name; None without a journal.

    With `kind` "brought": those of a person's files that came from the folder before, under their names there.
    """
    place = folder / JOURNAL
    if not place.exists():
        return None
    found: dict[str, set[str]] = {}
    for line in place.read_text(encoding="utf8").splitlines():
        with suppress(ValueError, KeyError, TypeError):  # the last line of a crash may be torn
            entry = json.loads(line)
            found.setdefault(entry[kind], set()).add(entry["digest"])
    return found


def note(folder: Path, paths: Iterable[Path], known: Mapping[str, str] | None = None) -> None:
    """Add files of a folder, by path or by name and digest, to its journal.

    A folder without a journal was written before there was one: its files that have guidebook's names are added too.
    """
    if journal(folder) is None:
        paths = {*paths, *(path for path in _files(folder) if _is_ours(folder, path, None) and path.is_file())}
    ours = [path for path in paths if path.name not in (JOURNAL, UNFINISHED)]
    digests = {path.relative_to(folder).as_posix(): digest(path) for path in ours} | dict(known or {})
    _append(folder, digests, "file")


def _append(folder: Path, digests: Mapping[str, str], kind: str) -> None:
    lines = "".join(json.dumps({kind: name, "digest": value}) + "\n" for name, value in digests.items())
    with (folder / JOURNAL).open("a", encoding="utf8") as file:
        file.write(("\n" if file.tell() else "") + lines)
        file.flush()
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """Return the hash of a file's content."""
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Flush every file of a folder, then the folder, to the disk."""
    for path in [*(item for item in _files(folder) if item.is_file() and not item.is_symlink()), folder]:
        if not os.access(path, os.R_OK):
            continue  # a person's, that only they may read
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{end}")


def _files(folder: Path) -> Iterator[Path]:
    """Yield files and links, not what links lead to."""
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())


def _is_ours(folder: Path, path: Path, known: dict[str, set[str]] | None) -> bool:
    """Whether guidebook wrote a file of a folder, and nobody changed it since."""
    name = path.relative_to(folder).as_posix()
    if name in (JOURNAL, UNFINISHED) or (path.name.startswith(".") and path.name.endswith(".part")):
        return True
    if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
        return False
    if path.suffix == ".html" and is_sealed(path):
        return True
    if known is not None:
        return name in known and digest(path) in known[name]
    return path.name in _TABLES or path.suffix == ".safetensors"


def _carry(old: Path, new: Path) -> list[str]:
    """Bring a person's files from one folder into another; return their names there.

    The new folder's journal remembers what was brought, so that it is not brought again when it has changed since.
    """
    known, brought, kept = journal(old), journal(new, "brought") or {}, []
    for path in sorted(_files(old)):
        if _is_ours(old, path, known):
            continue
        name = PurePosixPath(path.relative_to(old).as_posix())
        content = digest(path) if path.is_file() and os.access(path, os.R_OK) else ""
        if content and content in brought.get(name.as_posix(), ()):
            continue
        place = new / name
        if any(parent.is_file() for parent in place.parents if parent != new and new in parent.parents):
            place = new / "-".join(name.parts)  # a file stands where its folder was
        found = next(other for other in _names(place) if not os.path.lexists(other) or _same(path, other))
        if not os.path.lexists(found):
            found.parent.mkdir(parents=True, exist_ok=True)
            _link(path, found)
        kept.append(found.relative_to(new).as_posix())
        if content and (new / JOURNAL).exists():
            _append(new, {name.as_posix(): content}, "brought")
    return kept


def _same(one: Path, other: Path) -> bool:
    """Whether two names lead to the same content."""
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    if not other.is_file() or not one.is_file():
        return False
    readable = os.access(one, os.R_OK) and os.access(other, os.R_OK)
    return one.samefile(other) or (readable and digest(one) == digest(other))


def _link(path: Path, place: Path) -> None:
    """Give a file a second name; where the file system cannot, copy it."""
    if path.is_symlink():
        place.symlink_to(os.readlink(path))
        return
    try:
        os.link(path, place)
    except OSError:
        shutil.copy2(path, place)


def _swap(fresh: Path, folder: Path) -> None:
    """Put a folder in the place of another, which is beside it afterwards."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchanged(fresh, folder):
        folder.rename(_beside(folder, OLD))
        fresh.rename(folder)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False where the system cannot."""
    first, second = os.fsencode(one), os.fsencode(other)
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(library.renamex_np(first, second, ctypes.c_uint(_EXCHANGE)) == 0)
        return bool(library.renameat2(_HERE, first, _HERE, second, ctypes.c_uint(_EXCHANGE)) == 0)
    return False
