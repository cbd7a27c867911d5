"""Schedules: weights as functions of the fraction of a stage's steps that are done, 0..1."""

from __future__ import annotations

import math


def ramp(fraction: float, gamma: float = 10.0) -> float:
    """Return 2 / (1 + exp(-gamma p)) - 1: 0 at the start, near 1 from the middle on.

    Reference: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, JMLR 17, section 5.2.2.

    >>> [round(ramp(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.462, 0.987, 1.0]
    """
    return 2 / (1 + math.exp(-gamma * fraction)) - 1


def ramp_by_batch_size(
    fraction: float, *, epochs: int = 20, batches_per_epoch: int = 2175, batch_size: int = 32
) -> float:
    """Return the ramp that one gets by counting an epoch as `batch_size` batches instead of `batches_per_epoch`.

    Inside an epoch p grows by 1 / (epochs * batch_size) per batch, so that it is through after a small part of the
    first epoch; at every further epoch it falls back to epoch / epochs. The defaults are about the sizes of one genre
    of MNLI, where 1 - ramp is below 0.1 after some 190 of 43,500 batches.

    Reference: Malik et al. 2023, UDApter: Efficient Domain Adaptation Using Adapters, EACL (its released code).

    >>> round(1 - ramp_by_batch_size(190 / 43500), 2), round(1 - ramp(190 / 43500), 2)
    (0.1, 0.98)
    """
    epoch, batch = divmod(fraction * epochs * batches_per_epoch, batches_per_epoch)
    return ramp((batch + epoch * batch_size) / (epochs * batch_size))
