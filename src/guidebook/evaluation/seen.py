"""What a model says of rows of one domain: all that validators and estimates read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guidebook.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """A sample of N rows of a domain, as one model sees them. Labels are only ever those of the source."""

    probabilities: Floats
    """(N, C), rows sum to 1."""
    labels: Ints | None = None
    """(N,) class ids of held-out source rows."""
    rows: Floats | None = None
    """(M, H) pooled rows of the frozen base: of the source the same N rows, of a target any sample."""
    total: int | None = None
    """Rows that the domain has for training, of which these may be a sample."""
    lm_loss: float | None = None
    """The model's language-modelling loss on texts of the domain, in nats per predicted token."""
    candidates: Floats | None = None
    """(K, N, C) probabilities of all the models there are to choose from, this one among them."""
    seeds: Floats | None = None
    """(K, N, C) probabilities of the same method trained with other seeds."""

    def __post_init__(self) -> None:
        shape = np.shape(self.probabilities)
        if len(shape) != 2 or shape[0] == 0 or shape[1] < 2:
            raise InputError(f"Label-free scores need probabilities (N, C) of at least one row, found {shape}.")
        if self.labels is not None and len(self.labels) != shape[0]:
            raise InputError(f"{len(self.labels)} labels for {shape[0]} rows of probabilities. Give one per row.")
        for name, value in (("candidates", self.candidates), ("seeds", self.seeds)):
            if value is not None and value.shape[1:] != shape:
                raise InputError(f"{name} are {value.shape}, expected (K, {shape[0]}, {shape[1]}): the same rows.")


def has(source: Seen, target: Seen, needs: tuple[str, ...]) -> bool:
    """Whether what a score needs is there; needs are written as "source.labels".

    >>> sure = Seen(np.eye(2))
    >>> has(sure, sure, ("source.labels",)), has(sure, sure, ())
    (False, True)
    """
    sides = {"source": source, "target": target}
    return all(getattr(sides[side], name) is not None for side, _, name in (need.partition(".") for need in needs))


def needed(value: Any, what: str) -> Any:
    """Return the value of a field that a score needs.

    Raises:
        InputError: it is not there.
    """
    if value is None:
        raise InputError(f"This score needs {what}, and there are none. Give them, or leave the score out.")
    return value


def entropies(probabilities: Floats) -> Floats:
    """(..., C) -> (...) entropies in nats; 0 log 0 is 0."""
    safe = np.where(probabilities > 0, probabilities, 1.0)
    return np.asarray(-(probabilities * np.log(safe)).sum(-1))


def row_losses(probabilities: Floats, labels: Ints) -> Floats:
    """(N, C), (N,) -> (N,) negative log-likelihoods in nats; a probability of 0 counts as 1e-12."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)))
