"""Tiny GGUF files and wheels that hold them, written by the package gguf; a module of its own: tests share it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tiny import build_tokenizer

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
"""Rows of 32 numbers and more, which blocks of quantised types need; queries and keys of unequal numbers of heads."""
WORDS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def tiny_llama(tied: bool = True) -> Any:
    """A random Llama, norms off one, numbers that float16 and bfloat16 both hold exactly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=320, tie_word_embeddings=tied, **SIZES)).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(0.05 * torch.randn_like(value))
            value.copy_((value * 64).round() / 64)
    return model


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in llama.cpp's order: the two halves of a head's rotation side by side."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, kind: str = "F16", model: Any = None, facts: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a Llama as llama.cpp's converter does: matrices of one type, norms in float32.

    `changes`: architecture, template, tokenizer (False: none), tensors (names to leave out), more (name -> array).
    """
    model = model if model is not None else tiny_llama()
    config, state = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    architecture = changes.get("architecture", "llama")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if changes.get("tokenizer", True):
        add_tokenizer(writer, changes.get("template", TEMPLATE))
    for key, value in (facts or {}).items():
        {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](key, value)
    names = dict(WORDS)
    if not config.tie_word_embeddings:
        names["output.weight"] = "lm_head.weight"
    for layer in range(config.num_hidden_layers):
        names |= {f"blk.{layer}.{a}.weight": f"model.layers.{layer}.{b}.weight" for a, b in LAYER.items()}
    for name, source in names.items():
        value = state[source]
        if "attn_q." in name or "attn_k." in name:
            value = interleaved(value, config.num_attention_heads if "attn_q." in name else config.num_key_value_heads)
        if name not in changes.get("without", ()):
            add_tensor(writer, name, value, kind)
    for name, value in changes.get("more", {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensor(writer: gguf.GGUFWriter, name: str, value: np.ndarray, kind: str) -> None:
    if value.ndim == 1 or kind == "F32":
        writer.add_tensor(name, value.astype(np.float32))
    elif kind == "F16":
        writer.add_tensor(name, value.astype(np.float16))
    else:
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(value, number), raw_dtype=number)


def add_tokenizer(writer: gguf.GGUFWriter, template: str | None) -> None:
    """The byte-level tokenizer of the tiny causal bases."""
    import json

    stored = json.loads(build_tokenizer("llama").backend_tokenizer.to_str())["model"]
    tokens = sorted(stored["vocab"], key=stored["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == "<|endoftext|>" else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in stored["merges"]])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id):
        add(0)
    if template is not None:
        writer.add_chat_template(template)


def write_wheel(folder: Path, package: str, version: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel that pip accepts and that holds some files."""
    module = package.replace("-", "_")
    facts = f"{module}-{version}.dist-info"
    content = {
        **files,
        f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{facts}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(value).digest()).rstrip(b"=").decode()
        for name, value in content.items()
    }
    record = "".join(f"{name},sha256={digests[name]},{len(value)}\n" for name, value in content.items())
    content[f"{facts}/RECORD"] = (record + f"{facts}/RECORD,,\n").encode()
    place = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return place
