"""Words and their tokens: which window and which position stands for each word of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guidebook.data.fingerprints import hash_texts
from guidebook.data.tokeniser import Tokens, offsets_of, whole_text
from guidebook.data.tokens import Specials, windows

UNLIMITED = 10**9


@dataclass(frozen=True, eq=False)
class WordRows:
    """Texts in windows that cover every token once, and the place of every word.

    Attributes:
        tokens: One item per window, special tokens included.
        owner: (windows,) text that each window belongs to.
        places: (W, 2) window and position of the first token of every word, text after text.
        words: (N + 1,) offsets of the words of each text.
    """

    tokens: Tokens
    owner: np.ndarray
    places: np.ndarray
    words: np.ndarray

    def per_token(self, tags: np.ndarray) -> np.ndarray:
        """Return the tags (W,) of words at their places among all tokens, -1 at the others."""
        found = np.full(len(self.tokens.ids), -1, dtype=np.int64)
        found[self.tokens.offsets[self.places[:, 0]] + self.places[:, 1]] = tags
        return found


def word_rows(texts: Sequence[str], tokenizer: Any, length: int, specials: Specials) -> WordRows:
    """Return texts, words divided by single spaces, in windows of at most `length` tokens.

    A word is read at its first token, as in BERT's own tagging; a word of which the tokenizer leaves nothing is read at
    the token that follows it.

    Reference: Devlin et al. 2019, BERT, section 5.3 (the first sub-token represents a word).
    """
    backend = whole_text(tokenizer)
    fingerprint = hash_texts([backend.to_str(), "words"], texts)
    ids: list[np.ndarray] = []
    first: list[np.ndarray] = []
    for text, encoding in zip(texts, backend.encode_batch(list(texts), add_special_tokens=False), strict=True):
        ids.append(np.asarray(encoding.ids, dtype=np.int32))
        first.append(first_tokens(text, encoding.offsets))
    offsets = offsets_of(np.array([len(part) for part in ids], dtype=np.int64))
    whole = Tokens(np.concatenate(ids) if ids else np.zeros(0, np.int32), offsets, fingerprint)
    pieces, owner = windows(whole, None, length, specials, limit=UNLIMITED)
    framed = len(specials.before) + len(specials.after)
    begins = np.cumsum(pieces.lengths - framed) - (pieces.lengths - framed)  # first token of every window among all
    words = offsets_of(np.array([len(part) for part in first], dtype=np.int64))
    rows = np.repeat(np.arange(len(texts)), np.diff(words))
    places = offsets[rows] + (np.concatenate(first) if first else np.zeros(0, np.int64))  # (W,) among all tokens
    window = np.searchsorted(begins, places, side="right") - 1
    return WordRows(pieces, owner, np.stack([window, places - begins[window] + len(specials.before)], axis=1), words)


def first_tokens(text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the index of the first token of every word (W,) of a text whose words stand between single spaces.

    A token belongs to the word of its last character, so that a leading space may be part of it.

    >>> first_tokens("the kettle", [(0, 3), (3, 7), (7, 10)]).tolist()
    [0, 1]
    """
    ends = np.cumsum([len(word) + 1 for word in text.split(" ")]) - 1  # (W,) one past the last character
    last = np.array([stop - 1 for _, stop in spans], dtype=np.int64)
    word = np.searchsorted(ends, last, side="right")  # (T,) word of every token
    found = np.searchsorted(np.maximum.accumulate(word) if len(word) else word, np.arange(len(ends)))
    return np.minimum(found, max(len(spans) - 1, 0))
