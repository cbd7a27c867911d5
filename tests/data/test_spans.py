"""Hidden spans: what goes in one end comes out of the other."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from guidebook.data.spans import SPAN, _split, choose_spans, hide_spans
from guidebook.data.tokens import Specials
from guidebook.errors import InputError

SENTINELS = tuple(range(90, 100))
T5 = Specials((), (1,), (1,), None, 0, frozenset({0, 1, *SENTINELS}), None, 100, SENTINELS)
BART = Specials((2,), (3, 3), (3,), 4, 0, frozenset({0, 2, 3, 4}), None, 100)


def rows(specials: Specials, lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), max(lengths) + len(specials.before) + len(specials.after)), np.int64)
    mask = np.zeros_like(ids, bool)
    for row, length in enumerate(lengths):
        made = [*specials.before, *generator.integers(10, 80, length), *specials.after]
        ids[row, : len(made)], mask[row, : len(made)] = made, True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def put_back(read: list[int], write: list[int]) -> list[int]:
    """The slow way back: every sentinel of the text gives way to what stands after it in the answer."""
    spans: dict[int, list[int]] = {}
    for token in write[:-1]:
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    return [part for token in read for part in (spans[token] if token in SENTINELS else [token])]


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
def test_sentinels_stand_for_what_the_decoder_writes(rate):
    ids, mask = rows(T5, [40, 7, 1, 23])
    read, read_mask, write, write_mask = hide_spans(ids, mask, T5, rate, generator=np.random.default_rng(1))
    assert read.shape == read_mask.shape
    assert write.shape == write_mask.shape
    for row in range(len(ids)):
        source, answer = read[row][read_mask[row]].tolist(), write[row][write_mask[row]].tolist()
        assert put_back(source, answer) == ids[row][mask[row]].tolist()
        used = [token for token in source if token in SENTINELS]
        assert used == list(SENTINELS[: len(used)])
        assert [token for token in answer if token in SENTINELS] == list(SENTINELS[: len(used) + 1])
        assert answer[-2:] == [SENTINELS[len(used)], 1]
        hidden = sum(token not in (*SENTINELS, 1) for token in answer)
        length = int(mask[row].sum()) - 1
        assert hidden == max(1, round(rate * length)) or len(used) == len(SENTINELS) - 1
    assert not read[~read_mask].any()
    assert not write[~write_mask].any()


def test_infilling_puts_one_mask_for_a_span_and_writes_the_whole_row():
    ids, mask = rows(BART, [40, 7, 23])
    read, read_mask, write, write_mask = hide_spans(ids, mask, BART, 0.3, generator=np.random.default_rng(1))
    assert torch.equal(write, ids)
    assert torch.equal(write_mask, mask)
    for row in range(len(ids)):
        source, whole = read[row][read_mask[row]].tolist(), ids[row][mask[row]].tolist()
        assert (source[0], source[-1]) == (2, 3)
        assert not [one for one, two in pairwise(source) if one == two == 4]
        length = len(whole) - 2
        assert len(whole) - len(source) + source.count(4) == round(0.3 * length)
        left, place = [token for token in source if token != 4], 0
        for token in left:  # what is left stands in the same order
            place = whole.index(token, place) + 1


def test_spans_have_the_mean_length_and_are_spread_evenly():
    generator = np.random.default_rng(0)
    lengths, hidden, count = [], np.zeros(60), 3000
    for _ in range(count):
        spans = choose_spans(np.ones(60, bool), 0.15, 0, generator)
        assert all(0 <= start < stop <= 60 for start, stop in spans)
        assert all(one[1] < two[0] for one, two in pairwise(spans))
        lengths += [stop - start for start, stop in spans]
        for start, stop in spans:
            hidden[start:stop] += 1
    assert np.mean(lengths) == pytest.approx(SPAN)
    assert hidden.sum() == 9 * count
    assert hidden.min() > 0.05 * count  # no place is out of reach, none is sure
    assert hidden.max() < 0.25 * count


def test_spans_never_reach_over_special_tokens_and_never_want_more_sentinels_than_there_are():
    allowed = np.ones(40, bool)
    allowed[[0, 13, 14, 39]] = False
    generator = np.random.default_rng(0)
    for _ in range(200):
        spans = choose_spans(allowed, 0.6, 0, generator)
        assert all(allowed[start:stop].all() for start, stop in spans)
    assert len(choose_spans(np.ones(400, bool), 0.5, 10, generator)) == 9
    assert choose_spans(np.zeros(5, bool), 0.5, 0, generator) == []
    assert choose_spans(np.ones(1, bool), 0.15, 0, generator) == [(0, 1)]


def test_every_way_to_split_is_equally_likely():
    generator = np.random.default_rng(0)
    found = Counter(tuple(_split(3, 3, generator).tolist()) for _ in range(5000))
    assert len(found) == 10  # (3 + 2 choose 2)
    assert all(sum(parts) == 3 for parts in found)
    assert min(found.values()) > 400
    assert _split(0, 2, generator).tolist() == [0, 0]


def test_the_generator_decides_alone_and_a_tokenizer_without_either_is_refused():
    ids, mask = rows(T5, [30, 30])
    one, two, other = (hide_spans(ids, mask, T5, 0.15, generator=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    bare = Specials((), (), (), None, 0, frozenset({0}), None, 100)
    with pytest.raises(InputError, match="no mask token"):
        hide_spans(ids, mask, bare, 0.15, generator=np.random.default_rng(0))
