"""Every cut, frame and window against a loop over rows, and the tokenizer's own results."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from guidebook.data import tokens as module
from guidebook.data.tokens import (
    Specials,
    Tokens,
    chunk,
    encode,
    read_specials,
    require_mask,
    token_types,
    tokenise,
    windows,
)
from guidebook.errors import InputError

FAMILIES = ["bert", "roberta", "gpt2", "llama"]
FRAMED = Specials((1,), (2, 3), (2,), 4, 0, frozenset({0, 1, 2, 3, 4}), None, 100)
BARE = Specials((), (), (), None, 0, frozenset({0}), None, 100)


@pytest.fixture(params=FAMILIES)
def tokenizer(request, tiny_base) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_base(request.param))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)  # many blocks even for few rows


def made(lengths: list[int], start: int = 10) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.arange(start, start + offsets[-1]).astype(np.int32), offsets, f"made {start}")


def random_lengths(seed: int, rows: int = 40, most: int = 30) -> list[int]:
    return np.random.default_rng(seed).integers(0, most, rows).tolist()


def rows_of(tokens: Tokens) -> list[list[int]]:
    return [row.tolist() for row in tokens]


def test_rows_of_tokens() -> None:
    tokens = made([2, 0, 3])
    assert rows_of(tokens) == [[10, 11], [], [12, 13, 14]]
    assert tokens[-1].tolist() == [12, 13, 14]
    assert tokens.lengths.tolist() == [2, 0, 3]
    assert len(tokens) == 3
    with pytest.raises(IndexError):
        tokens[3]


# --- tokenise


def test_tokenise_equals_the_tokenizer_text_by_text(tokenizer, texts: list[str], monkeypatch) -> None:
    monkeypatch.setattr("guidebook.data.tokeniser.SLICE", 3)
    many = [*texts, "", "ünïcödé 😀", " ".join(texts * 40)]
    slow = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in many]
    found = tokenise(many, tokenizer)
    assert rows_of(found) == slow
    assert found.ids.dtype == np.int32
    assert found.offsets.dtype == np.int64
    assert len(tokenise([], tokenizer)) == 0


def test_stored_truncation_and_padding_are_switched_off_on_a_copy(tokenizer, texts: list[str]) -> None:
    whole = tokenise(texts, tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=6)
    again = tokenise(texts, tokenizer)
    assert rows_of(again) == rows_of(whole)
    assert again.fingerprint == whole.fingerprint
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 4
    assert tokenizer.backend_tokenizer.padding["length"] == 6


def test_the_fingerprint_covers_texts_and_tokenizer(tiny_base, texts: list[str]) -> None:
    bert, gpt2 = (PreTrainedTokenizerFast.from_pretrained(tiny_base(name)) for name in ("bert", "gpt2"))
    prints = {
        tokenise(texts, bert).fingerprint,
        tokenise(texts, gpt2).fingerprint,
        tokenise(texts[1:], bert).fingerprint,
    }
    bert.backend_tokenizer.add_tokens(["kettle boils"])
    prints.add(tokenise(texts, bert).fingerprint)
    assert len(prints) == 4


def test_cached_tokens_are_memory_mapped_and_made_once(
    tokenizer, texts: list[str], tmp_path: Path, monkeypatch
) -> None:
    plain, first = tokenise(texts, tokenizer), tokenise(texts, tokenizer, tmp_path / "cache")
    assert isinstance(first.ids, np.memmap)
    assert rows_of(first) == rows_of(plain)
    assert first.fingerprint == plain.fingerprint
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [plain.fingerprint]
    monkeypatch.setattr("guidebook.data.tokeniser._encoded", lambda *_: pytest.fail("tokenised twice"))
    assert rows_of(tokenise(texts, tokenizer, tmp_path / "cache")) == rows_of(plain)


@pytest.mark.parametrize("damage", ["ids.int32", "offsets.npy", "missing"])
def test_damaged_cached_tokens_are_made_again(tokenizer, texts: list[str], tmp_path: Path, damage: str) -> None:
    plain = tokenise(texts, tokenizer, tmp_path)
    folder = tmp_path / plain.fingerprint
    if damage == "missing":
        (folder / "ids.int32").unlink()
    else:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:-4])
    assert rows_of(tokenise(texts, tokenizer, tmp_path)) == rows_of(tokenise(texts, tokenizer))
    assert rows_of(tokenise([""], tokenizer, tmp_path)) == [[]]


def test_an_interrupted_write_leaves_nothing(tokenizer, texts: list[str], tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object):
        yield np.zeros(3, np.int32), np.array([3])
        raise KeyboardInterrupt

    monkeypatch.setattr("guidebook.data.tokeniser._encoded", fail)
    with pytest.raises(KeyboardInterrupt):
        tokenise(texts, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match="has no fast tokenizer"):
        tokenise(["a"], object())


# --- special tokens


def test_special_tokens_are_found_in_every_family(tokenizer, request) -> None:
    family = request.node.callspec.params["tokenizer"]
    specials = read_specials(tokenizer)
    cls, sep, between, numbered = {
        "bert": ((2,), (3,), (3,), True),
        "roberta": ((2,), (3,), (3, 3), False),
        "gpt2": ((), (), (), False),
        "llama": ((), (), (), False),
    }[family]
    assert (specials.before, specials.after, specials.between) == (cls, sep, between)
    assert specials.separator == (3 if numbered else None)
    assert specials.mask == tokenizer.mask_token_id
    assert specials.pad == (tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
    assert specials.ids == frozenset(tokenizer.all_special_ids)
    assert specials.vocabulary == len(tokenizer)
    if specials.mask is None:
        with pytest.raises(InputError, match="no mask token"):
            require_mask(specials)
    else:
        assert require_mask(specials) == specials.mask


# --- chunk


@pytest.mark.parametrize("specials", [FRAMED, BARE])
@pytest.mark.parametrize("length", [3, 8, 100])
def test_chunks_equal_a_loop_and_lose_nothing(specials: Specials, length: int) -> None:
    tokens = made(random_lengths(length))
    found = rows_of(chunk(tokens, length, specials))
    before, after = list(specials.before), list(specials.after)
    room = length - len(before) - len(after)
    slow = []
    for row in rows_of(tokens):
        pieces = -(-len(row) // room)
        slow += [[*before, *part.tolist(), *after] for part in (np.array_split(row, pieces) if pieces else [])]
    assert found == slow
    inner = [token for row in found for token in row[len(before) : len(row) - len(after)]]
    assert inner == tokens.ids.tolist()
    assert max(map(len, found)) <= length


def test_a_length_without_room_is_refused() -> None:
    for cut in (lambda: chunk(made([3]), 2, FRAMED), lambda: encode(made([3]), made([3]), 5, FRAMED)):
        with pytest.raises(InputError, match=r"no room for text.*Raise max_length"):
            cut()


# --- encode


@pytest.mark.parametrize("length", [8, 12, 40])
def test_encoding_equals_the_tokenizer_with_truncation(tokenizer, texts: list[str], length: int) -> None:
    specials = read_specials(tokenizer)
    fast = encode(tokenise(texts, tokenizer), None, length, specials)
    assert rows_of(fast) == [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in texts]


@pytest.mark.parametrize("length", [9, 12, 17, 40])
def test_encoding_pairs_equals_the_tokenizer_longest_first(tokenizer, texts: list[str], length: int) -> None:
    first = [text for text in texts for _ in texts] + ["", "kettle"]
    second = texts * len(texts) + ["the pan", ""]
    fast = encode(tokenise(first, tokenizer), tokenise(second, tokenizer), length, read_specials(tokenizer))
    slow = tokenizer(first, second, truncation="longest_first", max_length=length)
    assert rows_of(fast) == slow["input_ids"]


def test_token_types_equal_the_tokenizer(tiny_base, texts: list[str]) -> None:
    for family in ("bert", "roberta"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_base(family))
        separator = read_specials(tokenizer).separator
        for second in (None, texts[::-1]):
            slow = tokenizer(texts, second, padding=True, return_tensors="np", return_token_type_ids=True)
            found = token_types(slow["input_ids"], separator)
            assert found.dtype == slow["input_ids"].dtype
            assert found.tolist() == slow["token_type_ids"].tolist()


# --- windows


@pytest.mark.parametrize("specials", [FRAMED, BARE])
@pytest.mark.parametrize(("length", "limit"), [(5, 3), (8, 8), (8, 1), (100, 2)])
def test_windows_cover_long_texts(specials: Specials, length: int, limit: int) -> None:
    lengths = random_lengths(1)
    tokens = made(lengths)
    found, owner = windows(tokens, None, length, specials, limit=limit)
    before, after = len(specials.before), len(specials.after)
    room = length - before - after
    assert sorted(set(owner.tolist())) == list(range(len(lengths)))
    for text, whole in enumerate(rows_of(tokens)):
        parts = [found[row].tolist() for row in np.flatnonzero(owner == text)]
        inner = [part[before : len(part) - after] for part in parts]
        assert all(part[:before] == list(specials.before) for part in parts)
        assert len(parts) == min(max(-(-len(whole) // room), 1), limit)
        if len(whole) <= room * limit:
            assert list(chain(*inner)) == whole
            assert max(map(len, inner)) - min(map(len, inner)) <= 1
        else:
            assert all(len(part) == room for part in inner)
            assert inner[0] == whole[:room]
            assert limit == 1 or inner[-1] == whole[-room:]
            starts = np.diff([part[0] for part in inner])
            assert limit == 1 or starts.max() - starts.min() <= 1


def test_one_window_of_a_long_text_is_its_truncation() -> None:
    tokens = made(random_lengths(5))
    assert rows_of(windows(tokens, None, 9, FRAMED, limit=1)[0]) == rows_of(encode(tokens, None, 9, FRAMED))


def test_windows_of_pairs_cut_only_the_longer_text() -> None:
    first, second = random_lengths(2, most=14), random_lengths(3, most=50)
    one, two = made(first, 1000), made(second, 5000)
    length, taken = 24, 4
    room = length - taken
    found, owner = windows(one, two, length, FRAMED)
    for text, (a, b) in enumerate(zip(rows_of(one), rows_of(two), strict=True)):
        parts = [found[row].tolist() for row in np.flatnonzero(owner == text)]
        firsts = [[token for token in part if 1000 <= token < 5000] for part in parts]
        seconds = [[token for token in part if token >= 5000] for part in parts]
        for part, left, right in zip(parts, firsts, seconds, strict=True):
            assert part == [1, *left, 2, 3, *right, 2]
            assert len(part) <= length
        if len(a) + len(b) <= room:
            assert (firsts, seconds) == ([a], [b])
            continue
        shorter, longer, cut, pieces = (b, a, seconds, firsts) if len(a) >= len(b) else (a, b, firsts, seconds)
        assert all(part == shorter[: room // 2] for part in cut)
        assert list(chain(*pieces)) == longer


def test_a_limit_of_no_windows_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        windows(made([3]), None, 8, FRAMED, limit=0)


# --- fingerprints and speed


def test_derived_fingerprints_name_what_made_them() -> None:
    one, two = made([3, 4]), made([3, 4], 50)
    prints = [
        chunk(one, 8, FRAMED),
        chunk(one, 9, FRAMED),
        chunk(one, 8, BARE),
        chunk(two, 8, FRAMED),
        encode(one, None, 8, FRAMED),
        encode(one, two, 8, FRAMED),
        encode(two, one, 8, FRAMED),
        windows(one, None, 8, FRAMED)[0],
        windows(one, None, 8, FRAMED, limit=2)[0],
    ]
    assert len({tokens.fingerprint for tokens in prints}) == len(prints)
    assert chunk(made([3, 4]), 8, FRAMED).fingerprint == prints[0].fingerprint


def test_cutting_many_texts_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 65_536)
    tokens = made(np.random.default_rng(0).integers(1, 400, 20_000).tolist())
    start = time.process_time()
    chunk(tokens, 128, FRAMED)
    encode(tokens, tokens, 128, FRAMED)
    windows(tokens, tokens, 128, FRAMED)
    assert time.process_time() - start < 5
