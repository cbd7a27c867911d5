"""Lean LoRA: values and gradients of PEFT's own layer, and PEFT's way wherever it is not the plain case."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from guidebook.adapters.host import Host
from guidebook.adapters.presets import LoRA
from guidebook.peft import low_rank
from guidebook.peft.low_rank import LeanLoRA

ROWS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(8, 12),
    "linear without bias": lambda: nn.Linear(8, 12, bias=False),
    "Conv1D": lambda: Conv1D(12, 8),
}


def adapted(maker: Callable[[], nn.Module], *, adapters: int = 1, **settings: Any) -> LeanLoRA:
    """Return a lean layer whose update is not nought, with the given number of adapters, all active."""
    torch.manual_seed(0)
    base = maker()
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["0"], fan_in_fan_out=isinstance(base, Conv1D), **settings)
    model = PeftModel(nn.Sequential(base), config, adapter_name="a")  # type: ignore[arg-type]
    for name in "bc"[: adapters - 1]:
        model.add_adapter(name, config)
    layer: Any = model.base_model.model[0]
    layer.set_adapter(list("abc"[:adapters]))
    for up in layer.lora_B.values():
        nn.init.normal_(up.weight)
    low_rank.lean(layer)
    assert type(layer) is LeanLoRA
    return layer


def run(layer: nn.Module, forward: Callable[..., Tensor], context: Any) -> dict[str, Tensor]:
    """Return the output of one pass and every gradient that it leaves."""
    layer.zero_grad()
    rows = ROWS.clone().requires_grad_()
    with context:
        found = forward(layer, rows)
    found.float().pow(2).sum().backward()
    gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    assert rows.grad is not None
    return {"output": found.detach(), "rows": rows.grad, **gradients}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the passes that the lean way takes."""
    seen: list[int] = []
    apply = low_rank._LowRank.apply

    def counted(*arguments: Any) -> Any:
        seen.append(1)
        return apply(*arguments)

    monkeypatch.setattr(low_rank._LowRank, "apply", counted)
    return seen


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("adapters", [1, 2, 3])
def test_values_and_gradients_are_those_of_peft(name: str, bf16: bool, adapters: int, passes: list[int]) -> None:
    layer = adapted(MAKERS[name], adapters=adapters)
    context = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    found, expected = run(layer, LeanLoRA.forward, context), run(layer, PeftLinear.forward, context)
    assert len(passes) == 1
    assert found.keys() == expected.keys()
    assert sum("lora" in key for key in found) == 2 * adapters
    for key, value in found.items():
        assert value.dtype == expected[key].dtype
        error = (value - expected[key]).float().norm() / expected[key].float().norm()
        assert error < (2e-2 if bf16 else 1e-5), key  # bf16: eight bits, and PEFT rounds the update once more


def test_the_update_is_the_paper_s_formula() -> None:
    layer = adapted(MAKERS["linear"])
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    down, up = layer.lora_A["a"].weight, layer.lora_B["a"].weight
    for found, row in zip(layer(ROWS).reshape(-1, 12), ROWS.reshape(-1, 8), strict=True):
        for place in range(12):
            update = sum(up[place, r] * (down[r] @ row) for r in range(2)) * 6 / 2
            torch.testing.assert_close(found[place], weight[place] @ row + bias[place] + update)


@pytest.mark.parametrize("shape", [(8,), (3, 8), (3, 5, 8), (2, 3, 5, 8), (0, 5, 8)])
@pytest.mark.parametrize(
    "change", [lambda y: y.div_(2), lambda y: y.add_(1), lambda y: y.view(-1).mul_(3).view(y.shape)]
)
def test_outputs_may_be_changed_in_place(shape: tuple[int, ...], change: Callable[[Tensor], Tensor]) -> None:
    layer = adapted(MAKERS["linear"]).double()
    gradients = []
    for forward in (LeanLoRA.forward, PeftLinear.forward):
        layer.zero_grad()
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        change(forward(layer, rows)).square().sum().backward()
        down, up = layer.lora_A["a"].weight, layer.lora_B["a"].weight
        gradients.append((rows.grad, down.grad, up.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_an_input_without_a_gradient_costs_none_and_a_frozen_adapter_passes_it_on() -> None:
    layer = adapted(MAKERS["linear"])
    layer(ROWS).sum().backward()
    learned = layer.lora_A["a"].weight.grad
    assert learned is not None
    assert learned.abs().sum() > 0
    layer.zero_grad()
    layer.requires_grad_(False)
    rows = ROWS.clone().requires_grad_()
    layer(rows).sum().backward()
    weight = layer.base_layer.weight + layer.get_delta_weight("a")
    torch.testing.assert_close(rows.grad, weight.sum(0).expand_as(ROWS))
    assert layer.lora_A["a"].weight.grad is None


def hooked(layer: LeanLoRA) -> None:
    layer.base_layer.register_forward_hook(lambda module, inputs, output: output * 2)


def replaced(layer: LeanLoRA) -> None:
    forward = layer.base_layer.forward
    layer.base_layer.forward = lambda rows: forward(rows) * 2


OTHERS: dict[str, tuple[dict[str, Any], Callable[[LeanLoRA], Any]]] = {
    "none": ({}, lambda layer: layer.set_adapter([])),
    "disabled": ({}, lambda layer: layer.enable_adapters(False)),
    "merged": ({}, lambda layer: layer.merge()),
    "a base that moves": ({}, lambda layer: layer.base_layer.weight.requires_grad_()),
    "a base's bias that moves": ({}, lambda layer: layer.base_layer.bias.requires_grad_()),
    "a base of another dtype": ({}, lambda layer: layer.base_layer.double()),
    "a bias in the update": ({"lora_bias": True}, lambda layer: None),
    "DoRA": ({"use_dora": True}, lambda layer: None),
    "dropout": ({"lora_dropout": 0.5}, lambda layer: layer.train()),
    "a hook": ({}, hooked),
    "a forward of its own": ({}, replaced),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_plain_goes_peft_s_way(name: str, passes: list[int]) -> None:
    settings, prepare = OTHERS[name]
    layer = adapted(MAKERS["linear"], **settings)
    prepare(layer)
    rows = ROWS.double() if name == "a base of another dtype" else ROWS
    torch.manual_seed(1)
    found = layer(rows)
    torch.manual_seed(1)
    assert torch.equal(found, PeftLinear.forward(layer, rows))
    assert not passes


def test_dropout_at_rest_is_lean(passes: list[int]) -> None:
    layer = adapted(MAKERS["linear"], lora_dropout=0.5).eval()
    torch.testing.assert_close(layer(ROWS), PeftLinear.forward(layer, ROWS))
    assert passes


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_adapters_of_a_host_are_lean(family: str, tiny_base: Callable[[str], Path], passes: list[int]) -> None:
    host = Host.load(str(tiny_base(family)))
    host.add("domain", LoRA(rank=2), seed=0)
    host.activate(("domain",), train=("domain",))
    layers = [module for module in host.model.modules() if isinstance(module, PeftLinear)]
    host.model(input_ids=torch.tensor([[5, 6, 7]]))
    assert len(passes) == len(layers) > 0
