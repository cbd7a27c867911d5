"""Tiny texts, models and recipes that tests share; a module of its own, because every folder may have a conftest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FAMILIES = ["bert", "roberta", "gpt2", "llama"]
TEXTS = [
    "the plot was a slow burn but the ending paid off and i cried",
    "a dull story with flat characters and no end in sight",
    "the kettle boils fast and the handle stays cool",
    "the pan warped after two weeks and the coating came off",
    "thin walls and a noisy street but the staff were kind",
    "the room was clean and the bed was soft and warm",
    "the app crashes on start and support never answers",
    "it syncs fast and the new design is a joy to use",
]
LABELS = [1, 0, 1, 0, 0, 1, 0, 1]
"""Made-up labels of TEXTS: both classes appear."""


def build_tokenizer(family: str):
    """A WordPiece (bert, roberta) or byte-level BPE (gpt2, llama) tokenizer trained on TEXTS."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if family in ("gpt2", "llama"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(TEXTS, trainer)
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end)
    names = (
        ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
        if family == "roberta"
        else [f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
    )
    pad, unk, cls, sep, mask = names
    tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=names, show_progress=False)
    )
    between = f"{sep} {sep}" if family == "roberta" else sep
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {between} $B {sep}" if family == "roberta" else f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, 2), (sep, 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask
    )


def build_model(family: str, vocabulary: int):
    """A random language model of the family: 3 layers, hidden 16."""
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    torch.manual_seed(0)
    encoder = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.2,
    }
    if family == "bert":
        return BertForMaskedLM(BertConfig(max_position_embeddings=64, **encoder))
    if family == "roberta":
        return RobertaForMaskedLM(RobertaConfig(max_position_embeddings=66, pad_token_id=0, **encoder))
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=16, n_layer=3, n_head=2, initializer_range=0.2)
        )
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=64, num_key_value_heads=2, **encoder))


def domains() -> dict[str, Any]:
    """A source of 24 labelled rows, two targets of 6 and 7 rows with labels, and general text."""
    from guidebook import Domain

    return {
        "source": Domain("books", [f"{text} {number}" for number in range(3) for text in TEXTS], labels=LABELS * 3),
        "targets": [
            Domain("kitchen", [f"the {text}" for text in TEXTS[:6]], labels=LABELS[:6]),
            Domain("hotels", [f"{text} indeed" for text in TEXTS[1:]], labels=LABELS[1:]),
        ],
        "general": Domain("general", [f"it is said that {text}" for text in TEXTS]),
    }


def tiny_recipe(base: Path | str, **changes: Any) -> Any:
    """A recipe of a few steps a stage; `train` and `task` are merged with what makes it small."""
    from guidebook import Recipe

    train = {
        "tokens_per_batch": 96,
        "max_length": 16,
        "dtype": "float32",
        "fuse": {"tokens": 250, "learning_rate": 1e-2},
        "task": {"epochs": 1, "rows_per_batch": 6, "learning_rate": 1e-2},
        **changes.pop("train", {}),
    }
    task = {"max_length": 16, **changes.pop("task", {})}
    settings = {"adapter": {"kind": "houlsby", "reduction": 4}, **domains(), **changes}
    return Recipe(base=str(base), train=train, task=task, **settings)
