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
from guidebook.data.template import framed
from guidebook.data.tokens import Tokens, read_specials, tokenise, windows
from guidebook.data.words import word_rows
from guidebook.errors import InputError
from guidebook.tasks.heads import pool
from guidebook.training.listener import Listener
from guidebook.training.plan import Input, inputs_of, pad
from guidebook.training.tap import Tap
from guidebook.training.trainer import chosen_dtype

TOKENS_PER_BATCH = 8192
TOKENS_PER_BATCH_ON_GPU = 32768
"""There a batch of a small base takes as long as launching it, whatever is in it."""


@dataclass(frozen=True)
class Rows:
    """Texts ready to be predicted: one or more windows of tokens per text."""

    texts: Sequence[str]
    text_pairs: Sequence[str] | None
    tokens: Tokens
    """One item per window."""
    owner: np.ndarray
    """(W,) index of the text that a window belongs to."""
    places: np.ndarray | None = None
    """(K, 2) window and position of every word, for tasks that label words; then predictions are per word."""

    @property
    def items(self) -> int:
        """Number of predictions: one per text, or per word."""
        return len(self.texts) if self.places is None else len(self.places)

    @property
    def fingerprint(self) -> str:
        """Hash of the windows and whose they are."""
        return xxhash.xxh3_128_hexdigest(self.tokens.fingerprint.encode() + self.owner.astype(np.int64).tobytes())

    def joined(self) -> list[str]:
        """Return every text with its pair behind it; of a task on words, every word with its neighbours."""
        if self.places is not None:
            return [shown for text in self.texts for shown in _in_context(text.split(" "))]
        if self.text_pairs is None:
            return list(self.texts)
        return [f"{text}\n{pair}" for text, pair in zip(self.texts, self.text_pairs, strict=True)]


def input_of(host: Host) -> Input:
    """Return what the host's base wants to be fed."""
    takes_types = getattr(host.config, "type_vocab_size", 0) > 1
    kind = host.placement.kind
    start = getattr(host.config, "decoder_start_token_id", None) if kind == "seq2seq" else None
    if kind == "seq2seq" and start is None:
        raise InputError(f"{host.base_id} does not say what its decoder starts from: no decoder_start_token_id in it.")
    specials, model_type = read_specials(host.tokenizer), str(host.config.model_type)
    return Input(specials, kind == "causal", takes_types, model_type, decoder_start=start)


def make_rows(
    texts: Sequence[str],
    text_pairs: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    cache: Path | None = None,
    template: str | None = None,
) -> Rows:
    """Return texts cut into windows of at most `max_length` tokens, special tokens and a template's words included."""
    tokens = tokenise(texts, tokenizer, cache)
    pairs = tokenise(text_pairs, tokenizer, cache) if text_pairs is not None else None
    pieces, owner = windows(tokens, pairs, max_length, framed(read_specials(tokenizer), tokenizer, template))
    if len(empty := np.flatnonzero(pieces.lengths == 0)):
        raise InputError(f"text {int(owner[empty[0]]) + 1} is empty and this base has no special tokens. Leave it out.")
    return Rows(texts, text_pairs, pieces, owner)


def make_word_rows(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """Return texts of words in windows that cover every token once; predictions of such rows are per word."""
    made = word_rows(texts, tokenizer, max_length, read_specials(tokenizer))
    return Rows(texts, None, made.tokens, made.owner, made.places)


def _in_context(words: Sequence[str]) -> list[str]:
    framed = ["", *words, ""]
    return [
        f"{word} before_{left} after_{right}" for left, word, right in zip(framed[:-2], words, framed[2:], strict=True)
    ]


def _hidden(
    host: Host, rows: Rows, dtype: str, listener: Listener | None
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Yield window ids (B,), hidden states (B, T, H) and masks (B, T), longest windows first."""
    feed = input_of(host)
    device = next(host.model.parameters()).device
    lengths = rows.tokens.lengths
    order = np.argsort(-lengths, kind="stable")
    stream = Stream("prediction", rows.tokens, np.zeros(len(lengths), np.int64), ("prediction",), np.ones(1))
    nothing, listener = torch.zeros(0, dtype=torch.long, device=device), listener or Listener()
    listener.start("predict", len(lengths))
    size = TOKENS_PER_BATCH_ON_GPU if device.type == "cuda" else TOKENS_PER_BATCH
    start = 0
    with Tap(host.lm_head) as tap:
        while start < len(order):
            width = int(lengths[order[start]])
            chosen = order[start : start + max(1, size // width)]
            ids, mask = pad(stream, chosen, width, feed.specials.pad)
            inputs = {name: value.to(device) for name, value in inputs_of(ids, mask, feed).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=chosen_dtype(dtype) == "bfloat16"):
                hidden = tap.run(host.model, inputs, nothing).hidden
            yield chosen, hidden * host.hidden_scale if host.hidden_scale != 1.0 else hidden, mask.to(device)
            start += len(chosen)
            listener.advance("predict", start)
    listener.finish("predict")


def averaged(values: np.ndarray, rows: Rows) -> np.ndarray:
    """Return the mean over each text's windows, weighted by their tokens: (W, D) -> (N, D)."""
    weights = rows.tokens.lengths.astype(np.float64)
    total = np.zeros((len(rows.texts), values.shape[1]))
    np.add.at(total, rows.owner, values * weights[:, None])
    return total / np.bincount(rows.owner, weights, minlength=len(rows.texts))[:, None]


def _rest(model: nn.Module) -> None:
    """Put a model into evaluation mode; telling every module takes as long as some of them, so only where it trains."""
    if model.training:
        model.eval()


def predict_probabilities(
    host: Host, head: nn.Module, rows: Rows, dtype: str = "auto", listener: Listener | None = None
) -> np.ndarray:
    """Return class probabilities (N, C) of the host's active adapters and a head; long texts average their windows."""
    return _predicted(host, head, rows, (), dtype=dtype, listener=listener)[0]


def pooled_rows(
    host: Host, rows: Rows, pooling: str, dtype: str = "auto", listener: Listener | None = None
) -> np.ndarray:
    """Return pooled hidden rows (N, H) of the host's active adapters."""
    return pooled_in_ways(host, rows, (pooling,), dtype, listener)[0]


def pooled_in_ways(
    host: Host, rows: Rows, ways: Sequence[str], dtype: str = "auto", listener: Listener | None = None
) -> list[np.ndarray]:
    """Return hidden rows (N, H) of the host's active adapters, pooled in each of several ways in one pass."""
    return _predicted(host, None, rows, ways, dtype=dtype, listener=listener)


def predicted_and_pooled(
    host: Host, head: nn.Module, rows: Rows, pooling: str, *, dtype: str = "auto", listener: Listener | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities (N, C) and pooled hidden rows (N, H) in one pass."""
    probabilities, pooled = _predicted(host, head, rows, (pooling,), dtype=dtype, listener=listener)
    return probabilities, pooled


@torch.no_grad()
def _predicted(
    host: Host, head: nn.Module | None, rows: Rows, ways: Sequence[str], *, dtype: str, listener: Listener | None
) -> list[np.ndarray]:
    """Return what one pass gives: a head's probabilities (N, C), if there is one, then rows (N, H) pooled in ways."""
    _rest(host.model)
    device = next(host.model.parameters()).device
    head = None if head is None else head.to(device).eval()
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(len(ways) + (head is not None))]
    for chosen, hidden, mask in _hidden(host, rows, dtype, listener):
        values = [] if head is None else [head(hidden, mask).float().softmax(-1)]
        values += [(hidden if way == "tokens" else pool(hidden, mask, way)).float() for way in ways]
        for value, parts in zip(values, found, strict=True):
            parts.append((chosen, value.cpu().numpy().astype(np.float64)))
    return [_of_rows(parts, rows) for parts in found]


def _of_rows(found: list[tuple[np.ndarray, np.ndarray]], rows: Rows) -> np.ndarray:
    """Return values per text (N, D), or per word (K, D), from those of windows (B, D), or of tokens (B, T, D)."""
    if rows.places is None:
        return averaged(_in_order(found, len(rows.tokens)), rows)
    values = np.zeros((len(rows.places), found[0][1].shape[2]))
    order = np.argsort(rows.places[:, 0], kind="stable")
    bounds = np.searchsorted(rows.places[order, 0], np.arange(len(rows.tokens) + 1))
    for chosen, part in found:
        for place, window in enumerate(chosen):
            words = order[bounds[window] : bounds[window + 1]]
            values[words] = part[place, rows.places[words, 1]]
    return values


def _in_order(found: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    values = np.zeros((count, found[0][1].shape[1]))
    for chosen, part in found:
        values[chosen] = part
    return values
