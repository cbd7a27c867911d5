"""What two sets of texts share: words, whole rows, and rows that are almost the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from guidebook.data.fingerprints import text_keys

WORD = re.compile(r"[^\W\d_]+")
TOP = 1000
SHINGLE = 5  # words
ALIKE = 0.6  # Jaccard index of shingles
COMMON = 100  # a shingle that so many rows have is boilerplate


def vocabulary_overlap(source: Sequence[str], target: Sequence[str]) -> tuple[float, float]:
    """Return the share of the frequent words that both have, and of the target's running words that the source has.

    Of each side the 1,000 most frequent words count, or as many as the smaller one has; of the running words, those
    that stand in as many rows of the source as the target has.

    Reference:
        Gururangan et al. 2020, Don't Stop Pretraining, section 3.1 (overlap of the most frequent words).

    >>> vocabulary_overlap(["a good book"], ["a good pan"])[0] > 0.6
    True
    """
    rows = min(len(source), len(target))
    counts = [
        Counter(word for text in texts[:rows] for word in WORD.findall(text.casefold())) for texts in (source, target)
    ]
    most = min(TOP, *map(len, counts))
    if not most:
        return 0.0, 0.0
    tops = [
        {word for word, _ in sorted(count.items(), key=lambda item: (-item[1], item[0]))[:most]} for count in counts
    ]
    known = sum(number for word, number in counts[1].items() if word in counts[0])
    return len(tops[0] & tops[1]) / most, known / max(sum(counts[1].values()), 1)


def same_rows(source: Sequence[str], target: Sequence[str]) -> int:
    """Return how many rows of the target stand in the source too, but for case and white space."""
    return int(np.isin(text_keys(target), text_keys(source)).sum())


def similar_rows(source: Sequence[str], target: Sequence[str] | None = None) -> list[tuple[int, int, float]]:
    """Return (row of the source, row of the target, Jaccard index) of rows that share most of their 5-word runs.

    Rows that are equal are among them. Without a target, pairs inside the source, each once.

    Reference:
        Broder 1997, On the Resemblance and Containment of Documents, section 2.

    >>> similar_rows(["one two three four five six seven eight"], ["one two three four five six seven nine"])[0][:2]
    (0, 0)
    """
    left = _shingles(source)
    right = left if target is None else _shingles(target)
    known = np.unique(np.fromiter((value for rows in (left, right) for row in rows for value in row), np.int64))
    one, two = _matrix(left, known), _matrix(right, known)
    spread = np.asarray(one.sum(0)).ravel() + (0 if target is None else np.asarray(two.sum(0)).ravel())
    keep = _diagonal(spread <= COMMON)
    shared = ((one @ keep) @ two.T).tocoo()
    sizes = np.array([len(row) for row in left]), np.array([len(row) for row in right])
    found = []
    for a, b, both in zip(shared.row.tolist(), shared.col.tolist(), shared.data.tolist(), strict=True):
        if target is None and a >= b:
            continue
        index = both / (sizes[0][a] + sizes[1][b] - both)
        if index >= ALIKE:
            found.append((a, b, float(index)))
    return sorted(found)


def _shingles(texts: Sequence[str]) -> list[set[int]]:
    found = []
    for text in texts:
        words = WORD.findall(text.casefold())
        runs = [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]
        found.append({xxhash.xxh3_64_intdigest(run.encode()) >> 1 for run in runs})
    return found


def _matrix(rows: list[set[int]], known: np.ndarray) -> Any:
    """Return which row has which of the known shingles, (N, known) sparse ones."""
    from scipy.sparse import csr_matrix

    lengths = [len(row) for row in rows]
    values = np.fromiter((value for row in rows for value in row), np.int64, count=sum(lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    columns = np.searchsorted(known, values)
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(rows), len(known)))


def _diagonal(keep: np.ndarray) -> Any:
    from scipy.sparse import diags

    return diags(keep.astype(np.float32))
