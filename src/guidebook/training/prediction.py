"""Prediction: rows through the base with its adapters, longest first, long texts as averaged windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from guidebook.adapters.host import Host
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens, read_specials, tokenise, windows
from guidebook.errors import InputError
from guidebook.tasks.heads import pool
from guidebook.training.listener import Listener
from guidebook.training.plan import Input, inputs_of, pad
from guidebook.training.tap import Tap
from guidebook.training.trainer import chosen_dtype

TOKENS_PER_BATCH = 8192


@dataclass(frozen=True)
class Rows:
    """Texts ready to be predicted: one or more windows of tokens per text."""

    texts: Sequence[str]
    text_pairs: Sequence[str] | None
    tokens: Tokens
    """One item per window."""
    owner: np.ndarray
    """(W,) index of the text that a window belongs to."""

    @property
    def fingerprint(self) -> str:
        """Hash of the windows and whose they are."""
        return xxhash.xxh3_128_hexdigest(self.tokens.fingerprint.encode() + self.owner.astype(np.int64).tobytes())

    def joined(self) -> list[str]:
        """Return every text with its pair behind it."""
        if self.text_pairs is None:
            return list(self.texts)
        return [f"{text}\n{pair}" for text, pair in zip(self.texts, self.text_pairs, strict=True)]


def input_of(host: Host) -> Input:
    """Return what the host's base wants to be fed."""
    takes_types = getattr(host.config, "type_vocab_size", 0) > 1
    return Input(read_specials(host.tokenizer), host.placement.kind == "causal", takes_types)


def make_rows(
    texts: Sequence[str],
    text_pairs: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    cache: Path | None = None,
) -> Rows:
    """Return texts cut into windows of at most `max_length` tokens, special tokens included."""
    tokens = tokenise(texts, tokenizer, cache)
    pairs = tokenise(text_pairs, tokenizer, cache) if text_pairs is not None else None
    pieces, owner = windows(tokens, pairs, max_length, read_specials(tokenizer))
    if len(empty := np.flatnonzero(pieces.lengths == 0)):
        raise InputError(f"text {int(owner[empty[0]]) + 1} is empty and this base has no special tokens. Leave it out.")
    return Rows(texts, text_pairs, pieces, owner)


def _hidden(
    host: Host, rows: Rows, dtype: str, listener: Listener | None
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Yield window ids (B,), hidden states (B, T, H) and masks (B, T), longest windows first."""
    feed = input_of(host)
    device = next(host.model.parameters()).device
    lengths = rows.tokens.lengths
    order = np.argsort(-lengths, kind="stable")
    stream = Stream("prediction", rows.tokens, np.zeros(len(lengths), np.int64), ("prediction",), np.ones(1))
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    start = 0
    with Tap(host.lm_head) as tap:
        while start < len(order):
            width = int(lengths[order[start]])
            chosen = order[start : start + max(1, TOKENS_PER_BATCH // width)]
            ids, mask = pad(stream, chosen, width, feed.specials.pad)
            inputs = {name: value.to(device) for name, value in inputs_of(ids, mask, feed).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=chosen_dtype(dtype) == "bfloat16"):
                hidden = tap.run(host.model, inputs, nothing).hidden
            yield chosen, hidden, mask.to(device)
            start += len(chosen)
            if listener is not None:
                listener.advance("predict", start)


def _averaged(values: np.ndarray, rows: Rows) -> np.ndarray:
    """Return the mean over each text's windows, weighted by their tokens: (W, D) -> (N, D)."""
    weights = rows.tokens.lengths.astype(np.float64)
    total = np.zeros((len(rows.texts), values.shape[1]))
    np.add.at(total, rows.owner, values * weights[:, None])
    return total / np.bincount(rows.owner, weights, minlength=len(rows.texts))[:, None]


@torch.no_grad()
def predict_probabilities(
    host: Host, head: nn.Module, rows: Rows, dtype: str = "auto", listener: Listener | None = None
) -> np.ndarray:
    """Return class probabilities (N, C) of the host's active adapters and a head; long texts average their windows."""
    host.model.eval()
    head.eval()
    found: list[tuple[np.ndarray, np.ndarray]] = []
    if listener is not None:
        listener.start("predict", len(rows.tokens))
    for chosen, hidden, mask in _hidden(host, rows, dtype, listener):
        probabilities = head(hidden, mask).float().softmax(-1)
        found.append((chosen, probabilities.cpu().numpy().astype(np.float64)))
    if listener is not None:
        listener.finish("predict")
    return _averaged(_in_order(found, len(rows.tokens)), rows)


@torch.no_grad()
def pooled_rows(host: Host, rows: Rows, pooling: str, dtype: str = "auto") -> np.ndarray:
    """Return pooled hidden rows (N, H) of the host's active adapters."""
    host.model.eval()
    found = [
        (chosen, pool(hidden, mask, pooling).float().cpu().numpy().astype(np.float64))
        for chosen, hidden, mask in _hidden(host, rows, dtype, None)
    ]
    return _averaged(_in_order(found, len(rows.tokens)), rows)


def _in_order(found: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    values = np.zeros((count, found[0][1].shape[1]))
    for chosen, part in found:
        values[chosen] = part
    return values
