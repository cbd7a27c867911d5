"""Rows of a causal model side by side in bins of one width, so that nothing is padding and nothing is dropped."""

from __future__ import annotations

import numpy as np

from guidebook.data.batches import Plan, draw
from guidebook.errors import InputError


def plan_packed(
    lengths: np.ndarray,
    owner: np.ndarray,
    ratios: np.ndarray,
    tokens: int,
    *,
    width: int,
    tokens_per_batch: int,
    seed: int,
    pool: int = 2048,
) -> Plan:
    """Return batches until `tokens` real tokens are planned, each domain with its share, rows in the order of bins.

    The rows are those of `plan_tokens`; pools of them are packed into bins of `width` tokens by the best fit, and a
    batch holds `tokens_per_batch // width` bins, but for the last one of a pool, which shares with the one before it.

    Args:
        lengths: (N,) tokens of each row.
        owner: (N,) domain of each row.
        ratios: (D,) share of the tokens of each domain.
        tokens: Real tokens to plan.
        width: Tokens of a bin.
        tokens_per_batch: Bins times width of a batch is at most this.
        seed: Decides the order.
        pool: Rows that are packed together.

    Raises:
        InputError: a row is longer than a bin, or a bin than a batch.
    """
    longest = int(np.max(lengths, initial=0))
    if longest > width or width > tokens_per_batch:
        raise InputError(
            f"rows of {longest} tokens in bins of {width} do not fit into batches of {tokens_per_batch}. Raise "
            "train.tokens_per_batch, or lower train.max_length."
        )
    rows = draw(lengths, owner, ratios, tokens, seed)
    rng = np.random.default_rng((seed, len(ratios), 2))
    per_batch = tokens_per_batch // width
    plan: Plan = []
    for start in range(0, len(rows), pool):
        bins = best_fit(rows[start : start + pool], lengths, width, rng)
        number = max(1, round(len(bins) / per_batch)) if len(bins) > per_batch else 1
        number = max(number, -(-len(bins) // per_batch))
        for part in np.array_split(np.arange(len(bins)), number):
            plan.append(np.concatenate([bins[index] for index in part]))
    return plan


def best_fit(rows: np.ndarray, lengths: np.ndarray, width: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return rows in bins of at most `width` tokens, longest first into the fullest bin that takes them; bins shuffled.

    Reference:
        Johnson et al. 1974, Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms (best-fit
        decreasing uses at most 11/9 of the fewest bins possible, and 4 more).
    """
    shuffled = rows[rng.permutation(len(rows))]
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(width + 1)]  # room left -> bins
    for row in order.tolist():
        size = int(lengths[row])
        room = next((left for left in range(size, width + 1) if with_room[left]), None)
        if room is None:
            bins.append([])
            place, room = len(bins) - 1, width
        else:
            place = with_room[room].pop()
        bins[place].append(row)
        with_room[room - size].append(place)
    return [np.array(bins[index]) for index in rng.permutation(len(bins))]


def fill(lengths: np.ndarray, width: int) -> np.ndarray:
    """Return the bin of every row (n,) when rows are put into bins in their order, each as long as there is room.

    Of rows that stand in the order of their bins this makes those bins, or fewer.

    >>> fill(np.array([3, 2, 4, 1, 5]), 5).tolist()
    [0, 0, 1, 1, 2]
    """
    found = np.zeros(len(lengths), np.int64)
    place, used = 0, 0
    for index, size in enumerate(lengths.tolist()):
        if used and used + size > width:
            place, used = place + 1, 0
        found[index], used = place, used + size
    return found
