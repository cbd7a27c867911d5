"""Results as JSON lines, with the machine and the versions that made them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from guidebook.errors import InputError
from guidebook.locks import locked
from guidebook.strict_json import dumps
from guidebook.threads import cores

PACKAGES = (
    "guidebook",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
)
"""Packages whose version can change a result."""


def append_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Add `record` as one line to the file at `path`, on disk when this returns; folders are made.

    Appending is safe from several processes. A last line that a crash tore is removed first, one that merely lacks
    its line end is kept. Numbers that JSON cannot hold (nan, inf) are written as null, numpy values as plain ones.
    """
    line = (dumps(record) + "\n").encode()
    place = Path(path)
    with locked(place.with_name(f".{place.name}.lock"), f"writing {place}"), open(place, "ab+", buffering=0) as file:
        line = _mend_end(file) + line
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """All records of the file at `path`, oldest first; a torn last line is left out, a missing file has none.

    Raises:
        InputError: A line before the last is not a JSON object.
    """
    if not Path(path).exists():
        return []
    *lines, last = Path(path).read_bytes().split(b"\n")
    if _is_whole(last):
        lines.append(last)
    return [_parsed(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line.strip()]


class Keys:
    """The keys of a file of records that others append to; every record is read once."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._read = 0
        self._known: set[Any] = set()

    def now(self) -> set[Any]:
        """Return the keys of all records that are there now.

        Raises:
            InputError: A line before the last is not a JSON object.
        """
        if not self._path.exists():
            return set()
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read:  # another file than before
                self._read, self._known = 0, set()
            file.seek(self._read)
            *lines, last = file.read().split(b"\n")
        for line in lines:
            if line.strip():
                place = f"{self._path} at byte {self._read}"
                self._known.add(_parsed(line, place).get("key"))
            self._read += len(line) + 1
        return self._known | ({json.loads(last).get("key")} if _is_whole(last) else set())


def deciding_versions() -> dict[str, str]:
    """Version of every package whose version can change a result; guidebook's own code is told apart by its digest."""
    return {name: version for name, version in versions().items() if name not in ("guidebook", "python")}


def machine() -> dict[str, Any]:
    """What a run ran on: cpu, cores, memory_gb, torch_threads, bf16, gpu, gpu_memory_gb, system. No host name.

    `bf16` says whether the device that trains multiplies bf16 matrices in hardware: a CPU needs AVX512-BF16, AMX or its
    Arm counterpart, elsewhere bf16 is emulated. It does not say that bf16 is the faster format. Imports torch.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if has_gpu else None
    return {
        "cpu": cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "torch_threads": torch.get_num_threads(),
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False) if has_gpu else cpu_has_bf16(),
        "gpu": properties.name if properties else None,
        "gpu_memory_gb": round(properties.total_memory / 2**30, 1) if properties else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware; False where the system does not say."""
    flags = (cpu_field("flags") or cpu_field("Features")).split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def cpu_field(name: str) -> str:
    """Return what /proc/cpuinfo says of the first processor under a name; "" where nothing does."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def versions() -> dict[str, str]:
    """Version of Python and of every installed package that can change a result. Imports none of them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _mend_end(file: IO[bytes]) -> bytes:
    """Cut a torn last line off; return the line end that a whole one lacks."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return b""
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return b""
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _is_whole(content[start:]):
        return b"\n"
    file.truncate(start)
    return b""


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not a JSON record ({error}). Remove the line, the others are kept.") from error
    if not isinstance(record, dict):
        raise InputError(f"{place}: found {type(record).__name__}, expected a JSON object. Remove the line.")
    return record


def _memory_gb() -> float | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None
