"""Bases in 8 and 4 bits: adapters train on them, and nothing of them moves."""

from __future__ import annotations

import pytest
import torch

from guidebook import InputError, adapt, load
from guidebook.adapters import quantised
from guidebook.adapters.host import Host
from guidebook.adapters.presets import KINDS, Full
from tiny import domains, small_adapter, tiny_recipe

IDS = torch.randint(5, 150, (3, 9), generator=torch.Generator().manual_seed(0))
NEEDED = pytest.mark.usefixtures("_bitsandbytes")


@pytest.fixture
def _bitsandbytes():
    pytest.importorskip("bitsandbytes")


def logits(host: Host) -> torch.Tensor:
    extra = {"decoder_input_ids": IDS} if host.placement.kind == "seq2seq" else {}
    out: torch.Tensor = host.model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **extra).logits
    return out


@torch.no_grad()
def dequantise(host: Host, plain: Host) -> None:
    """Give a base in float32 the weights that a quantised one stands for."""
    from bitsandbytes.functional import dequantize_4bit

    exact = dict(plain.model.named_modules())
    for name, module in host.model.named_modules():
        if type(module).__name__ not in quantised.MODULES:
            continue
        if type(module).__name__ == "Linear4bit":
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
        else:
            weight = module.state_dict()["weight"].float() * module.state_dict()["SCB"][:, None] / 127
        transposed = type(exact[name]).__name__ == "Conv1D"
        exact[name].weight.copy_(weight.T if transposed else weight)


def entries():
    """Every kind on one base, two kinds on several."""
    for base in ("bert", "llama", "gpt2", "t5", "mixtral"):
        for dtype in ("float32", "bfloat16"):
            for kind in KINDS:
                if kind != "full" and (base == "bert" or kind in ("houlsby", "lora")):
                    fast = (base, dtype) == ("bert", "float32") and kind in ("houlsby", "lora")
                    yield pytest.param((base, dtype, kind), marks=() if fast else pytest.mark.slow,
                                       id=f"{base}-{dtype}-{kind}")  # fmt: skip


@NEEDED
@pytest.mark.parametrize("how", ["8bit", "4bit"])
@pytest.mark.parametrize("entry", list(entries()))
def test_adapters_train_and_the_base_stays(tiny_base, tmp_path, entry, how):
    family, dtype, kind = entry
    host = Host.load(str(tiny_base(family)), dtype, quantise=how)
    if (kind, how) == ("dora", "8bit"):
        with pytest.raises(InputError, match="PEFT spoils 8-bit weights"):
            host.add("domain", small_adapter(kind), 0)
        return
    held = [module for module in host.model.modules() if type(module).__name__ in quantised.MODULES]
    assert held
    plain = Host.load(str(tiny_base(family)))
    assert host.base_parameters == plain.base_parameters
    assert host.fingerprint not in (plain.fingerprint, Host.load(str(tiny_base(family)), dtype).fingerprint)
    assert host.base_bytes < plain.base_bytes
    with torch.no_grad():
        host.model.eval()
        base = logits(host)
        dequantise(host, plain)
        slow = logits(plain)
        if how == "4bit" and dtype == "float32":
            torch.testing.assert_close(base, slow, rtol=1e-4, atol=1e-4)
        else:  # 8bit rounds the inputs of every product too
            assert 0 < (base.float() - slow).abs().mean() < 0.1 * slow.abs().mean()
        host.add("domain", small_adapter(kind), 0)
        host.activate(["domain"], train=["domain"])
        if kind == "dora":  # divides a weight's norm by itself, rounded in between
            assert (logits(host) - base).abs().mean() < 0.02 * base.abs().mean()
        else:
            assert torch.equal(logits(host), base)
    for autocast in (False, True):  # bitsandbytes would cast biases to whatever comes in
        host.model.train().zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits(host).float().square().mean().backward()
        trained = host.trainable()
        assert {value.dtype for value in trained.values()} == {torch.float32}
        assert all(value.grad is not None and value.grad.isfinite().all() for value in trained.values())
        assert not [n for n, p in host.model.named_parameters() if p.grad is not None and n not in trained]
        host.check_base()
    with torch.no_grad():
        for value in trained.values():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
        host.model.eval()
        moved = logits(host)
        assert not torch.equal(moved, base)
        host.save("domain", tmp_path)
        again = Host.load(str(tiny_base(family)), dtype, quantise=how)
        assert again.fingerprint == host.fingerprint  # after training and predicting, too
        again.load_adapter("domain", tmp_path)
        again.activate(["domain"])
        again.model.eval()
        assert torch.equal(logits(again), moved)
    host.check_base()


@NEEDED
def test_kind_full_is_refused(tiny_base):
    host = Host.load(str(tiny_base("bert")), quantise="8bit")
    with pytest.raises(InputError, match="rounding of quantise: 8bit"):
        host.add("domain", Full(), 0)
    assert host.names == []


def test_without_bitsandbytes_the_command_that_installs_it_is_named(tiny_base, monkeypatch):
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'guidebook\[quant\]'"):
        Host.load(str(tiny_base("bert")), quantise="4bit")


@NEEDED
@pytest.mark.slow
@pytest.mark.parametrize("how", ["8bit", "4bit"])
def test_a_guidebook_on_a_quantised_base_loads_the_same_way(tiny_base, tmp_path, monkeypatch, how):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    book = adapt(tiny_recipe(tiny_base("bert"), quantise=how, base_dtype="bfloat16"), out=tmp_path / "book")
    facts = book.meta["base"]
    assert (facts["dtype"], facts["quantise"]) == ("bfloat16", how)
    texts = domains()["targets"][0].texts
    found = load(tmp_path / "book").predict_proba(texts, domain="kitchen")
    assert (found == book.predict_proba(texts, domain="kitchen")).all()
    assert load(tmp_path / "book")._host.quantise == how
