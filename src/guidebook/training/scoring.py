"""How surprised a causal model is by every token of whole documents, whatever their length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guidebook.adapters.host import Host
from guidebook.data.tokens import Tokens
from guidebook.errors import InputError
from guidebook.training.head import finish_for, losses_at
from guidebook.training.listener import Listener
from guidebook.training.trainer import chosen_dtype

TOKENS_PER_BATCH = 8192
SEEN_BEFORE = 0.5
"""Share of a window that only gives context to the rest of it, from the second window of a document on."""


def start_token(host: Host) -> int:
    """Return the token that stands before a document: the beginning-of-text token, else the one that ends texts.

    Raises:
        InputError: the tokenizer has neither.
    """
    tokenizer = host.tokenizer
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise InputError(
            f"The tokenizer of {host.base_id} has no token that ends a text, so a model could not learn where one "
            "ends. Set its eos_token and save it beside the base."
        )
    return int(found)


def windows_over(lengths: np.ndarray, width: int) -> np.ndarray:
    """Return windows (W, 4) over documents of `lengths` tokens: document, first input, first and last + 1 prediction.

    Input 0 of a document is the start token and input i its token i - 1, so input i predicts token i. Every token is
    predicted once; but in a document's first window, at least half a window stands before what is predicted.

    >>> windows_over(np.array([3, 9]), 4).tolist()
    [[0, 0, 0, 3], [1, 0, 0, 4], [1, 2, 4, 6], [1, 4, 6, 8], [1, 6, 8, 9]]
    """
    context = int(width * SEEN_BEFORE)
    found = []
    for document, length in enumerate(lengths.tolist()):
        begin, done = 0, 0
        while done < length:
            end = min(begin + width, length)
            found.append((document, begin, done, end))
            done, begin = end, end - context
    return np.array(found, dtype=np.int64).reshape(-1, 4)


@torch.no_grad()
def token_nats(
    host: Host, tokens: Tokens, width: int, dtype: str = "auto", listener: Listener | None = None
) -> np.ndarray:
    """Return the cross-entropy in nats of every token of documents, (total,) float32, by the host's active adapters.

    Args:
        host: A causal base with its adapters.
        tokens: Documents without special tokens.
        width: Inputs of a window; the base must have so many positions.
        dtype: As in a recipe's train.dtype.
        listener: Hears of the progress.
    """
    host.model.eval()
    device, start = next(host.model.parameters()).device, start_token(host)
    finish = finish_for(host)
    windows = windows_over(tokens.lengths, width)
    windows = windows[np.argsort(windows[:, 1] - windows[:, 3], kind="stable")]  # longest first
    result = np.full(int(tokens.offsets[-1]), np.nan, dtype=np.float32)
    if listener is not None:
        listener.start("measure", len(windows))
    done = 0
    while done < len(windows):
        longest = int(windows[done, 3] - windows[done, 1])
        chosen = windows[done : done + max(1, TOKENS_PER_BATCH // longest)]
        ids, mask, places, targets, where = _batch(tokens, chosen, longest, start)
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        picks, goals = places.to(device), targets.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=chosen_dtype(dtype) == "bfloat16"):
            losses = losses_at(host, inputs, picks, goals, finish)
        result[where] = losses.float().cpu().numpy()
        done += len(chosen)
        if listener is not None:
            listener.advance("measure", done)
    if listener is not None:
        listener.finish("measure")
    return result


def _batch(
    tokens: Tokens, windows: np.ndarray, width: int, start: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, np.ndarray]:
    """Return ids and mask (B, T), flat positions (M,), targets (M,), and where in `tokens.ids` the targets stand."""
    ids = np.full((len(windows), width), start, dtype=np.int64)
    mask = np.zeros((len(windows), width), dtype=np.int64)
    places, targets, where = [], [], []
    for row, (document, begin, first, last) in enumerate(windows.tolist()):
        text, opens = tokens[document], int(begin == 0)  # a view; `start` of the batch stands at input 0 already
        ids[row, opens : last - begin] = text[begin + opens - 1 : last - 1]
        mask[row, : last - begin] = 1
        places.append(np.arange(first, last) - begin + row * width)
        targets.append(text[first:last].astype(np.int64))
        where.append(np.arange(first, last) + int(tokens.offsets[document]))
    flat, goals = (torch.from_numpy(np.concatenate(part)) for part in (places, targets))
    return torch.from_numpy(ids), torch.from_numpy(mask), flat, goals, np.concatenate(where)


def per_document(values: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Return the sum of a value over each document's tokens, (total,) -> (D,)."""
    owner = np.repeat(np.arange(len(tokens)), tokens.lengths)
    return np.bincount(owner, values.astype(np.float64), minlength=len(tokens))
