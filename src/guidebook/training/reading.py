"""How well a base with its active adapters reads text: the log-probability of every token it has to guess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from guidebook.adapters.host import Host
from guidebook.data.masking import mask_tokens
from guidebook.data.streams import Stream, seed_for
from guidebook.data.tokens import Tokens
from guidebook.training.head import finish_for, losses_at
from guidebook.training.listener import Listener
from guidebook.training.plan import inputs_of, next_tokens, pad
from guidebook.training.prediction import TOKENS_PER_BATCH, input_of
from guidebook.training.trainer import chosen_dtype


@dataclass(frozen=True)
class Reading:
    """Tokens that were guessed, in the order of the text pieces, and how probable they seemed."""

    tokens: np.ndarray
    """(M,) ids of what really stood there."""
    followers: np.ndarray
    """(M,) ids of the tokens after them; -1 at the end of a piece."""
    log_probabilities: np.ndarray
    """(M,) natural logarithms."""

    @property
    def loss(self) -> float:
        """The language-modelling loss in nats per token."""
        return float(-self.log_probabilities.mean())


@torch.no_grad()
def read_text(
    host: Host,
    pieces: Tokens,
    *,
    rate: float = 0.15,
    seed: int = 0,
    dtype: str = "auto",
    listener: Listener | None = None,
) -> Reading:
    """Return how the host's active adapters read pieces of text that carry their special tokens.

    A masked base guesses a share `rate` of the tokens, masked as in training; a causal one every next token. Which
    tokens are guessed follows from the seed and the pieces alone, so two readings of the same pieces are paired.

    Args:
        host: The base with what is active on it.
        pieces: Rows of tokens, special tokens included.
        rate: Share of the tokens that a masked base guesses.
        seed: Draws the masks.
        dtype: As the recipe's `train.dtype`.
        listener: Hears of the progress.
    """
    host.model.eval()
    listener = listener or Listener()
    feed, device = input_of(host), next(host.model.parameters()).device
    stream = Stream("reading", pieces, np.zeros(len(pieces), np.int64), ("reading",), np.ones(1))
    width = max(int(pieces.lengths.max()), 1)
    size = max(1, TOKENS_PER_BATCH // width)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    finish = finish_for(host)
    listener.start("read text", len(pieces))
    for start in range(0, len(pieces), size):
        ids, mask = pad(stream, np.arange(start, min(start + size, len(pieces))), width, feed.specials.pad)
        if feed.causal:
            read, (places, targets) = ids, next_tokens(ids, mask, first=0)
            after = places + 1
        else:
            generator = torch.Generator().manual_seed(seed_for(seed, "reading", str(start)))
            read, places, targets = mask_tokens(ids, mask, feed.specials, rate=rate, generator=generator)
            after = places
        inputs = {name: value.to(device) for name, value in inputs_of(read, mask, feed).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=chosen_dtype(dtype) == "bfloat16"):
            losses = losses_at(host, inputs, places.to(device), targets.to(device), finish)  # (M,)
        follow = torch.cat([torch.where(mask, ids, -1), torch.full((len(ids), 1), -1)], 1)  # (B, T + 1)
        row, column = after // width, after % width
        found.append((targets.numpy(), follow[row, column + 1].numpy(), -losses.double().cpu().numpy()))
        listener.advance("read text", min(start + size, len(pieces)))
    listener.finish("read text")
    tokens, followers, log_probabilities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Reading(tokens, followers, log_probabilities)
