"""Training leaves the caller's random numbers alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def global_random_state_kept() -> Iterator[None]:
    """Give the caller's random states back afterwards: Trainer seeds Python, numpy and torch."""
    plain, numbers = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(numbers)
