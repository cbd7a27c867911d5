"""The key of a stage: a hash of everything that decides what it makes.

Nobody lists the settings that belong in it. A stage is built twice by the same code (`Setup`). First on a few of its
rows, from settings that note what is read of them: that is what enters the key. Then in full, from settings that refuse
whatever was not noted. So a setting either is in the key, or cannot take part in the stage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, cast

import numpy as np
import torch
import xxhash

from guidebook.data.streams import Stream
from guidebook.methods.stage import Stage
from guidebook.training.store import code_digest, key_of, library_versions

WITHOUT_EFFECT = ("checkpoint_seconds", "gradient_checkpointing", "micro_batches")
"""Settings that may be read without being in the key: the first two change no bit, and a step's number of parts enters
by itself, as micro-batches times processes."""
MOMENTS = 1000
"""Fractions of a stage at which the weight of a loss over time is compared."""

Settings = TypeVar("Settings")


class Recorded:
    """Settings, a dataclass, that note every value that is read of them.

    Args:
        settings: The dataclass.
        read: What was read, by name; inner settings by a dotted name.
        sealed: Refuse what is not in `read`, instead of adding to it.
        instead: Values that take the place of those of the settings, by the same names, and are not noted.
        name: Where these settings stand in the outer ones.
    """

    def __init__(
        self,
        settings: object,
        read: dict[str, Any],
        *,
        sealed: bool = False,
        instead: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self._settings, self._read, self._sealed, self._name = settings, read, sealed, name
        self._instead = dict(instead or {})

    def __getattr__(self, field: str) -> Any:
        value = getattr(self._settings, field)
        name = f"{self._name}{field}"
        if name in self._instead:
            return self._instead[name]
        if dataclasses.is_dataclass(value):
            return Recorded(value, self._read, sealed=self._sealed, instead=self._instead, name=f"{name}.")
        if field not in WITHOUT_EFFECT:
            if self._sealed and name not in self._read:
                raise RuntimeError(
                    f"{type(self._settings).__name__}.{field} is read while a stage is trained, and is not in its key: "
                    "`Setup.rehearse` has to read it too."
                )
            self._read[name] = value
        return value


def recorded(settings: Settings, read: dict[str, Any], name: str, *, sealed: bool = False) -> Settings:
    """Return settings that note in `read` what is read of them under `name`, or that refuse what is not there."""
    return cast(Settings, Recorded(settings, read, sealed=sealed, name=f"{name}."))


def altered(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return recorded settings with other values under some (dotted) names; these are not noted."""
    found = cast(Recorded, settings)
    instead = {f"{found._name}{name}": value for name, value in values.items()}
    return cast(
        Settings, Recorded(found._settings, found._read, sealed=found._sealed, instead=instead, name=found._name)
    )


def stage_key(stage: Stage, made: Mapping[str, str], read: Mapping[str, Any], common: Mapping[str, Any]) -> str:
    """Return the key of a stage.

    Args:
        stage: The stage; all of it but its name.
        made: Adapter -> key of the stage that made it.
        read: What the stage reads of the settings, see `Recorded`.
        common: What the stages of a run share: base, seed, Trainer's own arguments.
    """

    def of(name: str | None) -> list[str] | None:
        return [name, made[name]] if name else None

    linked = {
        "weights": {name: [weight(m / MOMENTS) for m in range(MOMENTS + 1)] for name, weight in stage.weights.items()},
        "train": {name: of(start) for name, start in stage.train.items()},
        "below": [of(name) for name in stage.below],
        "combine": {name: [(of(p), w) for p, w in parts.items()] for name, parts in stage.combine.items()},
    }
    own = {item.name: getattr(stage, item.name) for item in dataclasses.fields(stage) if item.name != "name"}
    facts = {"stage": own | linked, "settings": read, "common": common}
    return key_of({**described(facts), "code": code_digest(), "libraries": library_versions()})


def described(value: Any) -> Any:
    """Return a value as plain data that tells it apart from every other: arrays by their hash, a loss by what it reads.

    >>> described({"b": (1, 2.5), "a": {"y", "x"}})
    {'b': [1, 2.5], 'a': ['x', 'y']}
    """
    if isinstance(value, Stream):
        return [value.name, value.fingerprint]
    if isinstance(value, torch.Tensor):
        return described(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        digest = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(value).tobytes())
        return [str(value.dtype), list(value.shape), digest]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: described(getattr(value, item.name)) for item in dataclasses.fields(value)}
        reads = [(read.key, read.rows, read.stream.fingerprint) for read in getattr(value, "reads", ())]
        return [f"{type(value).__module__}.{type(value).__qualname__}", fields, reads]
    if isinstance(value, Mapping):
        return {str(name): described(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((described(inner) for inner in value), key=repr)
    if isinstance(value, list | tuple):
        return [described(inner) for inner in value]
    if isinstance(value, Enum):
        return described(value.value)
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def few_rows(stage: Stage, count: int = 8) -> Stage:
    """Return the stage on at most `count` rows of every domain of its streams, or as many as a loss wants in a step."""
    from guidebook.training.stopping import on_streams

    streams: dict[str, Stream] = {}
    for loss in stage.losses.values():
        for read in loss.reads:
            streams[read.stream.name] = _few(read.stream, max(count, read.rows or 0))
    return on_streams(stage, streams)


def _few(stream: Stream, count: int) -> Stream:
    if len(stream.tokens) <= count:
        return stream
    rows = [np.flatnonzero(stream.owner == domain)[:count] for domain in range(len(stream.domains))]
    return stream.take(np.sort(np.concatenate(rows)))
