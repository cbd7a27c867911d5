import copy
import math

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM

from guidebook.adapters.bases import load_base
from guidebook.adapters.gptj_attention import NAME, attention_for, fused_attention, register
from tiny import build_tokenizer


def slow_attention(query, key, value, seen):
    """Attention written out: one query and one head at a time."""
    batch, heads, length, size = query.shape
    out = torch.zeros(batch, heads, length, size)
    for b in range(batch):
        for h in range(heads):
            for t in range(length):
                places = [s for s in range(key.shape[2]) if seen(b, t, s)]
                scores = torch.stack([query[b, h, t] @ key[b, h, s] / math.sqrt(size) for s in places])
                weights = scores.exp() / scores.exp().sum()
                out[b, h, t] = sum(w * value[b, h, s] for w, s in zip(weights, places, strict=True))
    return out


def make(attention: str) -> GPTJForCausalLM:
    torch.manual_seed(0)
    config = GPTJConfig(
        vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.2, attn_implementation=attention,
    )  # fmt: skip
    return GPTJForCausalLM(config).eval()


@pytest.fixture(scope="module")
def models() -> tuple[GPTJForCausalLM, GPTJForCausalLM]:
    eager, fused = make("eager"), make(register())
    fused.load_state_dict(eager.state_dict())
    return eager, fused


def test_the_function_is_attention():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 5, 4) for _ in range(3))
    causal = fused_attention(query, key, value)
    assert torch.allclose(causal, slow_attention(query, key, value, lambda b, t, s: s <= t), atol=1e-5)
    mask = torch.rand(2, 1, 5, 5) > 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    expected = slow_attention(query, key, value, lambda b, t, s: bool(mask[b, 0, t, s]))
    assert torch.allclose(fused_attention(query, key, value, mask), expected, atol=1e-5)
    added = torch.zeros(2, 1, 5, 5).masked_fill(~mask, torch.finfo(torch.float32).min)
    assert torch.allclose(fused_attention(query, key, value, added), expected, atol=1e-5)
    one = fused_attention(query[:, :, -1:], key, value)  # the last query sees all keys
    assert torch.allclose(one, causal[:, :, -1:], atol=1e-5)


@pytest.mark.parametrize("case", ["plain", "padded", "packed", "float mask"])
def test_logits_and_gradients_equal_eager(models, case):
    ids = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    inputs: dict = {"input_ids": ids}
    if case == "padded":
        inputs["attention_mask"] = torch.tensor([[1] * 12, [1] * 7 + [0] * 5])
    if case == "packed":
        inputs |= {"position_ids": torch.tensor([[*range(5), *range(7)], [*range(12)]]), "use_cache": False}
    if case == "float mask":
        seen = torch.tril(torch.ones(12, 12, dtype=torch.bool))
        seen[6:, :6] = False
        inputs["attention_mask"] = torch.zeros(2, 1, 12, 12).masked_fill(~seen, torch.finfo(torch.float32).min)
        inputs["position_ids"] = torch.tensor([[*range(6), *range(6)]] * 2)
    seen_logits, grads = [], []
    real = inputs.get("attention_mask", torch.ones(2, 12)) if case == "padded" else torch.ones(2, 12)
    for model in models:
        logits = model(**inputs).logits
        (logits.log_softmax(-1)[real.bool()][:, 3]).sum().backward()
        seen_logits.append(logits.detach()[real.bool()])
        grads.append([copy.deepcopy(value.grad) for value in model.parameters() if value.grad is not None])
        model.zero_grad(set_to_none=True)
    assert (seen_logits[0] - seen_logits[1]).abs().max() < 1e-5
    assert len(grads[0]) == len(grads[1]) > 20
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=2e-5, rtol=1e-4)


def test_generation_with_a_cache_equals_eager(models):
    ids = torch.randint(0, 50, (1, 6), generator=torch.Generator().manual_seed(1))
    made = [model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0) for model in models]
    assert made[0].tolist() == made[1].tolist()
    assert made[0].shape[1] == 16


def test_bf16_stays_close_to_eager(models):
    ids = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    eager, fused = (copy.deepcopy(model).to(torch.bfloat16)(ids).logits.float() for model in models)
    assert fused.dtype == eager.dtype
    assert (eager - fused).abs().max() < 0.05 * eager.abs().max()


def test_gptj_bases_load_with_it_and_others_do_not(tmp_path):
    tokenizer = build_tokenizer("gpt2")
    config = GPTJConfig(vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=2, n_head=2, rotary_dim=8)
    GPTJForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base = load_base(str(tmp_path))
    own = GPTJForCausalLM._supports_sdpa  # transformers 5.24 and newer
    assert base.model.config._attn_implementation == register() == ("sdpa" if own else NAME)
    assert type(base.model.transformer.h[0].attn).__name__ == ("GPTJAttention" if own else "GPTJFusedAttention")
    base.model.config.save_pretrained(tmp_path / "again")
    assert NAME not in (tmp_path / "again" / "config.json").read_text()  # others load it without guidebook
    assert attention_for("llama") is None
