"""Every kind of adapter on every architecture that is declared to take it, and how their bases are held in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guidebook.adapters.families import NOT_CHECKPOINTED, why_not
from guidebook.adapters.host import Host
from guidebook.adapters.placement import PLACEMENTS
from guidebook.adapters.presets import KINDS, Houlsby
from guidebook.errors import InputError
from guidebook.training.layers import check_layers, running
from guidebook.training.settings import Training
from guidebook.training.tap import Tap
from tiny import FAMILIES, small_adapter

IDS = torch.randint(5, 150, (3, 9), generator=torch.Generator().manual_seed(0))
POSITIONS = torch.tensor([0, 3, 9, 14, 20])
HEADS = {"masked": "MaskedLM", "causal": "CausalLM LMHeadModel", "seq2seq": "ForConditionalGeneration"}
FAST = {("houlsby", "t5"), ("lora", "gpt2"), ("lora", "t5"), *(("houlsby", family) for family in FAMILIES)}


def pairs() -> Iterator[Any]:
    for family in PLACEMENTS:
        for kind in KINDS:
            fast = family == "bert" or (kind, family) in FAST
            yield pytest.param(kind, family, marks=() if fast else pytest.mark.slow, id=f"{family}-{kind}")


@pytest.fixture(scope="module")
def load(tiny_base: Callable[[str], Path]) -> Callable[..., Host]:
    """(family, **how it is held) -> a host without adapters, loaded once."""
    made: dict[tuple[Any, ...], Host] = {}

    def get(family: str, **held: Any) -> Host:
        key = (family, *held.items())
        if key not in made:
            made[key] = Host.load(str(tiny_base(family)), **held)
        host = made[key]
        host.model.eval()
        for name in host.names:
            host.remove(name)
        return host

    return get


def inputs(host: Host) -> dict[str, torch.Tensor]:
    mask = torch.ones_like(IDS)
    mask[1, 6:] = 0
    given = {"input_ids": IDS, "attention_mask": mask}
    if host.placement.kind == "seq2seq":
        given |= {"decoder_input_ids": IDS, "decoder_attention_mask": mask}
    return given


@torch.no_grad()
def logits(host: Host) -> torch.Tensor:
    return host.model(**inputs(host)).logits


@torch.no_grad()
def shake(host: Host, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    state = host.state(name)
    moved = {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in state.items()}
    host.load_state(name, None, {key: moved[key].to(value.dtype) for key, value in state.items()})


def gradients(host: Host) -> dict[str, torch.Tensor | None]:
    """Gradients of everything in the model, of a loss on hidden states and on the logits of some positions."""
    host.model.train()
    host.model.zero_grad(set_to_none=True)
    with Tap(host.lm_head) as tap:
        out = tap.run(host.model, inputs(host), POSITIONS)
    (out.logits.float().square().mean() + out.hidden.float().square().mean()).backward()
    host.model.eval()
    return {name: parameter.grad for name, parameter in host.model.named_parameters()}


@pytest.mark.parametrize(("kind", "family"), list(pairs()))
def test_a_declared_pair_keeps_every_contract_and_others_are_refused(kind, family, load, tmp_path):
    host, adapter = load(family), small_adapter(kind)
    assert any(word in type(host.model).__name__ for word in HEADS[host.placement.kind].split())
    if why_not(kind, family):
        with pytest.raises(InputError):
            host.add("domain", adapter, 0)
        return
    base = logits(host)
    host.add("domain", adapter, seed=3)
    host.activate(["domain"], train=["domain"])
    assert torch.equal(logits(host), base)  # identity at initialisation, bit for bit

    shake(host, "domain")
    moved = logits(host)
    assert not torch.allclose(moved, base, atol=1e-3)
    found = gradients(host)
    assert {name for name, value in found.items() if value is not None} == set(host.trainable())
    assert all(found[name].isfinite().all() for name in host.trainable())
    if kind != "full":  # a mixture leaves experts out, tiny vocabularies words
        assert all(found[name].any() for name in host.trainable())
        host.copy("domain", "task")
        host.activate(["domain", "task"], train=["task"])
        assert host.trainable()
        assert all(".task." in f"{name}." for name, value in gradients(host).items() if value is not None)
        host.remove("task")
        host.activate(["domain"])

    with torch.no_grad(), Tap(host.lm_head) as tap:
        tapped = tap.run(host.model, inputs(host), POSITIONS, layers=True)
    torch.testing.assert_close(tapped.logits, moved.flatten(0, 1)[POSITIONS], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tapped.hidden * host.hidden_scale, tapped.states[-1], rtol=1e-5, atol=1e-6)
    assert len(tapped.states) == host.layers + 1
    assert tapped.hidden.shape[-1] == host.hidden_size

    state = host.state("domain")
    host.save("domain", tmp_path)
    host.remove("domain")
    assert torch.equal(logits(host), base)
    host.load_adapter("again", tmp_path)
    host.activate(["again"])
    assert torch.equal(logits(host), moved)
    again = host.state("again")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    with host.disabled():
        assert torch.equal(logits(host), base)
    host.check_base()


# how a base is held


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("kind", "family"), list(pairs()))
def test_adapters_of_a_half_precision_base_are_float32(kind, family, dtype, load, tmp_path):
    host = load(family, dtype=dtype)
    if kind == "full":
        with pytest.raises(InputError, match=f"base_dtype: {dtype}"):
            host.add("domain", small_adapter(kind), 0)
        return
    if why_not(kind, family):
        return
    base = logits(host)
    assert base.dtype == getattr(torch, dtype)
    host.add("domain", small_adapter(kind), seed=3)
    host.activate(["domain"], train=["domain"])
    if kind == "dora":  # divides a weight's norm by itself, rounded in between
        assert (logits(host) - base).abs().mean() < 0.02 * base.abs().mean()
    else:
        assert torch.equal(logits(host), base)
    assert {value.dtype for value in host.trainable().values()} == {torch.float32}
    shake(host, "domain")
    found = gradients(host)
    assert all(found[name].isfinite().all() and found[name].dtype == torch.float32 for name in host.trainable())
    moved = logits(host)
    assert moved.dtype == base.dtype
    host.save("domain", tmp_path)
    host.remove("domain")
    host.load_adapter("again", tmp_path)
    host.activate(["again"])
    assert torch.equal(logits(host), moved)
    host.check_base()
    assert host.fingerprint != load(family).fingerprint
    assert host.base_bytes < 0.6 * load(family).base_bytes or family == "t5"  # T5 keeps a part in float32


def attentions(host: Host) -> list[str]:
    """Names of the layers' attention outputs, whatever wraps them."""
    pattern = host.placement.pattern(host.placement.attention)
    names = (name for name, _ in host.model.named_modules())
    return [name for name in names if re.fullmatch(pattern, name.replace(".base_layer", ""))]


def checkpointed() -> Iterator[Any]:
    """Every family with one kind, and every kind on one encoder and one decoder."""
    fast = [("houlsby", "bert"), ("houlsby", "llama"), ("lora", "bert")]
    for kind, family in {**{("houlsby", name): 0 for name in PLACEMENTS}, **{(kind, name): 0 for kind in KINDS
                         for name in ("bert", "llama") if not why_not(kind, name)}}:  # fmt: skip
        marks = () if (kind, family) in fast else pytest.mark.slow
        yield pytest.param(kind, family, marks=marks, id=f"{family}-{kind}")


@pytest.mark.parametrize(("kind", "family"), list(checkpointed()))
def test_checkpointed_gradients_are_the_plain_ones(kind, family, load):
    """T5's layers share their position bias, whose gradient is summed in another order: there, within rounding."""
    host = load(family)
    assert host.model.supports_gradient_checkpointing is (family not in NOT_CHECKPOINTED)
    if family in NOT_CHECKPOINTED:
        with pytest.raises(InputError, match=f"transformers offers none for {family}"):
            check_layers(host, Training(gradient_checkpointing=True))
        return
    host.add("domain", small_adapter(kind), 0)
    if kind != "full":
        shake(host, "domain")
    host.activate(["domain"], train=["domain"])
    called = []
    upper = next(name for name in reversed(attentions(host)) if not name.endswith(".base_layer"))
    hook = host.model.get_submodule(upper).register_forward_pre_hook(lambda *_: called.append(1))
    with running(host, Training()):
        plain = gradients(host)
    assert len(called) == 1
    with running(host, Training(gradient_checkpointing=True)):
        saved = gradients(host)
    hook.remove()
    assert len(called) == 3  # once more in the backward pass
    for name in host.trainable():
        if family == "t5":
            torch.testing.assert_close(saved[name], plain[name], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(saved[name], plain[name]), name
    assert not host.model.is_gradient_checkpointing


def test_layers_below_the_lowest_adapter_are_not_computed_again(load):
    host = load("bert")
    host.add("domain", Houlsby(reduction=4, layers="top 1"), 0)
    host.activate(["domain"], train=["domain"])
    called = []
    hook = host.model.get_submodule(attentions(host)[0]).register_forward_pre_hook(lambda *_: called.append(1))
    with running(host, Training(gradient_checkpointing=True)):
        gradients(host)
    hook.remove()
    assert len(called) == 1
    embedded = []
    hook = host.model.get_input_embeddings().register_forward_hook(lambda *found: embedded.append(found[2]))
    gradients(host)
    hook.remove()
    assert not embedded[0].requires_grad  # and nothing of it is left behind
