"""What the kinds share: the layers and modules that a recipe's fields choose on a base, and checks of those fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from guidebook.adapters.modules import matched
from guidebook.adapters.placement import Placement, layers_to_use
from guidebook.errors import InputError


class Layered(Protocol):
    """A kind that sits in layers."""

    @property
    def layers(self) -> str | tuple[int, ...]:
        """Layers that get an adapter."""

    @property
    def modules(self) -> Mapping[str, str]:
        """Module names by hand."""


class Narrow(Protocol):
    """A kind with a bottleneck."""

    @property
    def reduction(self) -> float | None:
        """Hidden size divided by width."""

    @property
    def width(self) -> int | None:
        """Units of the bottleneck."""


def placed(kind: Layered, placement: Placement) -> Placement:
    """Return the placement with the modules that the kind names by hand."""
    return replace(placement, **kind.modules)  # type: ignore[arg-type]


def chosen(kind: Layered, model: Any, placement: Placement) -> Sequence[int] | None:
    """Return the indices of the layers that get an adapter, None for every layer.

    Raises:
        InputError: the layers or modules do not exist in the base.
    """
    indices = placed(kind, placement).indices(model)
    positions = layers_to_use(kind.layers, len(indices))
    return None if len(positions) == len(indices) else [indices[position] for position in positions]


def width_for(kind: Narrow, hidden: int) -> int:
    """Return the bottleneck's width for a base of that hidden size.

    Raises:
        InputError: neither width nor reduction is given, or one is below 1.
    """
    if kind.width is not None:
        check_range("width", kind.width, kind.width >= 1, "at least 1")
        return kind.width
    if kind.reduction is None:
        raise InputError("adapter: neither reduction nor width is given. Give one, for example reduction: 16.")
    check_range("reduction", kind.reduction, kind.reduction >= 1, "at least 1")
    return max(1, round(hidden / kind.reduction))


def require_modules(kind: str, model: Any, pattern: str, why: str) -> str:
    """Return the expression if the base has a module that matches it.

    Raises:
        InputError: it has none.
    """
    if next(matched(model, pattern), None) is None:
        raise InputError(f"The adapter kind {kind} does not fit {type(model).__name__}: {why}")
    return pattern


def check_range(name: str, value: float, holds: bool, expected: str) -> None:
    """Raise InputError if a field's value is out of its range."""
    if not holds:
        raise InputError(f"adapter.{name} is {value}, expected {expected}.")
