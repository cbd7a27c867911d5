"""Texts to flat arrays of token ids: whole texts, once, in parallel, kept on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import xxhash

from guidebook.data.fingerprints import hash_texts
from guidebook.data.large import joined, release
from guidebook.errors import InputError, RunError

BLOCK = 65_536  # rows taken at a time
SLICE = 4_096  # texts per call of the tokenizer, which works through them in parallel
STORED = np.dtype("<i4")


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of N rows, one after the other.

    Attributes:
        ids: (total,) int32, may be memory-mapped.
        offsets: (N + 1,) int64, from 0; row i is `ids[offsets[i] : offsets[i + 1]]`.
        fingerprint: Hash of what the ids were made from.
    """

    ids: np.ndarray
    offsets: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, (N,) int64."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Tokens:
        """Return some rows (n,) in the given order."""
        rows = np.asarray(rows, np.int64)
        offsets = offsets_of(self.lengths[rows])
        ids = joined(self._blocks(rows), int(offsets[-1]), STORED)
        which = xxhash.xxh3_128(self.fingerprint.encode())
        which.update(np.ascontiguousarray(rows).data)
        return Tokens(ids, offsets, which.hexdigest())

    def _blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            lengths = self.lengths[block]
            before = np.cumsum(lengths) - lengths
            places = np.repeat(self.offsets[block] - before, lengths) + np.arange(int(lengths.sum()))
            yield np.asarray(self.ids)[places]
        release(self.ids)


def tokenise(texts: Sequence[str], tokenizer: Any, cache: Path | None = None) -> Tokens:
    """Return the whole texts as token ids: no special tokens added, nothing truncated or padded.

    Args:
        texts: Any number of texts of any length.
        tokenizer: A fast transformers tokenizer; it is not changed, its stored truncation and padding are ignored.
        cache: Folder where the ids are kept, memory-mapped, under their fingerprint.

    Raises:
        InputError: the tokenizer has no fast implementation.
    """
    backend, described = _kept_copy(tokenizer)
    fingerprint = hash_texts([described, str(backend.encode_special_tokens)], texts)
    if cache is None:
        parts = list(_encoded(texts, backend))
        ids, lengths = _joined([ids for ids, _ in parts], np.int32), _joined([lengths for _, lengths in parts])
        return Tokens(ids, offsets_of(lengths), fingerprint)
    folder = Path(cache) / fingerprint
    stored = _stored(folder, len(texts), fingerprint)
    if stored is None:
        _store(folder, len(texts), _encoded(texts, backend))
        stored = _stored(folder, len(texts), fingerprint)
    if stored is None:
        raise RunError(f"{folder}: stored tokens cannot be read back. Check the disk, or leave out the cache.")
    return stored


def whole_text(tokenizer: Any) -> Any:
    """Return a copy of the tokenizer's fast implementation that neither truncates nor pads; do not change it."""
    return _kept_copy(tokenizer)[0]


def _kept_copy(tokenizer: Any) -> tuple[Any, str]:
    """Return `whole_text` and everything that decides what it does, written out.

    Copying goes through a text of megabytes, which takes longer than a forward pass over one text: it is done once for
    each tokenizer and state of it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        kind = type(tokenizer).__name__
        raise InputError(f"{kind} has no fast tokenizer (tokenizer.json). Convert it, or choose another base.")
    state = _state(backend)
    if (kept := _COPIES.get(tokenizer)) is not None and kept[0] == state:
        return kept[1], kept[2]
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = backend.encode_special_tokens
    _COPIES[tokenizer] = (state, copy, described := copy.to_str())
    return copy, described


_COPIES: WeakKeyDictionary[Any, tuple[tuple[Any, ...], Any, str]] = WeakKeyDictionary()


def _state(backend: Any) -> tuple[Any, ...]:
    """Return what of a tokenizer can be changed where it stands and is not overruled in the copy."""
    parts = (backend.normalizer, backend.pre_tokenizer, backend.post_processor, backend.get_added_tokens_decoder())
    return backend.get_vocab_size(), backend.encode_special_tokens, id(backend), *map(str, parts)


def _encoded(texts: Sequence[str], backend: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (ids, lengths) of one slice of texts after the other."""
    for start in range(0, len(texts), SLICE):
        rows = [row.ids for row in backend.encode_batch_fast(texts[start : start + SLICE], add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        yield np.fromiter(chain.from_iterable(rows), dtype=STORED, count=int(lengths.sum())), lengths


def _joined(parts: list[np.ndarray], dtype: type[np.integer[Any]] = np.int64) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return where each row starts and the last one ends, (N + 1,) int64."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _store(folder: Path, rows: int, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write ids slice by slice into a temporary folder, then give it its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".tokens-", dir=folder.parent))
    try:
        lengths = []
        with (made / "ids.int32").open("wb") as file:
            for ids, of_slice in parts:
                file.write(ids.tobytes())
                lengths.append(of_slice)
        np.save(made / "offsets.npy", offsets_of(_joined(lengths)))
        try:
            os.rename(made, folder)
        except OSError:  # the folder is there: damaged, or another process was first with the same tokens
            if _stored(folder, rows, "") is None:
                shutil.rmtree(folder)
                os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _stored(folder: Path, rows: int, fingerprint: str) -> Tokens | None:
    """Return tokens from the cache, or None where they are not there or not whole."""
    try:
        offsets = np.load(folder / "offsets.npy")
        size = (folder / "ids.int32").stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    if offsets.shape != (rows + 1,) or int(offsets[-1]) * STORED.itemsize != size:
        return None
    ids: np.ndarray = np.memmap(folder / "ids.int32", dtype=STORED, mode="r") if size else np.zeros(0, STORED)
    return Tokens(ids, offsets, fingerprint)
