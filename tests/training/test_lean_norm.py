"""The lean RMS norm: values and gradients of the written-out one, where that formula is and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Full, LoRA
from guidebook.training import lean_norm
from guidebook.training.layers import running
from guidebook.training.lean_norm import lean_norms
from guidebook.training.settings import Training
from tiny_causal import save

IDS = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0))
LEAN = {"llama": 5, "mistral": 5, "qwen2": 5, "qwen3": 9, "phi3": 5, "olmo2": 9}
"""Family -> its RMS norms: two layers with two each (and two on queries and keys), and the last."""
OTHERS = ["gemma2", "gpt2", "phi"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Host]:
    def get(family: str) -> Host:
        return Host.load(str(save(family, tmp_path_factory.mktemp(family))))

    return get


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the passes that the lean way takes."""
    seen: list[int] = []
    apply = lean_norm._RMSNorm.apply

    def counted(*arguments: Any) -> Any:
        seen.append(1)
        return apply(*arguments)

    monkeypatch.setattr(lean_norm._RMSNorm, "apply", counted)
    return seen


def adapted(host: Host, kind: Any) -> Host:
    host.add("domain", kind, seed=0)
    host.activate(("domain",), train=("domain",))
    for value in host.trainable().values() if kind.kind == "lora" else ():
        nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(value.numel()))
    return host


def run(host: Host, bf16: bool) -> dict[str, torch.Tensor]:
    host.model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = host.model(input_ids=IDS, use_cache=False).logits
    logits.float().square().mean().backward()
    gradients = {name: value.grad.clone() for name, value in host.trainable().items() if value.grad is not None}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("family", LEAN)
def test_values_and_gradients_are_those_of_the_written_out_norm(
    family: str, bf16: bool, base: Callable[[str], Host], passes: list[int]
) -> None:
    host = adapted(base(family), LoRA(rank=2))
    expected = run(host, bf16)
    assert not passes
    with lean_norms(host.model):
        found = run(host, bf16)
    inside = bf16 and family in ("qwen3", "olmo2")  # there autocast hands bf16 features to the norms in a layer
    assert inside or len(passes) >= LEAN[family] - 1  # the first norm's input has no gradient
    assert passes
    assert found.keys() == expected.keys()
    for name, value in found.items():
        error = (value - expected[name]).float().norm() / expected[name].float().norm()
        assert error < (3e-2 if bf16 else 1e-5), name
    run(host, bf16)
    assert len(passes) < 2 * LEAN[family]  # and none afterwards


def test_the_gradient_is_that_of_the_formula_in_double_precision() -> None:
    x = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda rows: lean_norm._RMSNorm.apply(rows, weight, 1e-3), (x,))


@pytest.mark.parametrize("family", OTHERS)
def test_other_norms_stay(family: str, base: Callable[[str], Host], passes: list[int]) -> None:
    host = adapted(base(family), LoRA(rank=2))
    expected = run(host, bf16=False)
    with lean_norms(host.model):
        found = run(host, bf16=False)
    assert not passes
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_norms_that_train_go_their_own_way(base: Callable[[str], Host], passes: list[int]) -> None:
    host = adapted(base("llama"), Full())
    with running(host, Training(dtype="float32")):
        found = run(host, bf16=False)
    assert not passes
    assert "model.norm.weight" in found


def test_a_stage_that_fails_leaves_the_norms_as_they_were(base: Callable[[str], Host]) -> None:
    host = adapted(base("llama"), LoRA(rank=2))

    def interrupted() -> None:
        with running(host, Training(dtype="float32")):
            assert "forward" in vars(host.model.model.norm)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [module for module in host.model.modules() if "forward" in vars(module)]
