"""The files of a guidebook beside guidebook.json: all there, and byte by byte what was written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from guidebook.artifact_schema import AGAIN
from guidebook.errors import InputError
from guidebook.folders import digest

ADAPTERS = "adapters"
HEAD = "head.safetensors"
TENSORS = ".safetensors"


def digests(folder: Path) -> dict[str, str]:
    """Return the xxh3_128 of every file of a guidebook that answers are computed from, by its name in the folder."""
    tops = [folder / ADAPTERS, folder / "source_only"]
    places = [path for top in tops for path in top.rglob("*") if path.suffix in (TENSORS, ".json")]
    places += folder.glob(f"*{TENSORS}")
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(places) if path.is_file()}


def base_places(path: str | None, folder: Path) -> dict[str, str | None]:
    """Return where a base on disk is: its absolute path, and the path from the guidebook's folder; None elsewhere."""
    try:
        relative = None if path is None else Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        relative = None
    return {"path": path, "relative": relative}


def check_present(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a guidebook of which a file or an adapter's folder is missing.

    Raises:
        InputError: it names the first that is missing.
    """
    wanted = [folder / name for name in facts.get("files") or ()]
    for variant in facts["variants"].values():
        wanted += [folder / variant["folder"] / ADAPTERS / name for name in variant["stack"]]
        wanted += [folder / HEAD] if variant["head"] is not None else []
    for place in wanted:
        if not os.path.exists(place):
            raise InputError(f"{place}: this part of the guidebook is missing. {AGAIN}")


def check_intact(folder: Path, facts: Mapping[str, Any], place: Path) -> None:
    """Refuse a file, or a folder of an adapter, that is not as it was written; older guidebooks have no digests.

    Raises:
        InputError: a file is missing, one has other bytes, or there is one more that would be loaded.
    """
    known: Mapping[str, str] | None = facts.get("files")
    if known is None:
        return
    inside = place.relative_to(folder).as_posix()
    if place.is_dir():
        files = [path for path in place.rglob("*") if path.suffix in (TENSORS, ".json") and path.is_file()]
        here = {path.relative_to(folder).as_posix() for path in files}
        expected = {name for name in known if name.startswith(f"{inside}/")}
    else:
        here, expected = {inside}, {inside}
    for name in sorted(here ^ expected):
        what = "was not written by guidebook" if name in here else "is missing"
        raise InputError(f"{folder / name}: this part of the guidebook {what}. {AGAIN}")
    for name in sorted(expected):
        if name not in known:
            raise InputError(f"{folder / name}: this part of the guidebook was not written by guidebook. {AGAIN}")
        if _digest_or_refuse(folder / name) != known[name]:
            raise InputError(
                f"{folder / name}: this part of the guidebook is damaged: it does not hold the bytes that were "
                f"written. {AGAIN}"
            )


def _digest_or_refuse(path: Path) -> str:
    try:
        return digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. {AGAIN}") from error


def read_tensors(folder: Path, facts: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the tensors of one of a guidebook's own files.

    Raises:
        InputError: it is missing or damaged.
    """
    place = folder / name
    if not place.is_file():
        raise InputError(f"{place}: this part of the guidebook is missing. {AGAIN}")
    check_intact(folder, facts, place)
    try:
        return dict(load_file(place))
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{place} cannot be read: {str(error)[:200]}. {AGAIN}") from error


def head_tensors(place: Path, stored: Mapping[str, Tensor], head: str, classes: int, hidden: int) -> dict[str, Tensor]:
    """Return one variant's head out of those that are stored together, if it fits labels and base.

    Args:
        place: The file, for messages.
        stored: Its tensors.
        head: The variant's name there.
        classes: C.
        hidden: H.

    Raises:
        InputError: a tensor is missing, of another shape or type, or not finite.
    """
    shapes = {"output.weight": (classes, hidden), "output.bias": (classes,)}
    if f"{head}.head.inner.weight" in stored or f"{head}.head.inner.bias" in stored:
        shapes |= {"inner.weight": (hidden, hidden), "inner.bias": (hidden,)}
    found = {}
    for name, shape in shapes.items():
        tensor = stored.get(f"{head}.head.{name}")
        if tensor is None or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            has = "nothing" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise InputError(
                f"{place}: the head of {head} does not fit: {name} should have the shape {shape}, found {has}. {AGAIN}"
            )
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{place}: the head of {head} holds numbers that are not finite. {AGAIN}")
        found[f"head.{name}"] = tensor
    return found
