"""How fast does a GPT-J train, and in how much memory: adapters and all weights, beside plain Trainer + PEFT.

Weights are random: speed and memory do not depend on them. The width is an argument, so the same command runs on a
laptop's processor and, with `--size 6b`, at GPT-J 6B's true size on a GPU. Every variant trains in a process of its
own, so that its peak memory is its own.

    python benchmarks/gptj_speed/bench.py                    # a width for a CPU
    python benchmarks/gptj_speed/bench.py --size 6b          # GPT-J 6B on a GPU
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from guidebook.adapters.bases import Base
from guidebook.adapters.gptj_attention import register
from guidebook.adapters.host import Host
from guidebook.adapters.presets import Full, Houlsby, LoRA
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens
from guidebook.evaluation.records import append_record, machine, versions
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.methods.stage import Stage
from guidebook.training.layers import running
from guidebook.training.listener import Listener
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import input_of
from guidebook.training.settings import FuseTraining, Training
from guidebook.training.trainer import StageTrainer, bf16_is_fast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from own_process import figures_of

HERE = Path(__file__).parent
KINDS = {"houlsby": Houlsby(), "lora": LoRA(), "full": Full()}
VARIANTS = ("houlsby", "lora", "full", "plain lora", "plain full")


@dataclass(frozen=True)
class Size:
    """A GPT-J and its batches."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    vocabulary: int = 4096
    length: int = 256
    tokens_per_batch: int = 2048

    @property
    def config(self) -> GPTJConfig:
        """Return the model's configuration, without dropout."""
        return GPTJConfig(
            vocab_size=self.vocabulary, n_positions=max(2048, self.length), n_embd=self.hidden, n_layer=self.layers,
            n_head=self.heads, rotary_dim=min(64, self.hidden // self.heads), resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip

    def work(self, everything: bool) -> int:
        """Return floating-point operations per token: 4 per weight of a matrix, 6 where it is trained, and attention.

        Attention multiplies two (T, T) matrices forwards and four backwards, half of them masked by causality.
        """
        weights = self.layers * 12 * self.hidden**2 + self.vocabulary * self.hidden
        return (6 if everything else 4) * weights + 6 * self.layers * self.length * self.hidden


SIZES = {"cpu": Size(), "6b": Size(4096, 28, 16, 50400, 1024, 8192)}


class Clock(TrainerCallback):
    """Ends training after some seconds; counts the steps after the warm-up."""

    def __init__(self, seconds: float, warm_up: int = 2) -> None:
        self.seconds, self.warm_up = seconds, warm_up
        self.began = self.elapsed = 0.0
        self.first = self.last = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Count a step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step == self.warm_up:
            self.began, self.first = now, state.global_step
        elif state.global_step > self.warm_up:
            self.elapsed, self.last = now - self.began, state.global_step
            control.should_training_stop = self.elapsed > self.seconds
        return control


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Rows of full length for the plain Trainer."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = torch.from_numpy(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[row], "attention_mask": torch.ones_like(self.ids[row]), "labels": self.ids[row]}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes: the texts here are made of token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({"<end>": 0, **{letter: 1 + i for i, letter in enumerate(alphabet)}}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", bos_token="<end>")


def arguments(folder: str, bf16: bool, **more: Any) -> TrainingArguments:
    """Return what both ways share."""
    return TrainingArguments(
        output_dir=folder, max_steps=10_000, learning_rate=1e-4, bf16=bf16, save_strategy="no", report_to="none",
        disable_tqdm=True, logging_steps=10_000, use_cpu=not torch.cuda.is_available(), **more,
    )  # fmt: skip


def model_of(size: Size, attention: str, dtype: torch.dtype) -> GPTJForCausalLM:
    """Return a model with random weights, made where it trains."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        made = GPTJForCausalLM._from_config(size.config, attn_implementation=attention, dtype=dtype)
    made.config.use_cache = False
    return made


def guidebook_run(name: str, size: Size, seconds: float, dtype: torch.dtype) -> dict[str, Any]:
    """Train by guidebook's own loop."""
    kind = KINDS[name]
    base = Base(model_of(size, register(), dtype), tokenizer(), size.config, "random", "")
    host = Host(base)
    host.add("domain", kind, seed=0)
    host.activate(("domain",), train=("domain",))
    rows = np.random.default_rng(0).integers(1, size.vocabulary, (400, size.length)).astype(np.int32)
    offsets = np.arange(401, dtype=np.int64) * size.length
    stream = Stream("text", Tokens(rows.reshape(-1), offsets, "made"), np.zeros(400, np.int64), ("text",), np.ones(1))
    stage = Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None})
    train = Training(max_length=size.length, tokens_per_batch=size.tokens_per_batch, fuse=FuseTraining(tokens=10**7))
    plan = StagePlan(stage, train, 0, input_of(host))
    model = StageModel(host, stage, {}, plan.steps)
    clock = Clock(seconds)
    with tempfile.TemporaryDirectory() as folder, running(host, train):
        owned = arguments(
            folder, bf16_is_fast(), per_device_train_batch_size=1, train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = StageTrainer(model, owned, plan, Listener())
        trainer.add_callback(clock)
        trainer.train()
    moving = sum(value.numel() for value in model.trainable().values())
    return {"clock": clock, "trainable": moving}


def plain_run(name: str, size: Size, seconds: float, dtype: torch.dtype) -> dict[str, Any]:
    """Train by Trainer, with PEFT's LoRA of the same rank or all weights, as their documentation shows."""
    model: nn.Module = model_of(size, "eager", dtype)
    if name == "plain lora":
        from peft import LoraConfig, get_peft_model

        from guidebook.adapters.placement import placement_for

        config = LoRA().peft_config(model, placement_for(model))
        model = get_peft_model(
            model, LoraConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=config.target_modules)
        )
    rows = Rows(np.random.default_rng(0).integers(1, size.vocabulary, (400, size.length)).astype(np.int64))
    clock = Clock(seconds)
    with tempfile.TemporaryDirectory() as folder:
        owned = arguments(folder, bf16_is_fast(), per_device_train_batch_size=size.tokens_per_batch // size.length)
        Trainer(model=model, args=owned, train_dataset=rows, callbacks=[clock]).train()
    return {"clock": clock, "trainable": sum(v.numel() for v in model.parameters() if v.requires_grad)}


def matmul_rate(size: Size) -> float:
    """Return multiplications and additions per second of the feed-forward's own shape, the best of ten."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if bf16_is_fast() else torch.float32
    one = torch.randn(size.tokens_per_batch, size.hidden, device=device, dtype=dtype)
    other = torch.randn(size.hidden, 4 * size.hidden, device=device, dtype=dtype)
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(5):
            one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 5 * 2 * one.numel() * 4 * size.hidden / (time.perf_counter() - began))
    return best


def measure(name: str, size: Size, seconds: float, base_dtype: str) -> dict[str, Any]:
    """Run one variant in this process."""
    dtype = getattr(torch, base_dtype)
    rate = matmul_rate(size)
    run = (plain_run if name.startswith("plain") else guidebook_run)(name, size, seconds, dtype)
    clock = run["clock"]
    steps = clock.last - clock.first
    speed = steps * size.tokens_per_batch / max(clock.elapsed, 1e-9)
    peak = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
    return {
        "tokens_per_second": round(speed, 1),
        "steps": steps,
        "trainable": run["trainable"],
        "matmul_rate": rate,
        "share_of_matmul_rate": round(speed * size.work("full" in name) / rate, 4),
        "peak_memory_megabytes": round(peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
    }


def main() -> None:
    """Run every variant in a process of its own and append one record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="cpu")
    for name in ("hidden", "layers", "heads", "vocabulary", "length", "tokens_per_batch"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--base-dtype", choices=("float32", "bfloat16"), default=None)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--only", choices=VARIANTS, help="run this one here and print its figures as JSON")
    given = parser.parse_args()
    asked = {name: getattr(given, name) for name in asdict(SIZES["cpu"]) if getattr(given, name) is not None}
    size = Size(**{**asdict(SIZES[given.size]), **asked})
    dtype = given.base_dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    if given.only:
        print(json.dumps(measure(given.only, size, given.seconds, dtype)))
        return
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(size).items()]
    results: dict[str, Any] = {}
    for name in given.variants:
        base = [__file__, *flags, f"--seconds={given.seconds}", f"--base-dtype={dtype}"]
        try:
            results[name] = figures_of([*base, f"--only={name}"])
        except RuntimeError as error:  # out of memory, as a rule: a result too
            results[name] = {"failed": str(error).splitlines()[-1]}
        print(name, json.dumps(results[name]), flush=True)
    parameters = size.layers * (12 * size.hidden**2) + 2 * size.vocabulary * size.hidden
    record = {
        "size": asdict(size),
        "parameters": parameters,
        "base_dtype": dtype,
        "bf16": bf16_is_fast(),
        "threads": torch.get_num_threads(),
        "results": results,
        "machine": machine(),
        "versions": versions(),
    }
    append_record(given.records, record)


if __name__ == "__main__":
    main()
