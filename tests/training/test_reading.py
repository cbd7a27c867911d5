"""Reading text token by token against the plain forward of the base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Houlsby
from guidebook.data.masking import mask_tokens
from guidebook.data.streams import seed_for
from guidebook.data.tokens import chunk, read_specials, tokenise
from guidebook.training import reading
from guidebook.training.reading import read_text


def pieces_of(host: Host, texts: list[str]):
    return chunk(tokenise(texts, host.tokenizer), 16, read_specials(host.tokenizer))


def test_a_causal_base_is_read_at_every_next_token(tiny_base: Callable[[str], Path], texts: list[str]) -> None:
    host = Host.load(str(tiny_base("gpt2")))
    pieces = pieces_of(host, texts[:3])
    found = read_text(host, pieces, dtype="float32")
    expected, targets, followers = [], [], []
    for row in range(len(pieces)):
        ids = torch.tensor(np.asarray(pieces[row])[None].astype(np.int64))
        with torch.no_grad():
            logits = host.model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(1, ids.shape[1]):
            targets.append(int(ids[0, place]))
            expected.append(float(logits[place - 1, ids[0, place]]))
            followers.append(int(ids[0, place + 1]) if place + 1 < ids.shape[1] else -1)
    assert found.tokens.tolist() == targets
    assert found.followers.tolist() == followers
    np.testing.assert_allclose(found.log_probabilities, expected, atol=2e-5)
    assert found.loss == pytest.approx(-np.mean(expected), abs=1e-5)


def test_a_masked_base_is_read_where_it_is_masked(
    tiny_base: Callable[[str], Path], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TOKENS_PER_BATCH", 40)  # several batches
    host = Host.load(str(tiny_base("bert")))
    pieces, specials = pieces_of(host, texts), read_specials(host.tokenizer)
    found = read_text(host, pieces, rate=0.4, seed=5, dtype="float32")
    width, done = int(pieces.lengths.max()), 0
    for start in range(0, len(pieces), 40 // width):
        rows = [np.asarray(pieces[row]) for row in range(start, min(start + 40 // width, len(pieces)))]
        ids = torch.full((len(rows), width), specials.pad)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = torch.tensor(row.astype(np.int64)), True
        generator = torch.Generator().manual_seed(seed_for(5, "reading", str(start)))
        corrupted, places, targets = mask_tokens(ids, mask, specials, 0.4, generator=generator)
        with torch.no_grad():
            logits = host.model(input_ids=corrupted, attention_mask=mask.long()).logits.log_softmax(-1)
        for place, target in zip(places.tolist(), targets.tolist(), strict=True):
            row, column = divmod(place, width)
            assert found.tokens[done] == target
            assert found.log_probabilities[done] == pytest.approx(float(logits[row, column, target]), abs=2e-5)
            is_last = column + 1 == width or not mask[row, column + 1]
            assert found.followers[done] == (-1 if is_last else int(ids[row, column + 1]))
            done += 1
    assert done == len(found.tokens) > 10


def test_two_readings_are_paired_and_see_the_active_adapter(tiny_base: Callable[[str], Path], texts: list[str]) -> None:
    host = Host.load(str(tiny_base("bert")))
    pieces = pieces_of(host, texts)
    before = read_text(host, pieces, dtype="float32")
    host.add("domain", Houlsby(reduction=4), seed=0)
    host.activate(("domain",), train=())
    same = read_text(host, pieces, dtype="float32")
    np.testing.assert_array_equal(before.log_probabilities, same.log_probabilities)  # identity at initialisation
    torch.manual_seed(0)
    with torch.no_grad():
        for value in host._parameters("domain").values():
            value.add_(torch.randn_like(value))
    after = read_text(host, pieces, dtype="float32")
    np.testing.assert_array_equal(before.tokens, after.tokens)
    assert not np.allclose(before.log_probabilities, after.log_probabilities)
