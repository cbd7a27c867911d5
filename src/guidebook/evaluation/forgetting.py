"""What a base has lost where its adapters are active: language modelling, predictions and representations.

Base and adapted model read the same general text under the same masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guidebook.adapters.host import Host
from guidebook.data.masking import mask_tokens
from guidebook.data.streams import Stream, seed_for
from guidebook.data.tokens import chunk, tokenise
from guidebook.errors import InputError
from guidebook.evaluation.seen import Floats
from guidebook.evaluation.similarity import LEAST_ROWS, cka
from guidebook.evaluation.statistics import Interval, resampled_means
from guidebook.tasks.heads import pool
from guidebook.training.head import finish_for, losses_at
from guidebook.training.plan import inputs_of, next_tokens, pad
from guidebook.training.prediction import input_of
from guidebook.training.tap import Tap, Tapped

ROWS_AT_ONCE = 16
MASK_RATE = 0.15


@dataclass(frozen=True, eq=False)
class Forgetting:
    """How far the active adapters have moved a base on one text."""

    rows: int
    """Pieces of text that were read."""
    base_loss: float
    """Language-modelling loss of the base, nats per predicted token."""
    adapted_loss: float
    """The same with the adapters active."""
    increase: Interval
    """Adapted less base, mean over pieces of text, 95 % from a bootstrap over them; above 0 something was forgotten."""
    divergence: float
    """Mean Kullback-Leibler divergence from the base's predictions to the adapted ones, nats per predicted token."""
    alignment: tuple[float, ...]
    """CKA of mean-pooled states with the base's, 1 at most, one per layer, embeddings first."""


@dataclass(frozen=True)
class _Batch:
    inputs: dict[str, Tensor]
    mask: Tensor
    """(B, T)"""
    positions: Tensor
    """(M,) flat."""
    targets: Tensor
    """(M,)"""

    def per_row(self, values: Tensor) -> Floats:
        """(M,) -> (B,) means over each row's predicted positions; NaN where it has none."""
        owner = (self.positions // self.mask.shape[1]).cpu()
        total = torch.zeros(len(self.mask), dtype=torch.float64).index_add_(0, owner, values.double().cpu())
        return np.asarray((total / torch.bincount(owner, minlength=len(self.mask))).numpy())


def has_language_loss(host: Host) -> bool:
    """Return whether a base can be asked for its language-modelling loss on plain text.

    An encoder-decoder learns spans, and an encoder whose tokenizer has no mask token was not trained by masking.
    """
    kind = host.placement.kind
    return kind == "causal" or (kind == "masked" and host.tokenizer.mask_token_id is not None)


@torch.no_grad()
def language_loss(host: Host, texts: Sequence[str], *, length: int = 128, rows: int = 128, seed: int = 0) -> float:
    """Return the language-modelling loss of the host's active adapters on texts, nats per predicted token.

    Masked models predict 15 % of the tokens, causal ones every next token; the masks are the same for every model on
    the same base.

    Args:
        host: The base with what is active on it.
        texts: Any texts; long ones are cut into pieces.
        length: Longest piece in tokens.
        rows: Read at most so many pieces, drawn by the seed.
        seed: Draws pieces and masks.
    """
    host.model.eval()
    total, count = 0.0, 0
    finish = finish_for(host)
    for batch in _batches(host, texts, length, (rows, seed)):
        total += float(losses_at(host, batch.inputs, batch.positions, batch.targets, finish).sum())
        count += len(batch.targets)
    return total / max(count, 1)


@torch.no_grad()
def forgetting(host: Host, texts: Sequence[str], *, length: int = 128, rows: int = 256, seed: int = 0) -> Forgetting:
    """Return how the host's active adapters change the base on texts; arguments as in `language_loss`.

    Reference:
        Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, for the alignment of layers.

    Raises:
        InputError: the texts give fewer than four pieces with something to predict.
    """
    host.model.eval()
    losses: list[tuple[Floats, Floats]] = []
    sums = np.zeros(3)  # base loss, adapted loss, divergence
    count = 0
    states: tuple[list[list[Floats]], list[list[Floats]]] = ([], [])
    with Tap(host.lm_head) as tap:
        for batch in _batches(host, texts, length, (rows, seed)):
            with host.disabled():
                before = tap.run(host.model, batch.inputs, batch.positions, layers=True)
            after = tap.run(host.model, batch.inputs, batch.positions, layers=True)
            base, adapted = before.logits.float().log_softmax(-1), after.logits.float().log_softmax(-1)  # (M, V)
            each = [-logs.gather(1, batch.targets[:, None]).squeeze(1) for logs in (base, adapted)]  # (M,)
            apart = (base.exp() * (base - adapted)).sum(-1)  # (M, V) -> (M,)
            losses.append((batch.per_row(each[0]), batch.per_row(each[1])))
            sums += [float(values.sum()) for values in (*each, apart)]
            count += len(batch.targets)
            for kept, found in zip(states, (before, after), strict=True):
                kept.append(_pooled(found, batch.mask))
    increases = np.concatenate([after - before for before, after in losses]) if losses else np.zeros(0)
    increases = increases[np.isfinite(increases)]
    if len(increases) < LEAST_ROWS:
        raise InputError(f"The general text gives fewer than {LEAST_ROWS} pieces to predict. Give more text.")
    means = resampled_means(increases, 2000, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    layers = [[np.concatenate(part) for part in zip(*side, strict=True)] for side in states]
    return Forgetting(
        rows=len(increases),
        base_loss=float(sums[0] / count),
        adapted_loss=float(sums[1] / count),
        increase=Interval(float(increases.mean()), float(low), float(high)),
        divergence=float(sums[2] / count),
        alignment=tuple(cka(first, second) for first, second in zip(*layers, strict=True)),
    )


def _pooled(found: Tapped, mask: Tensor) -> list[Floats]:
    return [pool(state, mask, "mean").double().cpu().numpy() for state in found.states]


def _batches(host: Host, texts: Sequence[str], length: int, drawn: tuple[int, int]) -> Iterator[_Batch]:
    """Yield pieces of the texts with what is to be predicted in them: a function of texts, base and seed alone."""
    most, seed = drawn
    feed = input_of(host)
    pieces = chunk(tokenise(texts, host.tokenizer), length, feed.specials.opening if feed.causal else feed.specials)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pieces))[:most])
    order = chosen[np.argsort(pieces.lengths[chosen], kind="stable")]
    stream = Stream("general", pieces, np.zeros(len(pieces), np.int64), ("general",), np.ones(1))
    device = next(host.model.parameters()).device
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        ids, mask = pad(stream, rows, int(pieces.lengths[rows].max()), feed.specials.pad)
        if feed.causal:
            positions, targets = next_tokens(ids, mask, first=0)
        else:
            generator = torch.Generator().manual_seed(seed_for(seed, "general", start))
            ids, positions, targets = mask_tokens(ids, mask, feed.specials, MASK_RATE, generator=generator)
        inputs = {name: value.to(device) for name, value in inputs_of(ids, mask, feed).items()}
        yield _Batch(inputs, mask.to(device), positions.to(device), targets.to(device))
