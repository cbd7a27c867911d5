"""Tiny texts, models and recipes that tests share; a module of its own, because every folder may have a conftest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from guidebook.adapters.placement import PLACEMENTS

FAMILIES = ["bert", "roberta", "gpt2", "llama"]
"""Tested everywhere; every other row of PLACEMENTS can be built too."""
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


_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
_EXPERTS = {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
_SIDES = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    **{name: {**_SIZES, "max_position_embeddings": 66} for name in ("xlm-roberta", "camembert", "mpnet")},
    "deberta-v2": _SIZES,
    "falcon": _SIZES,
    "electra": {**_SIZES, "embedding_size": 8},
    "albert": {**_SIZES, "embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "modernbert": {**_SIZES, "cls_token_id": 2, "sep_token_id": 3},
    "eurobert": {**_SIZES, "num_key_value_heads": 2, "mask_token_id": 4},
    **{name: {**_SIZES, "num_key_value_heads": 2, **_EXPERTS} for name in ("mixtral", "qwen3_moe")},
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "opt": {**_SIZES, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "bart": {"d_model": 16, "decoder_start_token_id": 3}
    | {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in _SIDES.items()},
}
"""Sizes of a tiny model by model type; what is missing has those of a Llama."""


_ANGLED = ("roberta", "xlm-roberta", "camembert", "mpnet", "bart")


def word_pieces(texts: Sequence[str], specials: Sequence[str], size: int = 200) -> dict[str, int]:
    """Vocabulary of a WordPiece tokenizer: special tokens, letters, then the most frequent words and parts of words.

    Not trained: the library's trainer breaks ties by the order of a hash table, so every session had another tokenizer.
    """
    words = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    letters = sorted({letter for word in words for letter in word})
    parts: Counter[str] = Counter(words)
    for word, count in words.items():
        for cut in range(2, len(word)):
            parts.update({word[:cut]: count, f"##{word[cut:]}": count})
    frequent = sorted(parts, key=lambda part: (-parts[part], part))
    pieces = dict.fromkeys([*specials, *letters, *(f"##{letter}" for letter in letters), *frequent])
    return {piece: number for number, piece in enumerate(list(pieces)[:size])}


def build_tokenizer(family: str, texts: Sequence[str] = TEXTS):
    """A tokenizer of the family's style, trained on the texts: WordPiece, T5's with sentinels, or byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    kind = PLACEMENTS[family].kind if family in PLACEMENTS else "causal"
    if family == "t5":
        sentinels = [f"<extra_id_{number}>" for number in range(20)]
        names = ["<pad>", "</s>", "<unk>", *sentinels]
        tokenizer = Tokenizer(models.WordPiece(word_pieces(texts, names), unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(names)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            eos_token="</s>",
            unk_token="<unk>",
            additional_special_tokens=sentinels,
        )
    if kind == "causal":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end)
    names = (
        ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
        if family in _ANGLED
        else [f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
    )
    pad, unk, cls, sep, mask = names
    tokenizer = Tokenizer(models.WordPiece(word_pieces(texts, names), unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(names)
    between = f"{sep} {sep}" if family in _ANGLED else sep
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {between} $B {sep}" if family in _ANGLED else f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, 2), (sep, 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask
    )


def build_model(family: str, vocabulary: int):
    """A random language model of the family: hidden 16, 3 layers in FAMILIES, else 2."""
    if family not in FAMILIES:
        return _build_from_table(family, vocabulary)
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


def _build_from_table(family: str, vocabulary: int):
    import transformers

    classes = {
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }
    sizes = {"max_position_embeddings": 64, **CONFIGS.get(family, _GROUPED)}
    ends = {"bos_token_id": 0, "eos_token_id": 1 if family == "t5" else 0, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, vocab_size=vocabulary, **ends, **sizes)
    kind = PLACEMENTS[family].kind if family in PLACEMENTS else "causal"
    torch.manual_seed(0)
    model = classes[kind].from_config(config)
    with torch.no_grad():  # the initialisation of many families is too small for anything to be seen
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)
    return model.eval()


def small_adapter(kind: str) -> Any:
    """The kind, as small as the tiny bases are."""
    from guidebook.adapters.presets import KINDS

    module, _, name = KINDS[kind].partition(":")
    made = getattr(import_module(module), name)
    known = {field.name for field in fields(made)}
    return made(**{key: value for key, value in {"reduction": 4, "rank": 2}.items() if key in known})


COMPARING = ("joint", "dann", "udapter_two_step", "udapter_joint")
"""Methods that compare sets of at least 32 rows, so that each domain needs as many."""


def domains(method: str = "") -> dict[str, Any]:
    """A source of 24 labelled rows, two targets of 6 and 7 rows with labels, and general text; more where needed."""
    from guidebook import Domain

    if method in COMPARING:
        many = [f"{text} {number}" for number in range(5) for text in TEXTS]
        small = domains()
        return {
            **small,
            "unlabelled": Domain("more", [f"a book: {text}" for text in many]),
            "targets": [
                Domain("kitchen", [f"the {text}" for text in many[:34]], labels=(LABELS * 5)[:34]),
                Domain("hotels", [f"{text} indeed" for text in many[3:]], labels=(LABELS * 5)[3:]),
            ],
        }
    labels = [("sad", "glad")[label] for label in LABELS] if method == "zero_shot" else LABELS
    return {
        "source": Domain("books", [f"{text} {number}" for number in range(3) for text in TEXTS], labels=labels * 3),
        "targets": [
            Domain("kitchen", [f"the {text}" for text in TEXTS[:6]], labels=labels[:6]),
            Domain("hotels", [f"{text} indeed" for text in TEXTS[1:]], labels=labels[1:]),
        ],
        "general": Domain("general", [f"it is said that {text}" for text in TEXTS]),
    }


def given(method: str, folder: Path) -> Any:
    """The method's name, with the files that some methods want from their user, written into the folder."""
    if method == "few_target_labels":
        rows = "\n".join(f"{label},{text} again" for text, label in zip(TEXTS[:4], LABELS[:4], strict=True))
        (folder / "few.csv").write_text(f"label,text\n{rows}\n")
        return {"name": method, "path": str(folder / "few.csv")}
    if method == "teacher":
        for target in domains()["targets"]:
            lines = [
                f'{{"0": {0.1 * (row + 1):.1f}, "1": {1 - 0.1 * (row + 1):.1f}}}' for row in range(len(target.texts))
            ]
            (folder / f"taught-{target.name}.jsonl").write_text("\n".join(lines) + "\n")
        return {"name": method, "path": str(folder / "taught-{target}.jsonl")}
    return method


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
    method = changes.get("method", "")
    settings = {"adapter": {"kind": "houlsby", "reduction": 4}, **domains(str(method)), **changes}
    return Recipe(base=str(base), train=train, task=task, **settings)
