"""Chunked cross-entropy equals the plain one: sum, gradients of rows and head, whatever comes after the head."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from guidebook.losses.chunked import chunked_cross_entropy, finish_of, token_losses
from tiny_causal import config_of

FINISHES = {"none": lambda x: x, "cap": lambda x: torch.tanh(x / 0.5) * 0.5, "scale": lambda x: x * 0.3}


@pytest.mark.parametrize("finish", FINISHES)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("elements", [1, 37 * 3, 10**6])
def test_loss_and_gradients_equal_the_plain_way(finish, trained, elements):
    torch.manual_seed(0)
    head = nn.Linear(8, 37).requires_grad_(trained)
    rows, targets = torch.randn(10, 8), torch.randint(0, 37, (10,))
    plain, ours = (rows.clone().requires_grad_() for _ in range(2))
    expected = 3 * functional.cross_entropy(FINISHES[finish](head(plain)), targets, reduction="sum")
    expected.backward()
    wanted = [value.grad.clone() for value in head.parameters()] if trained else []
    head.zero_grad()
    found = 3 * chunked_cross_entropy(ours, targets, head, FINISHES[finish], elements)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)
    for value, other in zip(head.parameters(), wanted, strict=False):
        torch.testing.assert_close(value.grad, other, rtol=1e-5, atol=1e-5)
    each = functional.cross_entropy(FINISHES[finish](head(rows)), targets, reduction="none")
    torch.testing.assert_close(
        token_losses(rows, targets, head, FINISHES[finish], elements), each, rtol=1e-6, atol=1e-6
    )


def test_no_more_logits_than_asked_for_are_there_at_once():
    seen = []
    head = nn.Linear(4, 50)
    head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    rows = torch.randn(11, 4, requires_grad=True)
    chunked_cross_entropy(rows, torch.zeros(11, dtype=torch.long), head, lambda x: x, elements=200).backward()
    assert seen == [(0, 50), (4, 50), (4, 50), (3, 50)]  # none to see what moves; and not once more for the gradient


def test_no_rows_give_zero():
    head = nn.Linear(4, 5)
    rows, nothing = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.long)
    loss = chunked_cross_entropy(rows, nothing, head, lambda x: x)
    loss.backward()
    assert loss.item() == 0
    assert token_losses(rows, nothing, head, lambda x: x).shape == (0,)


@pytest.mark.parametrize(("family", "at_two"), [("llama", 2.0), ("cohere", 0.5), ("granite", 2 / 3)])
def test_what_comes_after_the_head_is_read_from_the_configuration(family, at_two):
    assert finish_of(config_of(family, 60))(torch.tensor(2.0)).item() == pytest.approx(at_two)


def test_soft_caps_are_kept():
    assert finish_of(config_of("gemma2", 60))(torch.tensor(100.0)).item() == pytest.approx(0.7)
