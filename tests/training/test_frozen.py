"""Frozen matrices that are cast once a stage compute what autocast computes, and are back afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Full, Houlsby, Kind, LoRA
from guidebook.training.frozen import frozen_in
from guidebook.training.layers import running
from guidebook.training.settings import Training
from tiny_causal import save

KINDS: dict[str, Kind] = {"lora": LoRA(rank=2), "houlsby": Houlsby(reduction=4), "full": Full()}
FAMILIES = ["bert", "t5", "albert", "gpt2", "llama", "phi"]


@pytest.fixture(scope="module")
def host_of(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Host]:
    def made(family: str, kind: str) -> Host:
        causal = family in ("gpt2", "llama", "phi")
        host = Host.load(str(save(family, tmp_path_factory.mktemp(family)) if causal else tiny_base(family)))
        host.add("domain", KINDS[kind], seed=0)
        host.activate(("domain",), train=("domain",))
        for value in host.trainable().values():
            nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(value.numel()))
        return host

    return made


def run(host: Host) -> dict[str, Tensor]:
    """Return logits and every gradient of one pass under autocast."""
    ids = torch.tensor([[5, 6, 7, 8], [9, 5, 7, 6]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if host.placement.kind == "seq2seq":
        inputs["decoder_input_ids"] = ids
    with torch.autocast("cpu", torch.bfloat16):
        logits = host.model(**inputs).logits
    host.model.zero_grad()
    logits.float().pow(2).mean().backward()
    found = {name: value.grad.clone() for name, value in host.trainable().items() if value.grad is not None}
    return {"logits": logits.detach().float(), **found}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["lora", "houlsby"])
def test_values_and_gradients_are_those_of_autocast_to_the_bit(family: str, kind: str, host_of: Callable) -> None:
    host = host_of(family, kind)
    before, parameters = run(host), dict(host.model.named_parameters(remove_duplicate=False))
    with frozen_in(host.model, torch.bfloat16):
        held = [m.weight for m in host.model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.bfloat16]
        assert held or family == "gpt2"
        assert all(value.dtype == torch.float32 for value in host.trainable().values())
        found = run(host)
    assert found.keys() == before.keys()
    assert len(found) > 1
    for name, value in found.items():
        assert torch.equal(value, before[name]), name
    after = dict(host.model.named_parameters(remove_duplicate=False))
    assert after.keys() == parameters.keys()
    assert all(after[name] is value for name, value in parameters.items())
    host.check_base()


def test_embeddings_that_a_head_shares_stay_and_what_trains_stays(host_of: Callable) -> None:
    host = host_of("gpt2", "full")
    with frozen_in(host.model, torch.bfloat16):
        assert {value.dtype for value in host.model.parameters()} == {torch.float32}
    host = host_of("gpt2", "lora")
    with frozen_in(host.model, torch.bfloat16):
        assert host.model.get_input_embeddings().weight.dtype == torch.float32
        assert host.lm_head.weight.dtype == torch.bfloat16
    assert host.lm_head.weight is host.model.get_input_embeddings().weight


def test_a_stage_in_bf16_casts_no_frozen_matrix_in_its_steps(host_of: Callable) -> None:
    host = host_of("llama", "lora")
    frozen = {tuple(value.shape) for value in host.model.parameters() if value.ndim == 2 and not value.requires_grad}
    with running(host, Training(dtype="bfloat16")), torch.profiler.profile(record_shapes=True) as found:
        run(host)
    casts = [event.input_shapes[0] for event in found.events() if event.name == "aten::_to_copy"]
    assert casts
    assert not [shape for shape in casts if tuple(shape) in frozen]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stage_that_fails_leaves_the_base_as_it_was(dtype: str, host_of: Callable) -> None:
    host = host_of("llama", "lora")
    before = dict(host.model.named_parameters())

    def interrupted() -> None:
        with running(host, Training(dtype=dtype)):  # type: ignore[arg-type]
            assert (host.lm_head.weight.dtype == torch.bfloat16) == (dtype == "bfloat16")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(value is before[name] for name, value in host.model.named_parameters())
    host.check_base()


def test_processes_that_may_shard_the_model_keep_one_type(host_of: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of("llama", "lora")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with running(host, Training(dtype="bfloat16")):
        assert {value.dtype for value in host.model.parameters()} == {torch.float32}
