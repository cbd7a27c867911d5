"""Settings that tasks with a head share, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from guidebook.errors import InputError, nearest

HeadKind = Literal["linear", "two_layer"]


class HeadSettings(Protocol):
    """What a task says of its rows and its head."""

    @property
    def kind(self) -> str:
        """Name of the task."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""

    @property
    def max_length(self) -> int:
        """Tokens of a row."""

    @property
    def head(self) -> str:
        """Kind of the head."""

    @property
    def dropout(self) -> float:
        """Dropout probability of the head."""

    @property
    def dev(self) -> float:
        """Share of the source rows that is held out."""


def check_settings(task: HeadSettings, kind: str) -> None:
    """Raise InputError for a setting outside its range, or a name that is not one of those offered."""
    check_choice("kind", task.kind, (kind,))
    check_choice("head", task.head, get_args(HeadKind))
    if task.labels is not None:
        _check_labels(task.labels)
    if task.max_length < 4:
        raise InputError(f"task.max_length is {task.max_length}, expected at least 4 tokens. 128 is the default.")
    if not 0 <= task.dropout < 1:
        raise InputError(f"task.dropout is {task.dropout}, expected 0 <= dropout < 1. 0.1 is the default.")
    if not 0 <= task.dev < 1:
        raise InputError(f"task.dev is {task.dev}, expected 0 <= dev < 1. 0.2 is the default.")


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise InputError if a value is not one of those known."""
    if value not in known:
        raise InputError(f"task.{name} is {value!r}, expected one of {list(known)}.{nearest(value, known)}")


def _check_labels(labels: tuple[str, ...]) -> None:
    if isinstance(labels, str):
        raise InputError(f"task.labels is the text {labels!r}, expected a list: [negative, positive].")
    if len(labels) < 2 or len(set(labels)) != len(labels):
        quote = " YAML reads 1.10 as the number 1.1: quote such names." if any("." in name for name in labels) else ""
        raise InputError(f"task.labels is {list(labels)}, expected two or more different names. Name each once.{quote}")
