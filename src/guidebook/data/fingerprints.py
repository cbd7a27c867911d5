"""Hashes of texts: one for a whole set of rows, one per row for finding duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash


def hash_texts(*columns: Sequence[str] | None) -> str:
    """Return the xxh3_128 hex digest of columns of texts, in order; every text is prefixed by its length.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair and is not valid Unicode.

    >>> hash_texts(["ab", "c"]) == hash_texts(["a", "bc"])
    False
    """
    digest = xxhash.xxh3_128()
    for column in columns:
        digest.update(b"none" if column is None else b"rows" + len(column).to_bytes(8, "little"))
        for text in column or ():
            data = text.encode("utf8")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def text_keys(texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> np.ndarray:
    """Return one 64-bit key per row, (N,) uint64; rows equal up to case and white space have equal keys.

    >>> keys = text_keys(["A  fine day", "a fine day ", "a fine dog"])
    >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
    (True, False)
    """
    rows: Iterable[str] = map(_normalised, texts)
    if text_pairs is not None:
        # "\x1f" counts as white space, so no normalised text contains it.
        rows = (f"{first}\x1f{_normalised(second)}" for first, second in zip(rows, text_pairs, strict=True))
    keys = (xxhash.xxh3_64_intdigest(row.encode("utf8")) for row in rows)
    return np.fromiter(keys, dtype=np.uint64, count=len(texts))


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())
