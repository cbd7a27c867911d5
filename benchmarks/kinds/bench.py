"""What does a training step cost, by kind of adapter? Time and memory on one encoder and one decoder, in one run.

Every kind trains in guidebook's loop on the same rows, each in a process of its own, so that its peak memory is its
own. Beside them stand all weights (`full`), and PEFT's LoRA as its documentation shows it: the model's own loss over
all positions, AdamW, the base's dropout on. Weights are random: neither time nor memory depends on them.

    python benchmarks/kinds/bench.py
    python benchmarks/kinds/bench.py --hidden 768 --layers 12
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForMaskedLM, GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from guidebook.adapters.bases import Base
from guidebook.adapters.gptj_attention import register
from guidebook.adapters.host import Host
from guidebook.adapters.presets import KINDS
from guidebook.adapters.union import Union
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens
from guidebook.evaluation.records import append_record, machine, versions
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.methods.stage import Stage
from guidebook.training.layers import running
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import input_of
from guidebook.training.settings import FuseTraining, Training
from guidebook.training.trainer import bf16_is_fast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from own_process import figures_of

HERE = Path(__file__).parent
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PLAIN = "PEFT LoRA, plain loop"
VARIANTS = (*KINDS, "invertible+houlsby", "invertible+lora", PLAIN)
SIDES = ("encoder", "decoder")
CUDA = torch.cuda.is_available()
Step = Callable[[int], None]


@dataclass(frozen=True)
class Shape:
    """The bases and the batches of a run."""

    hidden: int = 256
    layers: int = 4
    vocabulary: int = 8192
    length: int = 128
    rows: int = 32

    @property
    def heads(self) -> int:
        """Return the attention heads, each of width 64."""
        return self.hidden // 64

    def base(self, side: str, *, dropout: bool = False) -> Base:
        """Return a base with random weights: BERT with its masked head, or GPT-J."""
        torch.manual_seed(0)
        model: Any
        rate = 0.1 if dropout else 0.0
        if side == "encoder":
            model = BertForMaskedLM(
                BertConfig(
                    vocab_size=self.vocabulary, hidden_size=self.hidden, num_hidden_layers=self.layers,
                    num_attention_heads=self.heads, intermediate_size=4 * self.hidden,
                    max_position_embeddings=self.length, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate,
                )
            )  # fmt: skip
        else:
            config = GPTJConfig(
                vocab_size=self.vocabulary, n_positions=self.length, n_embd=self.hidden, n_layer=self.layers,
                n_head=self.heads, rotary_dim=32, resid_pdrop=rate, embd_pdrop=rate, attn_pdrop=rate,
                bos_token_id=3, eos_token_id=3, use_cache=False,
            )  # fmt: skip
            attention = "eager" if dropout else register()
            model = GPTJForCausalLM._from_config(config, attn_implementation=attention)
        names = {name: row for row, name in enumerate((*SPECIAL, *(f"w{i}" for i in range(5, self.vocabulary))))}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="[UNK]")), pad_token="[PAD]",
            unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", eos_token="[SEP]",
        )  # fmt: skip
        model.to("cuda" if CUDA else "cpu")
        return Base(model, tokenizer, model.config, "random", "")

    def ids(self, rows: int = 2000) -> np.ndarray:
        """Return rows (N, T) of random words."""
        return np.random.default_rng(0).integers(len(SPECIAL), self.vocabulary, (rows, self.length)).astype(np.int32)


def kind_of(name: str) -> Any:
    """Return the kind, or the union of kinds, of a variant."""
    kinds = tuple(pkgutil.resolve_name(KINDS[part])() for part in name.split("+"))
    return Union(kinds) if len(kinds) > 1 else kinds[0]


def autocast(bf16: bool) -> Any:
    """Return the context that both loops compute in."""
    return torch.autocast("cuda" if CUDA else "cpu", torch.bfloat16, enabled=bf16)


def guidebook_step(name: str, side: str, shape: Shape, bf16: bool, stack: ExitStack) -> tuple[Step, int]:
    """Return a step of guidebook's stage with this kind, and the number of weights that it trains.

    The layers run as a stage runs them until `stack` is closed.
    """
    host = Host(shape.base(side))
    host.add("domain", kind_of(name), seed=0)
    host.activate(("domain",), train=("domain",))
    ids = shape.ids()
    offsets = np.arange(len(ids) + 1, dtype=np.int64) * shape.length
    tokens = Tokens(ids.reshape(-1), offsets, "made")
    stream = Stream("text", tokens, np.zeros(len(ids), np.int64), ("text",), np.ones(1))
    stage = Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None})
    batch = shape.rows * shape.length
    train = Training(max_length=shape.length, tokens_per_batch=batch, fuse=FuseTraining(tokens=2000 * batch))
    plan = StagePlan(stage, train, 0, input_of(host))
    model = StageModel(host, stage, {}, plan.steps)
    stack.enter_context(running(host, train))
    model.train()
    optimiser = torch.optim.AdamW(model.trainable().values())

    def step(number: int) -> None:
        batch = moved(plan.batch(number))
        with autocast(bf16):
            loss = model(batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step, sum(value.numel() for value in model.trainable().values())


def plain_step(side: str, shape: Shape, bf16: bool) -> tuple[Step, int]:
    """Return a step of PEFT's LoRA, of guidebook's rank and places, with the model's own loss."""
    from peft import LoraConfig, get_peft_model

    from guidebook.adapters.placement import placement_for

    base = shape.base(side, dropout=True)
    config = kind_of("lora").peft_config(base.model, placement_for(base.model))
    wrapped = get_peft_model(
        base.model,  # type: ignore[arg-type]
        LoraConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=config.target_modules),
    )
    wrapped.train()
    moving = [value for value in wrapped.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(moving)
    ids, random = torch.from_numpy(shape.ids()).long(), torch.Generator().manual_seed(0)

    def step(number: int) -> None:
        first = number * shape.rows % (len(ids) - shape.rows)
        rows = ids[first : first + shape.rows]
        labels = rows
        if side == "encoder":
            hidden = torch.rand(rows.shape, generator=random) < 0.15
            labels, rows = rows.masked_fill(~hidden, -100), rows.masked_fill(hidden, SPECIAL.index("[MASK]"))
        batch = moved({"input_ids": rows, "attention_mask": torch.ones_like(rows), "labels": labels})
        with autocast(bf16):
            loss = wrapped(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step, sum(value.numel() for value in moving)


def moved(batch: Any) -> Any:
    """Return a batch with its tensors where the model is."""
    if isinstance(batch, dict):
        return {name: moved(value) for name, value in batch.items()}
    return batch.to("cuda") if CUDA and isinstance(batch, torch.Tensor) else batch


def memory() -> float:
    """Return the peak memory of this process so far, in megabytes: the GPU's where there is one."""
    return torch.cuda.max_memory_allocated() / 1e6 if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(name: str, side: str, shape: Shape, seconds: float) -> dict[str, Any]:
    """Train one variant in this process; return its figures."""
    bf16 = bf16_is_fast()
    with ExitStack() as stack:
        if name == PLAIN:
            step, moving = plain_step(side, shape, bf16)
        else:
            step, moving = guidebook_step(name, side, shape, bf16, stack)
        before, number, times = memory(), 0, []
        began = time.perf_counter()
        while number < 5 or time.perf_counter() - began < seconds:
            first = time.perf_counter()
            step(number)
            if CUDA:
                torch.cuda.synchronize()
            number += 1
            if number > 3:
                times.append(time.perf_counter() - first)
    return {
        "step_seconds": statistics.median(times),
        "steps": len(times),
        "trained": moving,
        "peak_megabytes": memory(),
        "training_megabytes": memory() - before,
    }


def main() -> None:
    """Measure every kind on both bases, repeat after repeat, and append one record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, item in Shape.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type=int, default=item.default)
    parser.add_argument("--seconds", type=float, default=6.0, help="per kind, base and repeat")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "BASE"), help="measure this one here and print its figures")
    options = parser.parse_args()
    shape = Shape(**{name: getattr(options, name) for name in Shape.__dataclass_fields__})
    if options.only:
        print(json.dumps(measure(*options.only, shape, options.seconds)))
        return
    results: dict[str, dict[str, list[dict[str, Any]]]] = {side: {} for side in SIDES}
    for _ in range(options.repeats):
        for side in SIDES:
            for name in options.variants:
                figures = figures_of([__file__, *sys.argv[1:], "--only", name, side])
                results[side].setdefault(name, []).append(figures)
                print(f"{side} {name:24s} {figures['step_seconds'] * 1e3:7.1f} ms", flush=True)
    record = {
        "shape": {name: getattr(shape, name) for name in Shape.__dataclass_fields__},
        "seconds": options.seconds,
        "threads": torch.get_num_threads(),
        "bf16": bf16_is_fast(),
        "results": results,
        "machine": machine(),
        "versions": versions(),
    }
    append_record(options.records, record)


if __name__ == "__main__":
    main()
