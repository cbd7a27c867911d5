"""A stream: the rows that one loss reads, with what decides their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from guidebook.data.large import joined, release
from guidebook.data.tokens import Tokens
from guidebook.errors import InputError

PIECE = 2**20  # token ids copied at a time


@dataclass(frozen=True)
class Stream:
    """Rows of token ids, special tokens included, that batches are planned from.

    Attributes:
        name: What the stream holds, for example "source" or "text of source + targets".
        tokens: One item per row.
        owner: (N,) index into `domains` of every row.
        domains: Names of the domains the rows come from.
        ratios: (D,) share of the tokens that each domain is given, sums to 1.
        labels: Class ids, only where they are trained on: one per row, (N,), or one per token, as `tokens.ids`; -1
            where there is none.
        per_token: Whether `labels` are per token.
        documents: (N,) uint64, the same number for all pieces of one text, in whichever stream; None: every row is a
            text of its own.
    """

    name: str
    tokens: Tokens
    owner: np.ndarray
    domains: tuple[str, ...]
    ratios: np.ndarray
    labels: np.ndarray | None = None
    per_token: bool = False
    documents: np.ndarray | None = None

    def labels_of(self, rows: np.ndarray, width: int) -> np.ndarray:
        """Return the labels of some rows: (n,), or (n, width) per token, -1 where there is none."""
        if not self.per_token:
            return self.labels[rows] if self.labels is not None else np.full(len(rows), -1)
        found = np.full((len(rows), width), -1, dtype=np.int64)
        for place, row in enumerate(rows if self.labels is not None else ()):
            start, stop = self.tokens.offsets[row], self.tokens.offsets[row + 1]
            found[place, : stop - start] = self.labels[start:stop]  # type: ignore[index]
        return found

    def take(self, rows: np.ndarray) -> Stream:
        """Return the stream with only some rows (n,), in the given order."""
        labels = self.labels
        if labels is not None:
            of_tokens = Tokens(labels, self.tokens.offsets, "") if self.per_token else None
            labels = labels[rows] if of_tokens is None else of_tokens.take(rows).ids.astype(np.int64)
        documents = None if self.documents is None else self.documents[rows]
        return replace(self, tokens=self.tokens.take(rows), owner=self.owner[rows], labels=labels, documents=documents)

    @property
    def fingerprint(self) -> str:
        """Hash of exactly what training on the stream can see."""
        digest = xxhash.xxh3_128(self.tokens.fingerprint.encode())
        digest.update(np.ascontiguousarray(self.owner, np.int64).data)
        digest.update(self.ratios.astype(np.float64).tobytes())
        if self.labels is not None:
            digest.update(self.labels.astype(np.int64).tobytes())
        return digest.hexdigest()


def seed_for(seed: int, *role: str | int) -> int:
    """Return a seed for one use of randomness: a pure function of the run's seed and the role's name.

    The role, not the stage's key, so that two methods see the same head, the same order and the same masks
    wherever they do the same thing.
    """
    return xxhash.xxh3_64_intdigest(repr((seed, *role)).encode()) >> 2


def document_ids(fingerprint: str, rows: np.ndarray) -> np.ndarray:
    """Return a number (N,) uint64 for each of the texts `rows` (N,) of a set with that fingerprint."""
    return rows.astype(np.uint64) + np.uint64(xxhash.xxh3_64_intdigest(fingerprint.encode()))  # wraps around


def require_rows(stream: Stream, rows: int) -> None:
    """Raise InputError if a stream has fewer rows than every step shall read of it: some would stand there twice."""
    if len(stream.tokens) < rows:
        raise InputError(
            f"The {stream.name} ({', '.join(stream.domains)}) has {len(stream.tokens)} texts, and every step reads "
            f"{rows} different ones. Give more text, or choose a method that does not compare domains."
        )


def stack_streams(name: str, parts: Sequence[Stream], ratios: np.ndarray) -> Stream:
    """Return one stream of the rows of several, with the given token share for each domain."""
    owner = np.concatenate([np.full(len(part.tokens), index) for index, part in enumerate(parts)])
    known = [part.documents for part in parts if part.documents is not None]
    documents = np.concatenate(known) if len(known) == len(parts) else None
    names = tuple(part.name for part in parts)
    return Stream(name, concatenate([part.tokens for part in parts]), owner, names, ratios, documents=documents)


def concatenate(parts: Sequence[Tokens]) -> Tokens:
    """Return the rows of several token sets, one after the other."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    together = "+".join(part.fingerprint for part in parts)
    ids = joined(_ids(parts), int(offsets[-1]), np.dtype(np.int32))
    return Tokens(ids, offsets, xxhash.xxh3_128_hexdigest(together.encode()))


def _ids(parts: Sequence[Tokens]) -> Iterator[np.ndarray]:
    for part in parts:
        for start in range(0, len(part.ids), PIECE):
            yield part.ids[start : start + PIECE]
        release(part.ids)
