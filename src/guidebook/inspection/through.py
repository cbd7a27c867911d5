"""Domains through the eyes of a base: tokens a word, language-modelling loss, and distance of pooled rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guidebook.adapters.host import Host
from guidebook.data.tokens import tokenise
from guidebook.evaluation.forgetting import has_language_loss, language_loss
from guidebook.evaluation.seen import Floats
from guidebook.training.prediction import make_rows, pooled_rows

ROWS = 128
LM_ROWS = 64
LENGTH = 128


def fertility(host: Host, texts: Sequence[str]) -> float:
    """Return how many tokens of the base's tokenizer a white-space word has in the mean."""
    return float(len(tokenise(texts, host.tokenizer).ids)) / max(sum(len(text.split()) for text in texts), 1)


def loss_on(host: Host, texts: Sequence[str], seed: int = 0) -> float | None:
    """Return the untouched base's language-modelling loss on a sample of texts, nats per predicted token.

    None for a base that cannot be asked for one.
    """
    if not has_language_loss(host):
        return None
    with host.disabled():
        return language_loss(host, texts, length=_length(host), rows=LM_ROWS, seed=seed)


def rows_of(host: Host, texts: Sequence[str], seed: int = 0) -> Floats:
    """Return pooled rows (n, H) of the untouched base for a sample of texts."""
    chosen = np.random.default_rng(seed).permutation(len(texts))[:ROWS]
    sample = make_rows([texts[row] for row in chosen], None, host.tokenizer, _length(host))
    with host.disabled():
        return pooled_rows(host, sample, host.placement.pooling)


def _length(host: Host) -> int:
    return min(LENGTH, host.positions or LENGTH)
