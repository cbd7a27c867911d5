"""Tiny causal models of many families with random weights; a module of its own, because several tests share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import build_tokenizer

ROOT_SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
GPT: dict[str, Any] = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
HEAD: dict[str, Any] = {"head_dim": 16}
PACK = ["gpt2", "gptj", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi",
        "phi3", "olmo2"]  # fmt: skip
DO_NOT_PACK = ["opt", "falcon", "bloom"]


def config_of(family: str, vocabulary: int) -> Any:
    """A configuration of the family: two layers, hidden 32."""
    import transformers as hf

    shared = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if family == "gpt2":
        return hf.GPT2Config(**GPT, **shared)
    if family == "gptj":
        return hf.GPTJConfig(**GPT, rotary_dim=8, **shared)
    if family == "opt":
        sizes = {
            name: value
            for name, value in ROOT_SIZES.items()
            if name not in ("intermediate_size", "num_key_value_heads")
        }
        return hf.OPTConfig(ffn_dim=48, word_embed_proj_dim=32, init_std=0.2, **sizes, **shared)
    if family == "falcon":
        return hf.FalconConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.2, **shared
        )
    if family == "bloom":
        return hf.BloomConfig(hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2, **shared)
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma",
             "gemma2": "Gemma2", "gemma3_text": "Gemma3Text", "phi": "Phi", "phi3": "Phi3", "olmo2": "Olmo2",
             "gpt_neox": "GPTNeoX", "cohere": "Cohere", "granite": "Granite"}  # fmt: skip
    sizes = dict(ROOT_SIZES)
    if family in ("gemma", "gemma2", "gemma3_text", "qwen3"):
        sizes |= HEAD
    if family == "gemma2":
        sizes |= {"final_logit_softcapping": 0.7, "attn_logit_softcapping": None, "query_pre_attn_scalar": 16}
    if family == "cohere":
        sizes |= {"logit_scale": 0.25}
    if family == "granite":
        sizes |= {"logits_scaling": 3.0}
    return getattr(hf, f"{names[family]}Config")(**sizes, **shared)


def build(family: str, vocabulary: int) -> Any:
    """A random model of the family, its norms and biases moved off their first values."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(family, vocabulary))
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.05 * torch.randn_like(value))
    return model.eval()


def save(family: str, folder: Path) -> Path:
    """A saved base of the family with a byte-level tokenizer."""
    tokenizer = build_tokenizer("gpt2")
    build(family, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
