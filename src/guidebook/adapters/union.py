"""Unions: one adapter of several kinds, each in its own modules of the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from guidebook.errors import InputError


@dataclass(frozen=True)
class Union:
    """Several kinds as one adapter: they move together, and are stored side by side as `<adapter>/<kind>/`.

    >>> from guidebook.adapters.presets import Houlsby
    >>> from guidebook.adapters.invertible import Invertible
    >>> Union((Invertible(), Houlsby())).kind
    'houlsby+invertible'
    """

    parts: tuple[Any, ...]
    """The kinds."""

    def __post_init__(self) -> None:
        names = [part.kind for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names) or "full" in names:
            raise InputError(
                f"adapter: {names} is no union. List two or more kinds, each once, and not full: "
                "adapter: [invertible, lora]."
            )

    @property
    def kind(self) -> str:
        """The parts' kinds in the order of the alphabet, with a plus between them."""
        return joined(part.kind for part in self.parts)

    @property
    def learning_rate(self) -> float:
        """The smallest of the parts' own."""
        return min(float(part.learning_rate) for part in self.parts)

    @property
    def modules(self) -> Mapping[str, str]:
        """Module names that a part gives by hand."""
        return {name: pattern for part in self.parts for name, pattern in part.modules.items()}


def parts_of(kind: Any) -> tuple[Any, ...]:
    """Return the kinds of a union, or the kind alone."""
    return kind.parts if isinstance(kind, Union) else (kind,)


def kind_name(adapter: Any) -> str:
    """Return the kind of an adapter as a recipe writes it in plain data: a mapping, or a list of them for a union."""
    return joined(str(part["kind"]) for part in ([adapter] if isinstance(adapter, Mapping) else adapter))


def joined(kinds: Iterable[str]) -> str:
    """Return the name of a union of kinds; whoever lists them in another order means the same.

    >>> joined(["lora", "invertible"])
    'invertible+lora'
    """
    return "+".join(sorted(kinds))
