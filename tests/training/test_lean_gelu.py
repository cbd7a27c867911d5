"""The lean GELU: bits of the written-out one, the gradient of its formula, and only while a stage trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.activations import NewGELUActivation

from guidebook.adapters.host import Host
from guidebook.training.layers import running
from guidebook.training.lean_gelu import LeanGELU
from guidebook.training.settings import Training
from tiny_causal import save

IDS = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0))


def written_out(host: Host) -> list[torch.nn.Module]:
    return [module for module in host.model.modules() if isinstance(module, NewGELUActivation)]


def test_an_activation_that_is_written_out_is_lean_while_a_stage_trains(tmp_path: Path) -> None:
    host = Host.load(str(save("gptj", tmp_path / "gptj")))
    before = written_out(host)
    expected = host.model(input_ids=IDS).logits
    assert before

    def interrupted() -> None:
        with running(host, Training()):
            assert not written_out(host)
            assert torch.equal(host.model(input_ids=IDS).logits, expected)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written_out(host) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_lean_activation_is_the_written_out_one(dtype: torch.dtype) -> None:
    """Values bit for bit, gradients against autograd's of the eight passes in double precision."""
    values = torch.cat([torch.linspace(-6, 6, 401), torch.tensor([-60.0, 60.0])]).to(dtype)
    ours, exact = values.clone().requires_grad_(), values.double().requires_grad_()
    found, expected = LeanGELU()(ours), NewGELUActivation()(exact)
    assert torch.equal(found, NewGELUActivation()(values))
    slopes = torch.linspace(1, 2, len(values))
    found.backward(slopes.to(dtype))
    expected.backward(slopes.to(dtype).double())
    assert ours.grad is not None
    assert exact.grad is not None
    # 1 + tanh cancels where it is near zero: a few units of float32's rounding, times x
    precise = {"rtol": 1e-5, "atol": 5e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(ours.grad.double(), exact.grad, **precise)
