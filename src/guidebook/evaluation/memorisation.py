"""What a language model took over word for word: copied spans, and continuations of its training text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from guidebook.errors import InputError

Ids = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Continue = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[int]]]
"""Prompts of token ids to greedy continuations of token ids."""

SPAN = 13
"""Words of a span that is called copied."""
PROMPT = 50
"""Tokens of a prompt from the training text."""


def word_ids(text: str) -> Ids:
    """Return one number per white-space word, (W,), equal for words that are equal without case."""
    words = text.casefold().split()
    return np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), np.uint64, len(words))


def window_keys(ids: Ids, length: int) -> Ids:
    """Return one 64-bit key for each window of `length` items, (N - length + 1,) or none.

    Windows are put together from windows of powers of two, so the work is N log(length) whatever the length. Equal
    windows have equal keys; unequal ones share a key with a chance of about 1 in 2^64 a pair.

    >>> keys = window_keys(np.array([1, 2, 1, 2], dtype=np.uint64), 2)
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    if length < 1:
        raise InputError(f"a window of {length} items is empty. Give at least 1.")
    count = len(ids) - length + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    power, size = _mixed(ids.astype(np.uint64)), 1  # keys of windows of `size` items
    found, covered = np.zeros(count, np.uint64), 0
    rest = length
    while rest:
        if rest & 1:
            found = _mixed(found * np.uint64(0x9E3779B97F4A7C15) + power[covered : covered + count])
            covered += size
        rest >>= 1
        if rest:
            power = _mixed(power[:-size] * np.uint64(0x9E3779B97F4A7C15) + power[size:])
            size *= 2
    return found


def spans_in(text: Ids, training: Sequence[Ids], length: int = SPAN) -> Flags:
    """Return whether each window of `length` items of a text (N - length + 1,) stands in one of the training texts."""
    return np.isin(window_keys(text, length), _all_keys(training, length))


def copied(text: Ids, training: Sequence[Ids], length: int = SPAN) -> Flags:
    """Return whether each item of a text (N,) is part of a span of `length` items that a training text has too."""
    return covered(spans_in(text, training, length), len(text), length)


def covered(windows: Flags, items: int, length: int) -> Flags:
    """Return which of N items lie in a marked window of `length`: (N - length + 1,) -> (N,).

    >>> covered(np.array([False, True, False]), 5, 3).tolist()
    [False, True, True, True, False]
    """
    edges = np.zeros(items + 1, np.int64)
    starts = np.flatnonzero(windows)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + length, -1)
    return np.asarray(np.cumsum(edges)[:items] > 0)


def copied_share(texts: Sequence[Ids], training: Sequence[Ids], length: int = SPAN) -> float:
    """Return the share of the texts' windows of `length` items that stand in the training texts; 0 without windows."""
    keys = _all_keys(training, length)
    marks = [np.isin(window_keys(text, length), keys) for text in texts]
    windows = sum(len(mark) for mark in marks)
    return float(sum(int(mark.sum()) for mark in marks) / windows) if windows else 0.0


def longest_copied_span(text: Ids, training: Sequence[Ids]) -> int:
    """Return the length of the longest run of a text's items that stands in a training text.

    A run of n items holds runs of n - 1, so the longest is found by halving.
    """
    low, high = 0, min(len(text), max((len(one) for one in training), default=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if spans_in(text, training, middle).any() else (low, middle - 1)
    return low


def copied_characters(text: str, training: Sequence[Ids], length: int = SPAN) -> Flags:
    """Return whether each character of a text (N,) belongs to a copied word or the white space before it."""
    marks = copied(word_ids(text), training, length)
    found = np.zeros(len(text), np.bool_)
    place = 0
    for word, mark in zip(text.split(), marks, strict=True):
        end = text.index(word, place) + len(word)
        found[place:end] = mark
        place = end
    return found


def reproduced(continuations: Sequence[Sequence[int]], truths: Sequence[Sequence[int]]) -> Flags:
    """Return whether each continuation starts with all of its truth, (N,)."""
    return np.array(
        [list(made[: len(truth)]) == list(truth) for made, truth in zip(continuations, truths, strict=True)]
    )


def choose_prompts(
    documents: Sequence[Sequence[int]], count: int, seed: int, *, prompt: int = PROMPT, answer: int = PROMPT
) -> tuple[list[list[int]], list[list[int]]]:
    """Return up to `count` runs of `prompt` tokens and the `answer` tokens that follow each, no two overlapping.

    Documents are cut into places of prompt + answer tokens; places are drawn from all documents without replacement.
    """
    size = prompt + answer
    places = [(row, start) for row, ids in enumerate(documents) for start in range(0, len(ids) - size + 1, size)]
    order = np.random.default_rng(seed).permutation(len(places))[:count]
    chosen = [list(documents[places[i][0]][places[i][1] : places[i][1] + size]) for i in order]
    return [run[:prompt] for run in chosen], [run[prompt:] for run in chosen]


def memorisation(
    continued: Continue,
    training: Sequence[Sequence[int]],
    control: Sequence[Sequence[int]],
    *,
    count: int = 100,
    seed: int = 0,
    answer: int = PROMPT,
) -> dict[str, Any]:
    """Return what a model reproduces of its training documents, and of documents that it never saw.

    Args:
        continued: Greedy continuation of prompts by the model, at least `answer` tokens each.
        training: Token ids of the documents it was trained on.
        control: Token ids of documents of the same kind that it was not trained on.
        count: Prompts from each.
        seed: Decides which prompts.
        answer: Tokens that must come out exactly for a prompt to count as reproduced.

    Returns:
        For "training" and "control": prompts, reproduced (share whose continuation is the document's own, token for
        token), tokens_matched (mean length of the part that agrees), copied_share (share of the continuations' spans of
        13 tokens that stand in the training documents) and longest_span (tokens).

    Raises:
        InputError: no training document is long enough for a prompt.

    Reference:
        Carlini et al. 2023, Quantifying Memorization Across Neural Language Models, definition 3.1: prompts of 50
        tokens, continued greedily. Brown et al. 2020, appendix C: spans of 13.
    """
    known = [np.asarray(ids, dtype=np.uint64) for ids in training]
    found = {}
    for name, documents in (("training", training), ("control", control)):
        prompts, truths = choose_prompts(documents, count, seed, answer=answer)
        if not prompts and name == "training":
            raise InputError(f"No training document has {PROMPT + answer} tokens. Memorisation needs longer texts.")
        made = [list(tokens)[:answer] for tokens in continued(prompts)] if prompts else []
        spans = [np.asarray(tokens, dtype=np.uint64) for tokens in made]
        found[name] = {
            "prompts": len(prompts),
            "reproduced": float(reproduced(made, truths).mean()) if made else None,
            "tokens_matched": float(np.mean([_agreed(*pair) for pair in zip(made, truths, strict=True)]))
            if made
            else None,
            "copied_share": copied_share(spans, known) if made else None,
            "longest_span": max((longest_copied_span(span, known) for span in spans), default=0),
        }
    return found


def _agreed(made: Sequence[int], truth: Sequence[int]) -> int:
    """Return how many tokens agree from the start."""
    for place, (one, other) in enumerate(zip(made, truth, strict=False)):
        if one != other:
            return place
    return min(len(made), len(truth))


def _all_keys(training: Sequence[Ids], length: int) -> Ids:
    parts = [window_keys(one, length) for one in training]
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)


def _mixed(values: Ids) -> Ids:
    """Scramble 64-bit numbers, one to one (the finaliser of splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
