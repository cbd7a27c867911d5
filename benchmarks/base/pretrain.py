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
import json
import lzma
import math
import os
import time
from collections.abc import Iterator
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

HELD_OUT_ARTICLES = 100  # the last articles of the last corpus file are never trained on
TOKENIZER_ARTICLES = 3000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Setting:
    """One base: its shape and how it is trained."""

    kind: str
    vocabulary: int = 8192
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    length: int = 128
    rows: int = 32
    """Blocks per optimiser step."""
    matrix_learning_rate: float = 2e-3
    """For the matrices of the layers (Muon, update scaled to AdamW's size)."""
    other_learning_rate: float = 2e-3
    """For embeddings, norms and biases (AdamW)."""
    warmup: int = 200
    mask_rate: float = 0.2
    seed: int = 0
    factorise: bool = False
    """Start the embeddings from the corpus's factorised co-occurrences and the output bias from its unigrams.

    For small budgets: it takes a minute and stands for what the first tens of millions of tokens would teach."""


SETTINGS = {
    "mini": Setting("mini", rows=128, factorise=True, other_learning_rate=1e-3),  # rows=32 up to token 22,528,000
    "mini-gptj": Setting("mini-gptj", rows=16, length=256),
    "mini-large": Setting("mini", hidden=384, layers=6, heads=6, rows=256),
    "mini-gptj-large": Setting("mini-gptj", hidden=384, layers=6, heads=6, rows=128, length=256),
    "tiny": Setting("mini", vocabulary=300, hidden=16, layers=2, heads=2, length=16, rows=4, warmup=4, factorise=True),
    "tiny-gptj": Setting("mini-gptj", vocabulary=300, hidden=16, layers=2, heads=2, length=16, rows=4, warmup=4),
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
            tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end, model_max_length=1024
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
                vocab_size=len(tokenizer),
                n_positions=1024,
                n_embd=setting.hidden,
                n_layer=setting.layers,
                n_head=setting.heads,
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
            intermediate_size=4 * setting.hidden,
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
        if len(batch) == 200:
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
    if not (work / "tokenizer" / "tokenizer.json").exists():
        sample = (text for index, text in enumerate(articles(corpus)) if index < TOKENIZER_ARTICLES)
        train_tokenizer(sample, setting).save_pretrained(work / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    if not (work / "train.npy").exists():
        total = sum(1 for _ in articles(corpus))
        held_out = min(HELD_OUT_ARTICLES, total // 10)
        last = [text for i, text in enumerate(articles(corpus)) if i >= total - held_out]
        write_blocks(iter(last), tokenizer, setting, work / "held_out.npy")
        (work / "held_out.json").write_text(json.dumps({"tokens_per_byte": tokens_per_byte(last, tokenizer)}))
        write_blocks(
            (t for i, t in enumerate(articles(corpus)) if i < total - held_out), tokenizer, setting, work / "train.npy"
        )
    return tokenizer


def masked(
    ids: Tensor, rate: float, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return corrupted ids and the boolean mask of predicted positions (80 % [MASK], 10 % random, 10 % kept)."""
    allowed = ids >= len(SPECIAL)
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & allowed
    draw = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, generator=generator)
    corrupted = torch.where(chosen & (draw < 0.8), tokenizer.mask_token_id, ids)
    corrupted = torch.where(chosen & (draw >= 0.9), random_ids, corrupted)
    return corrupted, chosen


def loss_sum(
    model: Any, ids: Tensor, setting: Setting, tokenizer: PreTrainedTokenizerFast, key: int
) -> tuple[Tensor, int]:
    """Return the summed loss in nats and the number of predicted positions of one batch of ids (B, T)."""
    device = next(model.parameters()).device
    if setting.kind == "mini":
        corrupted, chosen = masked(ids, setting.mask_rate, tokenizer, torch.Generator().manual_seed(key))
        hidden = model.bert(input_ids=corrupted.to(device)).last_hidden_state  # (B, T, H)
        logits = model.cls(hidden[chosen.to(device)])  # (M, V)
        targets = ids[chosen].to(device)
    else:
        hidden = model.transformer(input_ids=ids.to(device)).last_hidden_state
        logits = model.lm_head(hidden[:, :-1]).flatten(0, 1)
        targets = ids[:, 1:].flatten().to(device)
    return functional.cross_entropy(logits.float(), targets, reduction="sum"), len(targets)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by a Newton-Schulz iteration (Jordan et al. 2024), scaled to AdamW's update size.

    Differs: the iteration runs in fp32 over stacks of equal shapes, because `torch.optim.Muon` runs it in bf16,
    which takes ten seconds a step on a CPU without bf16 units.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float = 0.01) -> None:
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
        Muon(matrices, lr=setting.matrix_learning_rate),
        torch.optim.AdamW(rest, lr=setting.other_learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


def one_step(
    model: Any,
    optimiser_list: list[torch.optim.Optimizer],
    blocks: np.ndarray,
    setting: Setting,
    tokenizer: PreTrainedTokenizerFast,
    *,
    step: int,
    begun: int,
    fraction: float,
) -> float:
    """Take optimiser step number `step` of a training begun at step `begun`; return its mean loss.

    The learning rate is `fraction` of the held one, less during the warm-up after `begun`.
    """
    per_epoch = len(blocks) // setting.rows
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng((setting.seed, epoch)).permutation(len(blocks))
    rows = np.sort(order[position * setting.rows : (position + 1) * setting.rows])
    ids = torch.from_numpy(blocks[rows].astype(np.int64))
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        total, count = loss_sum(model, ids, setting, tokenizer, key=setting.seed * 1_000_003 + step)
    loss = total / count
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimiser_list:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * min(1.0, (step - begun + 1) / setting.warmup) * fraction
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return float(loss.detach())


@torch.no_grad()
def held_out_loss(
    model: Any, setting: Setting, tokenizer: PreTrainedTokenizerFast, work: Path, blocks: int = 512
) -> float:
    """Return the mean loss in nats per predicted token on fixed held-out blocks and masks."""
    held_out = np.load(work / "held_out.npy", mmap_mode="r")[:blocks]
    total, count = 0.0, 0
    model.eval()
    for start in range(0, len(held_out), 64):
        ids = torch.from_numpy(held_out[start : start + 64].astype(np.int64))
        batch_total, batch_count = loss_sum(model, ids, setting, tokenizer, key=start)
        total, count = total + float(batch_total), count + batch_count
    model.train()
    return total / count


def save_checkpoint(
    path: Path, model: nn.Module, optimiser_list: list[torch.optim.Optimizer], *, step: int, begun: int, rows: int
) -> None:
    """Write everything needed to go on, by rename: never half a checkpoint. Steps are steps of `rows` blocks."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(
            {
                "model": model.state_dict(),
                "optimisers": [o.state_dict() for o in optimiser_list],
                "step": step,
                "begun": begun,
                "rows": rows,
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def start(
    work: Path, setting: Setting, tokenizer: PreTrainedTokenizerFast, device: str, earlier: Path | None = None
) -> tuple[Any, list[Any], int, int]:
    """Return model, optimisers, the step to take and the step at which this training began.

    From the checkpoint if there is one, else from an `earlier` export of the same setting (its tokens count, its
    tokenizer must be the one in `work`), else fresh. Steps are counted in the setting's rows, whatever rows the
    checkpoint was trained with: the same blocks have been read.
    """
    model = build_model(setting, tokenizer)
    path, step = work / "checkpoint.pt", 0
    if earlier is not None and not path.exists():
        model.load_state_dict(type(model).from_pretrained(earlier, dtype=torch.float32).state_dict())
        facts = json.loads((earlier / "training.json").read_text(encoding="utf8"))
        step = facts["tokens"] // (setting.rows * setting.length)
    elif setting.factorise and not path.exists():
        warm_start(model, np.load(work / "train.npy", mmap_mode="r"), len(tokenizer), setting.hidden)
    model = model.to(device)
    optimiser_list = optimisers(model, setting)
    for optimiser in optimiser_list:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    if not path.exists():
        return model, optimiser_list, step, step
    state = torch.load(path, weights_only=True, map_location=device)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(optimiser_list, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    step, begun = (round(state[name] * state["rows"] / setting.rows) for name in ("step", "begun"))
    return model, optimiser_list, step, begun


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
) -> Any:
    """Train until `tokens` are seen or `minutes` are over, checkpointing every `every` steps; return the model."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = prepare(corpus, work, setting)
    blocks = np.load(work / "train.npy", mmap_mode="r")
    if earlier is not None and not same_tokenizer(earlier, work):
        raise SystemExit(f"{earlier} has another tokenizer than {work}/tokenizer: copy its tokenizer there first.")
    model, optimiser_list, step, begun = start(work, setting, tokenizer, device, earlier)
    per_step = setting.rows * setting.length
    last = math.ceil(tokens / per_step)
    began, first, losses = time.time(), step, []
    while step < last and time.time() - began < 60 * minutes:
        losses.append(one_step(model, optimiser_list, blocks, setting, tokenizer, step=step, begun=begun, fraction=1.0))
        step += 1
        if step % 50 == 0:
            rate = (step - first) * per_step / (time.time() - began)
            print(
                f"step {step} tokens {step * per_step / 1e6:.2f}M loss {np.mean(losses[-50:]):.3f} {rate:.0f} tokens/s",
                flush=True,
            )
        if step % every == 0 or step == last:
            save_checkpoint(work / "checkpoint.pt", model, optimiser_list, step=step, begun=begun, rows=setting.rows)
            print(f"step {step} held-out {held_out_loss(model, setting, tokenizer, work):.4f}", flush=True)
    save_checkpoint(work / "checkpoint.pt", model, optimiser_list, step=step, begun=begun, rows=setting.rows)
    return model


def export(work: Path, setting: Setting, anneal: int, out: Path, device: str) -> dict[str, Any]:
    """Let the learning rate fall to zero over `anneal` tokens from the newest checkpoint and save the model in fp16."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    blocks = np.load(work / "train.npy", mmap_mode="r")
    model, optimiser_list, step, begun = start(work, setting, tokenizer, device)
    per_step = setting.rows * setting.length
    count = math.ceil(anneal / per_step)
    for index in range(count):
        fraction = 1.0 - index / count
        loss = one_step(
            model, optimiser_list, blocks, setting, tokenizer, step=step + index, begun=begun, fraction=fraction
        )
        if index % 50 == 0:
            print(f"anneal {index}/{count} loss {loss:.3f}", flush=True)
    counts = np.bincount(np.asarray(blocks).ravel(), minlength=len(tokenizer)).astype(np.float64)
    counts[: len(SPECIAL)] = 0
    shares = counts[counts > 0] / counts.sum()
    loss = held_out_loss(model, setting, tokenizer, work)
    per_byte = json.loads((work / "held_out.json").read_text())["tokens_per_byte"]
    facts = {
        "kind": setting.kind,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": (step + count) * per_step,
        "annealed_tokens": count * per_step,
        "held_out_loss": loss,
        "held_out_bits_per_byte": loss / math.log(2) * per_byte,
        "unigram_entropy": float(-(shares * np.log(shares)).sum()),
        "corpus": "English Wikipedia articles (CC BY-SA 3.0)",
        "setting": setting.__dict__,
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
encoders have read. Use it to try things and to compare methods, and a real base for real work.

## What it is worth

<!-- generated: measured -->
<!-- end of generated: measured -->

Made by `benchmarks/base/pretrain.py`. The weights are derived from text under CC BY-SA.
"""


def main() -> None:
    """Read the command line and run one verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["train", "export"])
    parser.add_argument("--kind", choices=SETTINGS, default="mini")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="JSON-lines files with a text field")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokenizer, blocks and checkpoint")
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--anneal", type=int, default=3_000_000, help="tokens of the falling learning rate")
    parser.add_argument("--from", dest="earlier", type=Path, help="go on from this export when there is no checkpoint")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = SETTINGS[arguments.kind]
    if arguments.verb == "train":
        train(
            arguments.work,
            setting,
            arguments.corpus,
            tokens=arguments.tokens,
            minutes=arguments.minutes,
            every=arguments.every,
            device=device,
            earlier=arguments.earlier,
        )
    else:
        export(arguments.work, setting, arguments.anneal, arguments.out or arguments.work / "export", device)


if __name__ == "__main__":
    main()
