"""Hidden spans of a batch, for encoder-decoder bases: what the encoder reads and what the decoder has to write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from guidebook.data.tokens import Specials, require_mask

SPAN = 3.0
"""Mean length of a hidden span, in tokens (Raffel et al.; the same mean in Lewis et al.)."""


def hide_spans(
    ids: Tensor, attention: Tensor, specials: Specials, rate: float, *, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the encoder reads (B, T), its mask, what the decoder has to write (B, D), and the mask of that.

    A tokenizer with sentinels is one of T5's style: every span gives way to a sentinel of its own, and the answer is
    each sentinel followed by its span, a last sentinel, and the tokens that end every text. Any other has a mask token,
    as BART's: every span gives way to one mask, and the answer is the whole row.

    Args:
        ids: (B, T) token ids, padded on the right.
        attention: (B, T) True where there is text.
        specials: The tokenizer's special tokens; they are never hidden.
        rate: Share of the tokens to hide, in (0, 1].
        generator: All randomness comes from it.

    Raises:
        InputError: the tokenizer has neither sentinels nor a mask token.

    Reference:
        Raffel et al. 2020, T5, section 3.1.4; Lewis et al. 2020, BART, section 2.2 (text infilling).

    Differs:
        BART's spans may be empty and its sentences are shuffled: here neither. Both use `train.fuse.mask_rate`, where
        BART hides 30 %.
    """
    if not specials.sentinels:
        require_mask(specials)
    read, write = [], []
    for row, seen in zip(ids.numpy(), attention.bool().numpy(), strict=True):
        tokens = row[seen]
        hidden = choose_spans(~np.isin(tokens, list(specials.ids)), rate, len(specials.sentinels), generator)
        source, answer = (
            _with_sentinels(tokens, hidden, specials)
            if specials.sentinels
            else _infilling(tokens, hidden, require_mask(specials))
        )
        read.append(source)
        write.append(answer)
    return (*_padded(read, specials.pad), *_padded(write, specials.pad))


def choose_spans(
    allowed: np.ndarray, rate: float, sentinels: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Return disjoint spans [start, stop) of the allowed places (T,), with at least one place between two.

    Lengths of spans, and of what lies between, are all equally likely among those that hide `rate` of the places in
    spans of SPAN places on average. Spans never reach over a place that is not allowed: they are cut there. With
    `sentinels`, there are fewer spans than sentinels.
    """
    places = np.flatnonzero(allowed)
    count = len(places)
    if not count:
        return []
    hidden = min(count, max(1, round(rate * count)))
    spans = max(1, min(round(hidden / SPAN), count - hidden + 1))
    lengths = _split(hidden - spans, spans, generator) + 1
    between = _split(count - hidden - (spans - 1), spans + 1, generator)
    between[1:-1] += 1
    starts = np.cumsum(between[:-1] + np.concatenate([[0], lengths[:-1]]))
    found = []
    for start, length in zip(starts, lengths, strict=True):
        chosen = places[start : start + length]
        cuts = np.flatnonzero(np.diff(chosen) > 1) + 1
        found += [(int(part[0]), int(part[-1]) + 1) for part in np.split(chosen, cuts)]
    return found[: sentinels - 1] if sentinels else found


def _split(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """Return `parts` numbers from 0 on with the given sum, every such list equally likely (stars and bars)."""
    bars = np.sort(generator.choice(total + parts - 1, parts - 1, replace=False))
    return np.diff(np.concatenate([[-1], bars, [total + parts - 1]])) - 1


def _with_sentinels(
    tokens: np.ndarray, hidden: Sequence[tuple[int, int]], specials: Specials
) -> tuple[np.ndarray, np.ndarray]:
    read, write, end = [], [], 0
    for sentinel, (start, stop) in zip(specials.sentinels, hidden, strict=False):
        read += [*tokens[end:start], sentinel]
        write += [sentinel, *tokens[start:stop]]
        end = stop
    read += [*tokens[end:]]
    return np.array(read), np.array([*write, specials.sentinels[len(hidden)], *specials.after])


def _infilling(tokens: np.ndarray, hidden: Sequence[tuple[int, int]], mask: int) -> tuple[np.ndarray, np.ndarray]:
    read, end = [], 0
    for start, stop in hidden:
        read += [*tokens[end:start], mask]
        end = stop
    return np.array([*read, *tokens[end:]]), tokens


def _padded(rows: Sequence[np.ndarray], fill: int) -> tuple[Tensor, Tensor]:
    """Return rows of several lengths as one array (B, T), and its mask."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), fill, np.int64)
    mask = np.zeros((len(rows), width), bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, True
    return torch.from_numpy(ids), torch.from_numpy(mask)
