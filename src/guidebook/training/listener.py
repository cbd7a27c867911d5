"""A listener: what a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Listener:
    """Hears of a run's progress and does nothing; the command line draws it.

    Names of what is going on (`name`) are unique among what is open at the same time.

    >>> Listener().note("nobody hears this")
    """

    def note(self, text: str) -> None:
        """Hear one thing worth a line: what was chosen, changed or reused."""

    def announce(self, estimate: Mapping[str, Any]) -> None:
        """Hear what the run will do before it starts: stages, tokens, seconds, parameters, memory."""

    def start(self, name: str, total: float | None) -> None:
        """Hear that something begins; `total` is its length in its own unit, None if nobody knows."""

    def advance(self, name: str, done: float, **figures: float) -> None:
        """Hear that `done` of the total lies behind; figures such as tokens_per_second and losses by name."""

    def finish(self, name: str, **figures: float) -> None:
        """Hear that it ended; figures as in `advance`."""
