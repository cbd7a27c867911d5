"""Where guidebooks and their bases are, and which guidebooks go together on one base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from guidebook import hub
from guidebook.adapters.bases import PACKAGED
from guidebook.adapters.host import Host
from guidebook.artifact_schema import FACTS
from guidebook.errors import InputError, nearest
from guidebook.folders import recover

ELSEWHERE = "If its base is in another folder now, name it: --base FOLDER, in Python load(..., base=FOLDER)."


def folder_of(item: str | Path, *, maybe_base: bool = False) -> Path | None:
    """Return the folder of a guidebook, fetched from the Hub if it is not here; with `maybe_base` None for a base.

    Raises:
        InputError: there is no guidebook.
    """
    path, name = _expanded(item), Path(item).as_posix()
    with suppress(OSError, ValueError):  # a name that no folder can have
        recover(path)
    if os.path.isdir(path):
        if maybe_base and not (path / FACTS).exists():
            return None
        return path
    if maybe_base and name in PACKAGED:
        return None
    here = os.path.exists(path)
    if not here and hub.is_name(name):
        return hub.fetch(name, maybe_base=maybe_base)
    if maybe_base:
        return None
    beside = path.parent.iterdir() if os.path.isdir(path.parent) else ()
    siblings = [place.name for place in beside if place.is_dir()]
    what = "not a guidebook, but a file" if here else "there is no such folder"
    raise InputError(f"{item}: {what}. Name the folder of a guidebook.{nearest(path.name, siblings)}")


def _expanded(item: str | Path) -> Path:
    try:
        return Path(item).expanduser()
    except RuntimeError:  # ~someone, whom this machine does not know
        return Path(item)


def name_of(item: str | Path, place: Path) -> str:
    """Return what a guidebook is called: its folder's name, or its repository's."""
    if os.path.isdir(_expanded(item)):
        return place.resolve().name
    return Path(item).as_posix().partition("@")[0].rpartition("/")[2]


def load_host(folder: Path, facts: Mapping[str, Any], base: str | Path | None) -> Host:
    """Return the base of a guidebook, held in memory as it was.

    Args:
        folder: The guidebook's.
        facts: What guidebook.json says.
        base: Where to load it from instead of where it was.

    Raises:
        InputError: it is not there, or cannot be loaded.
    """
    held = facts["base"]
    place = str(base) if base is not None else _place_of(folder, held)
    try:
        return Host.load(
            place,
            held.get("dtype", "float32"),
            modules=held.get("modules", {}),
            quantise=held.get("quantise"),
            needs_lm_head=False,
        )
    except InputError as error:
        if base is not None or held["id"] in PACKAGED:
            raise
        raise InputError(f"{error} {ELSEWHERE}") from error


def _place_of(folder: Path, held: Mapping[str, Any]) -> str:
    """Return where a guidebook's base is: where it was, else as far from the guidebook as it was, else by its name."""
    known = held.get("path")
    if known is None:
        return str(held["id"])
    relative = held.get("relative")
    places = [Path(known)] + ([folder.resolve() / relative] if relative is not None else [])
    for place in places:
        if os.path.exists(place):
            return str(place)
    raise InputError(f"{folder}: its base {held['id']} is not at {known} any more. {ELSEWHERE}")


def check_base(name: str, held: Mapping[str, Any], host: Host) -> None:
    """Refuse a guidebook on another base than the one it was trained on.

    Raises:
        InputError: the bases' tensors differ.
    """
    if held["fingerprint"] == host.fingerprint:
        return
    here = {"dtype": host.dtype, "quantise": host.quantise}
    raise InputError(
        f"{name} was trained on the base {held['id']} ({held['fingerprint'][:12]}) in {_held(held)}, but "
        f"{host.base_id} ({host.fingerprint[:12]}) is loaded in {_held(here)}. An adapter works only on its "
        f"own base, held in memory as it was. {ELSEWHERE}"
    )


def check_together(books: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse guidebooks that cannot answer side by side; longest rows, pooling and heads may differ.

    Raises:
        InputError: it names what differs.
    """
    first, known = next(iter(books.items()))
    for name, facts in books.items():
        for part, field, what in (
            ("task", "kind", "the task"),
            ("task", "labels", "the labels"),
            ("task", "pairs", "pairs of texts"),
            ("base", "modules", "adapter.modules"),
        ):
            here, there = facts[part].get(field), known[part].get(field)
            if (here or None) != (there or None):
                raise InputError(
                    f"{name} and {first} cannot be loaded together: {what} is {here} in one and {there} in the other. "
                    "Load them one by one."
                )


def _held(base: Mapping[str, Any]) -> str:
    """Return how a base is held in memory: "float32", "4bit and bfloat16"."""
    dtype = base.get("dtype", "float32")
    return f"{base['quantise']} and {dtype}" if base.get("quantise") else str(dtype)
