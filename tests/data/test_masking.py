"""Masks: rates, what is never touched, and one generator for all of it."""

from __future__ import annotations

import pytest
import torch

from guidebook.data.masking import mask_tokens
from guidebook.data.tokens import Specials
from guidebook.errors import InputError

SPECIALS = Specials((1,), (2,), (2,), 4, 0, frozenset({0, 1, 2, 3, 4, 17, 49}), 2, 50)
ORDINARY = [token for token in range(50) if token not in SPECIALS.ids]


def batch(rows: int = 200, length: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor(ORDINARY)[torch.randint(0, len(ORDINARY), (rows, length), generator=generator)]
    attention = torch.arange(length) < torch.randint(4, length + 1, (rows, 1), generator=generator)
    ids[:, 0], ids[:, 3] = 1, 17
    return torch.where(attention, ids, 0), attention


def masked(
    ids: torch.Tensor, attention: torch.Tensor, rate: float = 0.15, seed: int = 0, specials: Specials = SPECIALS
):
    return mask_tokens(ids, attention, specials, rate, generator=torch.Generator().manual_seed(seed))


def test_places_targets_and_corruption_agree() -> None:
    ids, attention = batch()
    before = ids.clone()
    corrupted, places, targets = masked(ids, attention)
    assert torch.equal(ids, before)
    assert places.dtype == torch.int64
    assert torch.equal(places, places.unique())
    assert torch.equal(ids.flatten()[places], targets)
    untouched = torch.ones(ids.numel(), dtype=torch.bool)
    untouched[places] = False
    assert torch.equal(corrupted.flatten()[untouched], ids.flatten()[untouched])
    assert corrupted.shape == ids.shape


def test_special_and_padding_tokens_are_never_chosen_or_drawn() -> None:
    ids, attention = batch()
    corrupted, places, targets = masked(ids, attention, rate=1.0)
    allowed = attention & ~torch.isin(ids, torch.tensor(sorted(SPECIALS.ids)))
    assert torch.equal(places, allowed.flatten().nonzero().flatten())
    put = corrupted.flatten()[places]
    drawn = put[(put != 4) & (put != targets)]
    assert set(drawn.tolist()) == set(ORDINARY)
    padding = batch()[0].clone()
    padding[:] = 9  # ordinary tokens under the padding
    assert attention.flatten()[masked(padding, attention, rate=1.0)[1]].all()


def test_rates_are_fifteen_and_eighty_ten_ten() -> None:
    ids, attention = batch(2000)
    corrupted, places, targets = masked(ids, attention)
    allowed = (attention & ~torch.isin(ids, torch.tensor(sorted(SPECIALS.ids)))).sum().item()
    assert len(places) / allowed == pytest.approx(0.15, abs=0.005)
    put = corrupted.flatten()[places]
    kept_by_chance = 0.1 / len(ORDINARY)
    assert (put == 4).float().mean().item() == pytest.approx(0.8, abs=0.015)
    assert (put == targets).float().mean().item() == pytest.approx(0.1 + kept_by_chance, abs=0.01)
    drawn = put[(put != 4) & (put != targets)]
    counts = torch.bincount(drawn, minlength=50)[ORDINARY].float()
    assert (counts / counts.mean()).std().item() < 0.3


def test_masks_follow_the_generator_and_nothing_else() -> None:
    ids, attention = batch(10)
    state = torch.random.get_rng_state()
    one, two, other = masked(ids, attention), masked(ids, attention), masked(ids, attention, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])


def test_at_least_one_token_is_chosen_where_any_may_be() -> None:
    ids, attention = torch.tensor([[1, 7, 2, 0], [1, 8, 2, 0]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]]).bool()
    places = {masked(ids, attention, rate=1e-9, seed=seed)[1].item() for seed in range(40)}
    assert places == {1, 5}
    corrupted, places, targets = masked(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool))
    assert (corrupted.tolist(), len(places), len(targets)) == ([[1, 2]], 0, 0)


def test_int32_ids_and_int_attention_are_fine() -> None:
    ids, attention = batch(5)
    expected = masked(ids, attention)
    found = masked(ids.int(), attention.long())
    assert found[0].dtype == found[2].dtype == torch.int32
    assert torch.equal(found[0].long(), expected[0])


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    bare = Specials((), (), (), None, 0, frozenset({0}), None, 50)
    with pytest.raises(InputError, match="no mask token"):
        masked(*batch(2), specials=bare)
