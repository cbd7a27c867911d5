"""Rows of token ids, made without loops: cut into pieces, framed by special tokens, windowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from guidebook.data.fingerprints import hash_texts
from guidebook.data.large import joined, release
from guidebook.data.tokeniser import Tokens, offsets_of, tokenise, whole_text
from guidebook.errors import InputError

__all__ = [
    "Specials",
    "Tokens",
    "chunk",
    "encode",
    "ended",
    "pieces_of",
    "prompt_ids",
    "read_specials",
    "require_mask",
    "token_types",
    "tokenise",
    "windows",
]

_SENTINELS = [f"<extra_id_{number}>" for number in range(100)]
BLOCK = 65_536  # rows per step of `_assemble`: bounds the index arrays, not the result


@dataclass(frozen=True)
class Specials:
    """The special tokens of a tokenizer and where they stand: before A after, or before A between B after."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    mask: int | None
    pad: int
    ids: frozenset[int]
    """Never masked, never drawn as random tokens."""
    separator: int | None
    """Token that ends each segment; None where the tokenizer does not number segments."""
    vocabulary: int
    sentinels: tuple[int, ...] = ()
    """Tokens that stand for hidden spans, in their order; a tokenizer of T5's style has them."""

    @property
    def opening(self) -> Specials:
        """The same with nothing behind a text: a causal base reads a piece of a text so, since the text may go on."""
        return replace(self, after=())


@dataclass(frozen=True, eq=False)
class _Pieces:
    """A run of tokens for each row that is made: `sizes` tokens of row `owner` of `tokens`, from `starts` on."""

    tokens: Tokens
    owner: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray


_Part = tuple[int, ...] | _Pieces
"""The same tokens in every row, or a run of its own for each."""


def read_specials(tokenizer: Any) -> Specials:
    """Return a tokenizer's special tokens, found by encoding samples with and without them.

    Without a padding token the end-of-text token pads: padding is never attended.

    Raises:
        InputError: the tokenizer has no fast implementation, or frames texts in a way that is not supported.
    """
    backend = whole_text(tokenizer)
    first, second = "a b c d", "e f g"
    plain, other = (backend.encode(text, add_special_tokens=False).ids for text in (first, second))
    single = backend.encode(first).ids
    pair = backend.encode(first, second)
    start = _find(single, plain, 0)
    before, after = single[:start], single[start + len(plain) :]
    split = _find(pair.ids, other, start + len(plain))
    between = pair.ids[start + len(plain) : split]
    if before + plain + between + other + after != pair.ids:
        raise InputError(
            f"the tokenizer of {tokenizer.name_or_path!r} frames pairs as {pair.tokens}, expected the same tokens "
            f"around a pair as around a text. Choose another base."
        )
    numbered = pair.type_ids[split] == 1 and bool(between) and between[0] in after
    pad = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    return Specials(
        before=tuple(before),
        between=tuple(between),
        after=tuple(after),
        mask=tokenizer.mask_token_id,
        pad=pad,
        ids=frozenset({*tokenizer.all_special_ids, *before, *between, *after}),
        separator=between[0] if numbered else None,
        vocabulary=len(tokenizer),
        sentinels=tuple(takewhile(lambda token: token is not None, map(backend.token_to_id, _SENTINELS))),
    )


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Return the tokens that a causal base goes on from: what stands before every text, then the prompt.

    What the tokenizer puts behind a text is left out: behind it another text would begin.
    """
    sample = "a b c d"
    whole = list(tokenizer(sample)["input_ids"])
    before = whole[: _find(whole, list(tokenizer(sample, add_special_tokens=False)["input_ids"]), 0)]
    return [*before, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def require_mask(specials: Specials) -> int:
    """Return the mask token.

    Raises:
        InputError: the tokenizer has none.
    """
    if specials.mask is None:
        raise InputError(
            "the base's tokenizer has no mask token, so it cannot be trained by masking. Choose a masked LM."
        )
    return specials.mask


def chunk(tokens: Tokens, length: int, specials: Specials) -> Tokens:
    """Return documents cut into pieces of at most `length` tokens, special tokens included; nothing is lost.

    The pieces of a document differ by at most one token; an empty document gives none.
    """
    lengths = tokens.lengths
    owner, starts, sizes = _even(lengths, -(-lengths // _room(length, specials)))
    made = f"chunk {length} {specials.before} {specials.after}"
    return _assemble([specials.before, _Pieces(tokens, owner, starts, sizes), specials.after], made)


def pieces_of(tokens: Tokens, length: int, specials: Specials) -> np.ndarray:
    """Return which document (N,) each piece that `chunk` makes is of."""
    return np.repeat(np.arange(len(tokens)), -(-tokens.lengths // _room(length, specials)))


def ended(tokens: Tokens, end: int) -> Tokens:
    """Return documents with the token that ends a text behind each.

    >>> ended(Tokens(np.array([5, 6, 7], np.int32), np.array([0, 1, 3]), "made"), 0).ids.tolist()
    [5, 0, 6, 7, 0]
    """
    rows = np.arange(len(tokens))
    return _assemble([_Pieces(tokens, rows, np.zeros_like(rows), tokens.lengths), (end,)], f"ended {end}")


def encode(tokens: Tokens, pairs: Tokens | None, length: int, specials: Specials) -> Tokens:
    """Return one row per text with special tokens; what is too long is cut at the end, of a pair the longer first."""
    first, second = _truncated(tokens, pairs, length, specials)
    rows = np.arange(len(tokens))
    starts = np.zeros_like(first)
    parts: list[_Part] = [specials.before, _Pieces(tokens, rows, starts, first)]
    if pairs is not None:
        parts += [specials.between, _Pieces(pairs, rows, starts, second)]
    return _assemble([*parts, specials.after], f"encode {length} {_frame(specials)}")


def windows(
    tokens: Tokens, pairs: Tokens | None, length: int, specials: Specials, *, limit: int = 8
) -> tuple[Tokens, np.ndarray]:
    """Return rows for predicting long texts and the text that each row belongs to, (rows,) int64.

    A text that fits is one row. A longer one is cut into at most `limit` windows: nearly equal pieces where they cover
    it, else full windows spread evenly from its start to its end. Of a pair only the longer text is cut into windows;
    the shorter stands in each, itself cut only if it would take more than half.
    """
    if pairs is None:
        room = np.full(len(tokens), _room(length, specials))
        owner, starts, sizes = _windowed(tokens.lengths, room, limit)
        parts: list[_Part] = [specials.before, _Pieces(tokens, owner, starts, sizes), specials.after]
        return _assemble(parts, f"windows {limit} {length} {_frame(specials)}"), owner
    total = _room(length, specials, pair=True)
    first, second = tokens.lengths, pairs.lengths
    first_is_longer = first >= second
    shorter = np.minimum(first, second)
    kept = np.where(first + second > total, np.minimum(shorter, total // 2), shorter)
    owner, starts, sizes = _windowed(np.maximum(first, second), total - kept, limit)
    is_first, zeros, whole = first_is_longer[owner], np.zeros_like(starts), kept[owner]
    parts = [
        specials.before,
        _Pieces(tokens, owner, np.where(is_first, starts, zeros), np.where(is_first, sizes, whole)),
        specials.between,
        _Pieces(pairs, owner, np.where(is_first, zeros, starts), np.where(is_first, whole, sizes)),
        specials.after,
    ]
    return _assemble(parts, f"windows {limit} {length} {_frame(specials)}"), owner


def token_types(ids: np.ndarray, separator: int | None) -> np.ndarray:
    """Return segment numbers (B, T): 1 after the first separator up to the last, else 0; all 0 for a single segment.

    >>> token_types(np.array([[1, 5, 2, 6, 2, 0], [1, 5, 6, 7, 2, 0]]), separator=2).tolist()
    [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]]
    """
    ends = ids == separator if separator is not None else np.zeros(ids.shape, dtype=bool)
    passed = np.cumsum(ends, axis=1) - ends  # (B, T) separators before each token
    return np.asarray((passed >= 1) & (passed < ends.sum(axis=1, keepdims=True)), dtype=ids.dtype)


def _find(ids: list[int], part: list[int], start: int) -> int:
    for place in range(start, len(ids) - len(part) + 1):
        if ids[place : place + len(part)] == part:
            return place
    raise InputError("the tokenizer changes a text's tokens when it adds special tokens. Choose another base.")


def _frame(specials: Specials) -> str:
    return f"{specials.before} {specials.between} {specials.after}"


def _room(length: int, specials: Specials, *, pair: bool = False) -> int:
    """Return how many tokens of text a row of `length` tokens holds."""
    taken = len(specials.before) + len(specials.after) + (len(specials.between) if pair else 0)
    if length - taken < 1 + pair:
        raise InputError(
            f"a length of {length} tokens leaves no room for text beside {taken} special tokens. Raise max_length."
        )
    return length - taken


def _truncated(tokens: Tokens, pairs: Tokens | None, length: int, specials: Specials) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept lengths of first and second texts: as `longest_first` of the tokenizers library."""
    room = _room(length, specials, pair=pairs is not None)
    if pairs is None:
        return np.minimum(tokens.lengths, room), np.zeros(len(tokens), np.int64)
    if len(pairs) != len(tokens):
        raise InputError(f"{len(pairs)} second texts for {len(tokens)} texts. Give one per text.")
    swapped = tokens.lengths > pairs.lengths
    shorter, longer = np.minimum(tokens.lengths, pairs.lengths), np.maximum(tokens.lengths, pairs.lengths)
    longer = np.minimum(longer, np.maximum(shorter, room - shorter))
    over = shorter + longer > room
    shorter, longer = np.where(over, room // 2, shorter), np.where(over, room - room // 2, longer)
    return np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)


def _even(lengths: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (owner, start, size) of every piece, sizes within a text differing by at most one."""
    owner = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, … within each text
    size, extra = np.divmod(lengths, np.maximum(pieces, 1))
    starts = number * size[owner] + np.minimum(number, extra[owner])
    return owner, starts, size[owner] + (number < extra[owner])


def _windowed(lengths: np.ndarray, room: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (owner, start, size) of every window; an empty text has one."""
    if limit < 1:
        raise InputError(f"a limit of {limit} windows per text leaves nothing to predict from. Give at least 1.")
    needed = np.maximum(-(-lengths // room), 1)
    pieces = np.minimum(needed, limit)
    owner, starts, sizes = _even(lengths, pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    spread = number * (lengths - room)[owner] // np.maximum(pieces - 1, 1)[owner]
    too_many = (needed > limit)[owner]
    return owner, np.where(too_many, spread, starts), np.where(too_many, room[owner], sizes)


def _assemble(parts: Sequence[_Part], made: str) -> Tokens:
    """Return rows put together from parts, left to right."""
    pieces = [part for part in parts if isinstance(part, _Pieces)]
    constant = sum(len(part) for part in parts if not isinstance(part, _Pieces))
    sizes = pieces[0].sizes if len(pieces) == 1 else np.sum([part.sizes for part in pieces], axis=0)
    offsets = offsets_of(sizes + constant)
    ids = joined(_blocks(parts, offsets), int(offsets[-1]), np.dtype(np.int32))
    return Tokens(ids, offsets, hash_texts([made, *(part.tokens.fingerprint for part in pieces)]))


def _blocks(parts: Sequence[_Part], offsets: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the token ids of some rows after the other."""
    for start in range(0, len(offsets) - 1, BLOCK):
        block = slice(start, min(start + BLOCK, len(offsets) - 1))
        place = offsets[block] - offsets[start]
        ids = np.empty(int(offsets[block.stop] - offsets[start]), dtype=np.int32)
        for part in parts:
            if isinstance(part, _Pieces):
                sizes = part.sizes[block]
                source = part.tokens.offsets[part.owner[block]] + part.starts[block]
                ids[_runs(place, sizes)] = part.tokens.ids[_runs(source, sizes)]
                place += sizes
            else:
                for token in part:
                    ids[place] = token
                    place += 1
        yield ids
    for part in parts:
        if isinstance(part, _Pieces):
            release(part.tokens.ids)


def _runs(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return start, start + 1, … for each run, one after the other."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
