"""Several processes that train one model, as torchrun or accelerate launch start them."""

from __future__ import annotations

import os

import torch
from torch import Tensor, distributed


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this is the process that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Meet the other processes, if there are any; must be called by all before anything else here."""
    if count() > 1 and not distributed.is_initialized():
        from accelerate import PartialState  # type: ignore[import-untyped]

        PartialState(cpu=not torch.cuda.is_available())


def wait() -> None:
    """Return when every process is here."""
    if count() > 1:
        distributed.barrier()


def agree(flag: bool) -> bool:
    """Return the first process's flag in every process: clocks differ, decisions must not."""
    return bool(of_first(float(flag)))


def of_first(value: float) -> float:
    """Return the first process's number in every process, so that what is decided by it is the same everywhere."""
    if count() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
    distributed.broadcast(shared, src=0)
    return float(shared.item())


def mean(values: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes."""
    if count() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / count()
