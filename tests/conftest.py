"""Tiny models and a tokenizer, built locally: tests need no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


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


FAMILIES = ["bert", "roberta", "gpt2", "llama"]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """family -> folder of a saved tiny base with its tokenizer."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(f"tiny-{family}")
            tokenizer = build_tokenizer(family)
            build_model(family, len(tokenizer)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = folder
        return made[family]

    return get
