"""How long the steps of a training take, on a wall clock or in processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` is for machines that others use too: what this process spends, with one thread."""


class Clock(TrainerCallback):
    """Times every step of a Trainer; the first `warm_up` of them do not count.

    Attributes:
        steps: Of one training.
        tokens: Real tokens of every batch that was made, in order.
        seconds: Of every step, in order.
    """

    def __init__(self, now: Callable[[], float], steps: int, warm_up: int = 1) -> None:
        self.now, self.steps, self.warm_up = now, steps + warm_up, warm_up
        self.tokens: list[int] = []
        self.seconds: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Start."""
        self._last = self.now()
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Keep the time since the last step ended: making the batch and the optimiser are in it."""
        now = self.now()
        self.seconds.append(now - self._last)
        self._last = now
        return control

    @property
    def rate(self) -> float:
        """Real tokens per second over the steps that count."""
        counted = range(self.warm_up, len(self.seconds))
        return sum(self.tokens[step] for step in counted) / sum(self.seconds[step] for step in counted)
