"""Chunked cross-entropy equals the plain one: sum, gradients of rows and head, whatever comes after the head."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from guidebook.losses import chunked
from guidebook.losses.chunked import chunked_cross_entropy, finish_of, rows_together, token_losses, unchanged
from tiny_causal import config_of

FINISHES = {"none": unchanged, "cap": lambda x: torch.tanh(x / 0.5) * 0.5, "scale": lambda x: x * 0.3}
HEADS = {
    "frozen": lambda: nn.Linear(8, 37).requires_grad_(False),
    "frozen without bias": lambda: nn.Linear(8, 37, bias=False).requires_grad_(False),
    "trained": lambda: nn.Linear(8, 37),
    "of several modules": lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 37)).requires_grad_(False),
}


@pytest.fixture(params=[1, 50, 2**18], ids=lambda size: f"{size} logits in the cache")
def _cache(request, monkeypatch):
    monkeypatch.setattr(chunked, "IN_CACHE", request.param)


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("finish", FINISHES)
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("rows", [1, 3, 10, 100])
def test_loss_and_gradients_equal_the_plain_way(finish, kind, rows):
    torch.manual_seed(0)
    head = HEADS[kind]()
    values, targets = torch.randn(10, 8), torch.randint(0, 37, (10,))
    plain, ours = (values.clone().requires_grad_() for _ in range(2))
    expected = 3 * functional.cross_entropy(FINISHES[finish](head(plain)), targets, reduction="sum")
    expected.backward()
    wanted = [value.grad.clone() for value in head.parameters() if value.requires_grad]
    assert bool(wanted) == (kind == "trained")
    head.zero_grad()
    found = 3 * chunked_cross_entropy(ours, targets, head, FINISHES[finish], rows)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)
    for value, other in zip(head.parameters(), wanted, strict=bool(wanted)):
        torch.testing.assert_close(value.grad, other, rtol=1e-5, atol=1e-5)
    each = functional.cross_entropy(FINISHES[finish](head(values)), targets, reduction="none")
    torch.testing.assert_close(token_losses(values, targets, head, FINISHES[finish], rows), each, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("finish", FINISHES)
@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16])
def test_under_autocast_the_rounding_is_that_of_autocast(finish, held):
    """A head that is held in bf16 is the one that autocast would cast; hidden rows stay in float32."""
    torch.manual_seed(0)
    head = nn.Linear(8, 37).requires_grad_(False)
    values, targets = torch.randn(10, 8), torch.randint(0, 37, (10,))
    plain, ours = (values.clone().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        expected = functional.cross_entropy(FINISHES[finish](head(plain).float()), targets, reduction="sum")
        head.to(held)
        found = chunked_cross_entropy(ours, targets, head, FINISHES[finish], 3)
        each = token_losses(values, targets, head, FINISHES[finish], 3)
    expected.backward()
    found.backward()
    assert ours.grad.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(each.sum(), expected.detach(), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=2e-2, atol=2e-3)


def test_losses_far_from_zero_are_exact():
    """What is certain has a loss above zero, and what is impossible a finite one."""
    head = nn.Linear(1, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[0.0], [10.0], [200.0]]))
    for target, expected, slope in ((2, 0.0, 0.0), (0, 200.0, 200.0), (1, 190.0, 190.0)):
        rows = torch.ones(1, 1, requires_grad=True)
        loss = chunked_cross_entropy(rows, torch.tensor([target]), head, unchanged)
        loss.backward()
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        assert rows.grad.item() == pytest.approx(slope, abs=1e-4)
    small = nn.Linear(1, 2, bias=False).requires_grad_(False)
    small.weight.copy_(torch.tensor([[0.0], [12.0]]))
    rows = torch.ones(1, 1, requires_grad=True)
    loss = chunked_cross_entropy(rows, torch.tensor([1]), small, unchanged)
    loss.backward()
    exact = torch.tensor(-12.0, dtype=torch.float64).exp()
    assert loss.item() == pytest.approx(float(exact.log1p()), rel=2e-2)  # one float32 step beside 1 is 1.2e-7
    assert rows.grad.item() == pytest.approx(float(12 * (1 / (1 + exact) - 1)), rel=2e-2)


def test_no_more_logits_than_asked_for_are_there_at_once():
    seen = []
    head = nn.Linear(4, 50)
    head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    rows = torch.randn(11, 4, requires_grad=True)
    chunked_cross_entropy(rows, torch.zeros(11, dtype=torch.long), head, unchanged, rows=4).backward()
    assert seen == [(0, 50), (4, 50), (4, 50), (3, 50)]  # none to see what moves; and not once more for the gradient


def test_a_frozen_head_s_products_are_taken_once_in_each_direction_and_its_weights_are_cast_once():
    head = nn.Linear(4, 50, bias=False).requires_grad_(False)
    rows = torch.randn(11, 4, requires_grad=True)
    with torch.profiler.profile() as found, torch.autocast("cpu", torch.bfloat16):
        chunked_cross_entropy(rows, torch.zeros(11, dtype=torch.long), head, unchanged, rows=4).backward()
    counts = {event.key: event.count for event in found.key_averages()}
    assert counts["aten::mm"] == 2 * 3
    with torch.profiler.profile(record_shapes=True) as found, torch.autocast("cpu", torch.bfloat16):
        chunked_cross_entropy(rows, torch.zeros(11, dtype=torch.long), head, unchanged, rows=4).backward()
    casts = [e for e in found.events() if e.name == "aten::_to_copy" and e.input_shapes[0] == [50, 4]]
    assert len(casts) == 1


def test_no_rows_give_zero():
    for frozen in (True, False):
        head = nn.Linear(4, 5).requires_grad_(not frozen)
        rows, nothing = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long)
        loss = chunked_cross_entropy(rows, nothing, head, unchanged)
        loss.backward()
        assert loss.item() == 0
        assert rows.grad.shape == (0, 4)
        assert token_losses(rows, nothing, head, unchanged).shape == (0,)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_chunks_are_large_enough_to_amortise_the_weights_and_small_enough_for_memory(device):
    for vocabulary in (2, 500, 8_000, 49_152, 151_936, 262_144, 10**6, 10**9):
        rows = rows_together(vocabulary, device)
        assert rows >= 1
        assert rows * vocabulary <= chunked.MOST or rows == 1
        assert device == "cuda" or rows >= 128 or rows * vocabulary > chunked.MOST / 2 or vocabulary > chunked.MOST


@pytest.mark.parametrize(("family", "at_two"), [("llama", 2.0), ("cohere", 0.5), ("granite", 2 / 3)])
def test_what_comes_after_the_head_is_read_from_the_configuration(family, at_two):
    assert finish_of(config_of(family, 60))(torch.tensor(2.0)).item() == pytest.approx(at_two)


def test_soft_caps_are_kept():
    assert finish_of(config_of("gemma2", 60))(torch.tensor(100.0)).item() == pytest.approx(0.7)
