"""The hook gathers what the head is asked for and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from guidebook.adapters.host import Host
from guidebook.training.tap import Tap
from tiny import FAMILIES


@pytest.fixture(params=FAMILIES)
def host(request, tiny_base) -> Host:
    return Host.load(str(tiny_base(request.param)))


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 150, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_gathered_logits_equal_the_head_everywhere(host: Host) -> None:
    host.model.eval()
    positions = torch.tensor([0, 3, 8, 20])
    with torch.no_grad():
        everywhere = host.model(**inputs()).logits.flatten(0, 1)
        with Tap(host.lm_head) as tap:
            tapped = tap.run(host.model, inputs(), positions)
    hidden, logits = tapped.hidden, tapped.logits
    assert hidden.shape == (3, 7, 16)
    torch.testing.assert_close(logits, everywhere[positions], rtol=1e-5, atol=1e-6)


def test_zero_positions_are_legal_and_the_hidden_state_is_the_last_one(host: Host) -> None:
    host.model.eval()
    with torch.no_grad(), Tap(host.lm_head) as tap:
        tapped = tap.run(host.model, inputs(), torch.zeros(0, dtype=torch.long))
        last = host.model(**inputs(), output_hidden_states=True).hidden_states[-1]
    assert tapped.logits.shape[0] == 0
    assert torch.equal(tapped.hidden, last)


def test_the_hook_is_gone_afterwards(host: Host) -> None:
    before = host.model(**inputs()).logits
    with Tap(host.lm_head) as tap:
        tap.run(host.model, inputs(), torch.tensor([1]))
    assert torch.equal(host.model(**inputs()).logits, before)
    assert not host.lm_head._forward_pre_hooks


def test_gradients_equal_those_of_the_head_everywhere(host: Host) -> None:
    from guidebook.adapters.presets import Houlsby

    host.add("task", Houlsby(reduction=4), seed=0)
    host.activate(("task",), train=("task",))
    positions = torch.tensor([2, 9, 15])
    goals = torch.tensor([6, 7, 8])
    host.model(**inputs()).logits.flatten(0, 1)[positions].log_softmax(-1)[range(3), goals].sum().backward()
    slow = {name: value.grad.clone() for name, value in host.trainable().items()}
    host.model.zero_grad()
    with Tap(host.lm_head) as tap:
        tap.run(host.model, inputs(), positions).logits.log_softmax(-1)[range(3), goals].sum().backward()
    for name, value in host.trainable().items():
        torch.testing.assert_close(value.grad, slow[name], rtol=1e-4, atol=1e-6)
