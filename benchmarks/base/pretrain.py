"""Train the embedded bases from random weights on general English: `mini` (BERT) and `mini-gptj` (GPT-J).

Stand-alone and resumable: kill it at any time and the same command goes on from the last checkpoint, to the
same weights as without the kill. The learning rate is warmed up and then held, so that a run has no fixed
length: `export` lets it fall to zero on a copy of the newest checkpoint and writes the finished model, and
`train` can go on from the checkpoint afterwards.

    python benchmarks/base/pretrain.py train  --kind mini --corpus DIR --work DIR --tokens 100_000_000
    python benchmarks/base/pretrain.py export --kind mini --work DIR --out DIR --anneal 3_000_000

One training step is a pure function of (weights, step): the block order is a permutation seeded by the
epoch, the masks are seeded by the step.
"""

from __future__ import annotations

import argparse
import functools
import json
import lzma
import math
import os
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from guidebook.adapters.gptj_attention import attention_for

HELD_OUT_ARTICLES = 100  # the last articles of the last corpus file are never trained on
TOKENIZER_ARTICLES = 3000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Setting:
    """One base: its shape and how it is trained."""

    kind: str
    vocabulary: int = 8192
    hidden: int = 384
    layers: int = 6
    heads: int = 6
    inner: int = 1408
    """Width of the feed-forward layers."""
    length: int = 128
    rows: int = 1024
    """Blocks per optimiser step."""
    matrix_learning_rate: float = 3e-3
    """For the matrices of the layers (Muon, update scaled to AdamW's size)."""
    other_learning_rate: float = 2e-3
    """For embeddings, norms and biases (AdamW)."""
    matrix_decay: float = 0.1
    """Weight decay of the matrices of the layers."""
    warmup: int = 200
    mask_rate: float = 0.2
    seed: int = 0
    factorise: bool = False
    """Start the embeddings from the corpus's factorised co-occurrences and the output bias from its unigrams.

    For small budgets: it takes a minute and stands for what the first tens of millions of tokens would teach."""


SMALL: dict[str, Any] = {"hidden": 256, "layers": 4, "heads": 4, "inner": 1024, "matrix_decay": 0.01}
"""What two CPU cores can train in a night."""
TINY: dict[str, Any] = {**SMALL, "vocabulary": 300, "hidden": 16, "layers": 2, "heads": 2, "inner": 64, "warmup": 4}

SETTINGS = {
    "mini": Setting("mini"),
    "mini-gptj": Setting("mini-gptj", rows=512, length=256),
    "mini-small": Setting(
        "mini", **SMALL, rows=128, factorise=True, matrix_learning_rate=2e-3, other_learning_rate=1e-3
    ),
    "mini-gptj-small": Setting("mini-gptj", **SMALL, rows=16, length=256, matrix_learning_rate=2e-3),
    "tiny": Setting("mini", **TINY, length=16, rows=4, factorise=True),
    "tiny-gptj": Setting("mini-gptj", **TINY, length=16, rows=4),
}


def articles(corpus: list[Path]) -> Iterator[str]:
    """Yield the texts of JSON-lines files (plain or xz) in order."""
    for path in corpus:
        with lzma.open(path, "rt", encoding="utf8") if path.suffix == ".xz" else path.open(encoding="utf8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def train_tokenizer(texts: Iterator[str], setting: Setting) -> PreTrainedTokenizerFast:
    """Return an uncased WordPiece (mini) or byte-level BPE (mini-gptj) tokenizer trained on `texts`."""
    if setting.kind == "mini-gptj":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        byte_trainer = trainers.BpeTrainer(
            vocab_size=setting.vocabulary,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(texts, byte_trainer)
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end, model_max_length=setting.length
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=setting.vocabulary, limit_alphabet=400, special_tokens=SPECIAL)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=setting.length,
    )


def build_model(setting: Setting, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return the base with random weights drawn from the setting's seed."""
    torch.manual_seed(setting.seed)
    if setting.kind == "mini-gptj":
        return GPTJForCausalLM(
            GPTJConfig(
                attn_implementation=attention_for("gptj"),
                vocab_size=len(tokenizer),
                n_positions=setting.length,
                n_embd=setting.hidden,
                n_layer=setting.layers,
                n_head=setting.heads,
                n_inner=setting.inner,
                rotary_dim=setting.hidden // setting.heads // 2,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                tie_word_embeddings=True,
            )
        )
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=setting.hidden,
            num_hidden_layers=setting.layers,
            num_attention_heads=setting.heads,
            intermediate_size=setting.inner,
            max_position_embeddings=setting.length,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def factorised_embeddings(blocks: np.ndarray, vocabulary: int, hidden: int, window: int = 6) -> np.ndarray:
    """Return (V, H) embeddings: the leading factors of the positive pointwise mutual information of nearby tokens.

    Reference: Levy and Goldberg 2014, Neural Word Embedding as Implicit Matrix Factorization, NeurIPS; context
        distribution smoothing 0.75 and eigenvalues to the power one half as in Levy et al. 2015, TACL.
    """
    from sklearn.utils.extmath import randomized_svd

    counts = np.zeros(vocabulary * vocabulary, np.float32)
    for start in range(0, len(blocks), 50_000):
        rows = np.asarray(blocks[start : start + 50_000], np.int64)
        for distance in range(1, window + 1):
            pairs = (rows[:, :-distance] * vocabulary + rows[:, distance:]).ravel()
            counts += np.bincount(pairs, minlength=len(counts)).astype(np.float32) / distance
    together = counts.reshape(vocabulary, vocabulary)
    together = together + together.T
    together[: len(SPECIAL)] = together[:, : len(SPECIAL)] = 0
    context = together.sum(0) ** 0.75
    expected = np.outer(together.sum(1), context / context.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(together / expected)
    information = np.nan_to_num(np.maximum(information, 0.0), nan=0.0, posinf=0.0)
    left, values, _ = randomized_svd(information, hidden, random_state=0)
    embeddings = left * np.sqrt(values)
    return (embeddings / embeddings.std() * 0.05).astype(np.float32)


def warm_start(model: Any, blocks: np.ndarray, vocabulary: int, hidden: int) -> None:
    """Put factorised embeddings and log unigram frequencies into a fresh model."""
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        found = torch.from_numpy(factorised_embeddings(blocks, vocabulary, hidden))
        known = found.norm(dim=1) > 1e-6  # the rest never stood near a word
        weight[known] = found[known]
        counts = np.bincount(np.asarray(blocks).ravel(), minlength=vocabulary).astype(np.float64) + 1
        counts[: len(SPECIAL)] = 1
        bias = torch.from_numpy(np.log(counts / counts.sum())).float()
        head = model.get_output_embeddings()
        head.bias.copy_(bias - bias.mean())


def write_blocks(texts: Iterator[str], tokenizer: PreTrainedTokenizerFast, setting: Setting, out: Path) -> None:
    """Write uint16 blocks (N, T): running text, articles divided by a separator, special tokens at the ends (BERT)."""
    bert = setting.kind == "mini"
    room = setting.length - 2 if bert else setting.length
    separator = tokenizer.sep_token_id if bert else tokenizer.eos_token_id
    parts: list[np.ndarray] = []
    batch: list[str] = []

    def flush() -> None:
        for encoding in tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False):
            parts.append(np.asarray([*encoding.ids, separator], dtype=np.uint16))
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == 2000:
            flush()
    flush()
    ids = np.concatenate(parts)
    blocks = ids[: len(ids) // room * room].reshape(-1, room)
    if bert:
        first = np.full((len(blocks), 1), tokenizer.cls_token_id, np.uint16)
        last = np.full((len(blocks), 1), tokenizer.sep_token_id, np.uint16)
        blocks = np.concatenate([first, blocks, last], axis=1)
    temporary = out.with_suffix(".tmp.npy")
    np.save(temporary, blocks)
    temporary.replace(out)


def tokens_per_byte(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """Return how many tokens stand for one byte of UTF-8."""
    count = sum(len(row.ids) for row in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False))
    return count / sum(len(text.encode()) for text in texts)


def prepare(corpus: list[Path], work: Path, setting: Setting) -> PreTrainedTokenizerFast:
    """Make tokenizer, training blocks and held-out blocks in `work` where they are missing."""
    texts: list[str] = []
    if not all((work / name).exists() for name in ("tokenizer/tokenizer.json", "train.npy")):
        texts = list(articles(corpus))
    if not (work / "tokenizer" / "tokenizer.json").exists():
        train_tokenizer(iter(texts[:TOKENIZER_ARTICLES]), setting).save_pretrained(work / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    if not (work / "train.npy").exists():
        held_out = min(HELD_OUT_ARTICLES, len(texts) // 10)
        write_blocks(iter(texts[-held_out:]), tokenizer, setting, work / "held_out.npy")
        per_byte = tokens_per_byte(texts[-held_out:], tokenizer)
        (work / "held_out.json").write_text(json.dumps({"tokens_per_byte": per_byte}))
        write_blocks(iter(texts[:-held_out]), tokenizer, setting, work / "train.npy")
    return tokenizer


def masked(
    ids: Tensor, rate: float, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return corrupted ids and the boolean mask of predicted positions (80 % [MASK], 10 % random, 10 % kept)."""
    allowed = ids >= len(SPECIAL)
    where = {"generator": generator, "device": ids.device}
    chosen = (torch.rand(ids.shape, **where) < rate) & allowed
    draw = torch.rand(ids.shape, **where)
    random_ids = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, **where)
    corrupted = torch.where(chosen & (draw < 0.8), tokenizer.mask_token_id, ids)
    corrupted = torch.where(chosen & (draw >= 0.9), random_ids, corrupted)
    return corrupted, chosen


def loss_sum(
    model: Any, ids: Tensor, setting: Setting, tokenizer: PreTrainedTokenizerFast, key: int
) -> tuple[Tensor, int]:
    """Return the summed loss in nats and the number of predicted positions of one batch of ids (B, T)."""
    device = next(model.parameters()).device
    if setting.kind == "mini":
        generator = torch.Generator(ids.device).manual_seed(key)
        corrupted, chosen = masked(ids, setting.mask_rate, tokenizer, generator)
        hidden = model.bert(input_ids=corrupted.to(device)).last_hidden_state  # (B, T, H)
        logits = model.cls(hidden[chosen.to(device)])  # (M, V)
        targets = ids[chosen].to(device)
    else:
        hidden = model.transformer(input_ids=ids.to(device), use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1]).flatten(0, 1)
        targets = ids[:, 1:].flatten().to(device)
    return functional.cross_entropy(logits.float(), targets, reduction="sum"), len(targets)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by a Newton-Schulz iteration (Jordan et al. 2024), scaled to AdamW's update size.

    Differs: the iteration runs in fp32 over stacks of equal shapes, because `torch.optim.Muon` runs it in bf16,
    which takes ten seconds a step on a CPU without bf16 units.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})

    @staticmethod
    def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
        """Return (K, m, n) matrices with singular values pushed towards 1."""
        a, b, c = 3.4445, -4.7750, 2.0315
        x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
        tall = x.shape[1] > x.shape[2]
        x = x.mT if tall else x
        for _ in range(iterations):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.mT if tall else x

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                updates = []
                for parameter in parameters:
                    state = self.state[parameter]
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
                scale = group["lr"] * 0.2 * math.sqrt(max(shape))
                for parameter, update in zip(parameters, self.orthogonalise(torch.stack(updates)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def optimisers(model: nn.Module, setting: Setting) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for everything else."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inside = ".layer." in name or ".h." in name
        (matrices if inside and parameter.ndim == 2 else rest).append(parameter)
    return [
        Muon(matrices, lr=setting.matrix_learning_rate, weight_decay=setting.matrix_decay),
        torch.optim.AdamW(rest, lr=setting.other_learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


@functools.lru_cache(maxsize=2)
def order_of_blocks(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order in which an epoch reads its blocks."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def copy_to_run(model: Any, compiled: bool = True) -> Any:
    """Return a copy with bf16 weights to run forward and backward in, its layers compiled.

    They are compiled one by one: they are alike, so one of them is compiled and serves all.
    """
    copy = deepcopy(model)
    for parameter in copy.parameters():
        parameter.data = parameter.data.bfloat16()
    if compiled:
        for layer in copy.bert.encoder.layer if hasattr(copy, "bert") else copy.transformer.h:
            layer.compile(dynamic=False)
    return copy


class Training:
    """A base in training: fp32 weights and their optimisers, what they are run in, the blocks, and the step to take.

    From the work folder's checkpoint if there is one, else from an `earlier` export of the same setting (its tokens
    count, its tokenizer must be the one in the folder), else fresh. Steps are counted in the setting's rows, whatever
    rows the checkpoint was trained with: the same blocks have been read.
    """

    def __init__(
        self,
        work: Path,
        setting: Setting,
        tokenizer: PreTrainedTokenizerFast,
        device: str,
        earlier: Path | None = None,
    ) -> None:
        if device == "cuda":
            torch.set_float32_matmul_precision("high")  # for the optimiser's products; losses are in bf16 there
        self.work, self.setting, self.tokenizer = work, setting, tokenizer
        self.per_step = setting.rows * setting.length
        blocks = np.load(work / "train.npy", mmap_mode="r")
        self.model: Any = build_model(setting, tokenizer)
        path, self.step = work / "checkpoint.pt", 0
        if earlier is not None and not path.exists():
            self.model.load_state_dict(type(self.model).from_pretrained(earlier, dtype=torch.float32).state_dict())
            facts = json.loads((earlier / "training.json").read_text(encoding="utf8"))
            self.step = facts["tokens"] // self.per_step
        elif setting.factorise and not path.exists():
            warm_start(self.model, blocks, len(tokenizer), setting.hidden)
        self.begun = self.step
        self.model = self.model.to(device)
        self.optimisers = optimisers(self.model, setting)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["initial_lr"] = group["lr"]
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=device)
            self.model.load_state_dict(state["model"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.step, self.begun = (round(state[name] * state["rows"] / setting.rows) for name in ("step", "begun"))
        self.blocks = torch.from_numpy(np.asarray(blocks).astype(np.int16)).to(device)  # (N, T)
        self.runner = copy_to_run(self.model) if device == "cuda" else self.model

    @property
    def tokens(self) -> int:
        """Tokens read so far."""
        return self.step * self.per_step

    def advance(self, fraction: float = 1.0) -> Tensor:
        """Take one optimiser step and return its mean loss, a scalar on the device.

        The learning rate is `fraction` of the held one, less during the warm-up.
        """
        setting, weights, copies = self.setting, list(self.model.parameters()), list(self.runner.parameters())
        epoch, position = divmod(self.step, len(self.blocks) // setting.rows)
        order = order_of_blocks(setting.seed, epoch, len(self.blocks))
        rows = torch.from_numpy(np.sort(order[position * setting.rows : (position + 1) * setting.rows]))
        ids = self.blocks[rows.to(self.blocks.device)].long()
        if self.runner is not self.model:
            torch._foreach_copy_([copy.data for copy in copies], [weight.data for weight in weights])
        key = setting.seed * 1_000_003 + self.step
        total, count = loss_sum(self.runner, ids, setting, self.tokenizer, key)
        loss = total / count
        loss.backward()
        if self.runner is not self.model:
            for weight, copy in zip(weights, copies, strict=True):
                weight.grad, copy.grad = copy.grad.float(), None
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * min(1.0, (self.step - self.begun + 1) / setting.warmup) * fraction
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def held_out_loss(self, blocks: int = 512) -> float:
        """Return the mean loss in nats per predicted token on fixed held-out blocks and masks."""
        held_out = np.load(self.work / "held_out.npy", mmap_mode="r")[:blocks]
        total, count = 0.0, 0
        self.model.eval()
        for start in range(0, len(held_out), 64):
            ids = torch.from_numpy(held_out[start : start + 64].astype(np.int64))
            batch_total, batch_count = loss_sum(self.model, ids, self.setting, self.tokenizer, key=start)
            total, count = total + float(batch_total), count + batch_count
        self.model.train()
        return total / count

    def save(self) -> None:
        """Write everything needed to go on, by rename: never half a checkpoint."""
        path = self.work / "checkpoint.pt"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "optimisers": [o.state_dict() for o in self.optimisers],
                    "step": self.step,
                    "begun": self.begun,
                    "rows": self.setting.rows,
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def same_tokenizer(one: Path, work: Path) -> bool:
    """Return whether an export and a work folder cut text alike."""
    first = PreTrainedTokenizerFast.from_pretrained(one).get_vocab()
    return first == PreTrainedTokenizerFast.from_pretrained(work / "tokenizer").get_vocab()


def train(
    work: Path,
    setting: Setting,
    corpus: list[Path],
    *,
    tokens: int,
    minutes: float,
    every: int,
    device: str,
    earlier: Path | None = None,
) -> Training:
    """Train until `tokens` are seen or `minutes` are over, checkpointing every `every` steps; return the training."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = prepare(corpus, work, setting)
    if earlier is not None and not same_tokenizer(earlier, work):
        raise SystemExit(f"{earlier} has another tokenizer than {work}/tokenizer: copy its tokenizer there first.")
    training = Training(work, setting, tokenizer, device, earlier)
    began, first, losses = time.time(), training.step, []
    while training.tokens < tokens and time.time() - began < 60 * minutes:
        losses.append(training.advance())
        step = training.step
        if step % 50 == 0:
            rate = (step - first) * training.per_step / (time.time() - began)
            mean = float(torch.stack(losses).mean())
            losses.clear()
            print(f"step {step} tokens {training.tokens / 1e6:.2f}M loss {mean:.3f} {rate:.0f} tokens/s", flush=True)
        if step % every == 0:
            training.save()
            print(f"step {step} held-out {training.held_out_loss():.4f}", flush=True)
    training.save()
    return training


def export(training: Training, anneal: int, out: Path) -> dict[str, Any]:
    """Let the learning rate fall to zero over `anneal` tokens and save the model in fp16; the checkpoint stays."""
    setting, tokenizer, model, work = training.setting, training.tokenizer, training.model, training.work
    count = math.ceil(anneal / training.per_step)
    began = time.time()
    for index in range(count):
        loss = training.advance(fraction=1.0 - index / count)
        if index % 50 == 0:
            print(f"anneal {index}/{count} loss {float(loss):.3f}", flush=True)
    loss = training.held_out_loss()
    rate = anneal / (time.time() - began)
    blocks = np.load(work / "train.npy", mmap_mode="r")
    counts = np.bincount(np.asarray(blocks).ravel(), minlength=len(tokenizer)).astype(np.float64)
    counts[: len(SPECIAL)] = 0
    shares = counts[counts > 0] / counts.sum()
    per_byte = json.loads((work / "held_out.json").read_text())["tokens_per_byte"]
    facts = {
        "kind": setting.kind,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": training.tokens,
        "annealed_tokens": count * training.per_step,
        "epochs": training.tokens / blocks.size,
        "held_out_loss": loss,
        "held_out_bits_per_byte": loss / math.log(2) * per_byte,
        "unigram_entropy": float(-(shares * np.log(shares)).sum()),
        "corpus": "English Wikipedia articles (CC BY-SA 3.0)",
        "setting": setting.__dict__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "tokens_per_second": round(rate),
    }
    model.eval().to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf8")
    (out / "README.md").write_text(card(facts), encoding="utf8")
    print(json.dumps(facts, indent=2))
    return facts


def card(facts: dict[str, Any]) -> str:
    """Return the model card, generated from the training's figures."""
    setting = facts["setting"]
    start = (
        "Its embeddings started from the factorised co-occurrences of the same corpus, the rest from random weights."
        if setting["factorise"]
        else "It started from random weights."
    )
    architecture = (
        "GPT-J, a causal language model" if setting["kind"] == "mini-gptj" else "BERT, a masked language model"
    )
    worth = (
        "What adapting it gives and what it forgets: `benchmarks/causal` of the project.\n"
        if setting["kind"] == "mini-gptj"
        else "## What it is worth\n\n<!-- generated: measured -->\n<!-- end of generated: measured -->\n"
    )
    predicted = f" (of the {setting['mask_rate']:.0%} that are masked)" if setting["kind"] == "mini" else ""
    return f"""---
license: cc-by-sa-3.0
language: en
---
# {setting["kind"]}

The small base that comes with guidebook: {architecture}, {setting["layers"]} layers of width {setting["hidden"]},
{facts["parameters"]:,} parameters, vocabulary {setting["vocabulary"]:,}, rows of {setting["length"]} tokens. Made so
that quickstart, tests and experiments work without a model hub, on a base that has not seen what it is tested on.

| | |
|---|---|
| trained on | {facts["corpus"]}, and nothing else: no reviews, no labels |
| tokens | {facts["tokens"]:,} |
| loss on held-out articles | {facts["held_out_loss"]:.3f} nats per predicted token{predicted} |
| the same in bits per byte | {facts["held_out_bits_per_byte"]:.3f} |
| unigram entropy of the corpus | {facts["unigram_entropy"]:.3f} nats per token |

{start} It knows little: {facts["tokens"] / 1e6:.1f} million tokens are less than a hundredth of what public small
models have read. Use it to try things and to compare methods, and a real base for real work.

{worth}
Made by `benchmarks/base/pretrain.py`. The weights are derived from text under CC BY-SA.
"""


def main() -> None:
    """Read the command line and run one verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["train", "export", "make"], help="make: train and export at once")
    parser.add_argument("--kind", choices=SETTINGS, default="mini")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="JSON-lines files with a text field")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokenizer, blocks and checkpoint")
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--anneal", type=float, default=0.05, help="falling learning rate, in shares of the tokens")
    parser.add_argument("--from", dest="earlier", type=Path, help="go on from this export when there is no checkpoint")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setting, work = SETTINGS[arguments.kind], arguments.work
    if arguments.verb == "export":
        training = Training(work, setting, PreTrainedTokenizerFast.from_pretrained(work / "tokenizer"), device)
    else:
        training = train(
            work,
            setting,
            arguments.corpus,
            tokens=arguments.tokens,
            minutes=arguments.minutes,
            every=arguments.every,
            device=device,
            earlier=arguments.earlier,
        )
    if arguments.verb != "train":
        export(training, int(arguments.anneal * training.tokens), arguments.out or work / "export")


if __name__ == "__main__":
    main()
