"""How fast is a fusion stage? Real tokens per second of the stock way, of each improvement alone, and of all.

Every variant trains on the same texts with the same loop (`transformers.Trainer`), batch after batch, each in a process
of its own, so that its peak memory is its own:

    stock            PEFT + Trainer as documented: LM head over all positions, fp32, rows padded to the longest of a
                     random batch, the base's dropout on
    well-tuned       the same with Trainer's best flags: bf16 where the hardware has it, length grouping
    + X alone        stock with one of guidebook's improvements
    guidebook        all of them
    full             guidebook's engine training every weight

The floor is the time that the matrix products of a step alone take at the rate this machine multiplies matrices of
the model's own shapes, measured in the same run. A profile of some steps says where the rest goes.

    python benchmarks/fusion_speed/bench.py --base mini --seconds 30
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Full, Houlsby
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens, chunk, read_specials, tokenise
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

LENGTH = 128
ROWS = 32
MASK_RATE = 0.15


@dataclass(frozen=True)
class Variant:
    """One way to run the stage."""

    name: str
    stock: bool = False
    bf16: bool = False
    grouped: bool = False
    head_everywhere: bool = True
    dropout: bool = True
    kind: str = "houlsby"


def variants() -> list[Variant]:
    """Return the ways to compare on this machine."""
    fast = bf16_is_fast()
    stock = Variant("stock", stock=True)
    found = [
        stock,
        replace(stock, name="well-tuned stock", bf16=fast, grouped=True),
        Variant("+ LM head at predicted positions only", head_everywhere=False),
        Variant("+ length buckets", grouped=True),
        Variant("+ frozen base without dropout", dropout=False),
    ]
    if fast:
        found.append(Variant("+ bf16", bf16=True))
    every = Variant("guidebook", bf16=fast, grouped=True, head_everywhere=False, dropout=False)
    return [*found, every, replace(every, name="full fine-tuning", kind="full", dropout=True)]


class Clock(TrainerCallback):
    """Ends training after some seconds and counts the real tokens of the steps after the warm-up."""

    def __init__(self, tokens_of: Callable[[int], int], seconds: float, warm_up: int = 3) -> None:
        self.tokens_of, self.seconds, self.warm_up = tokens_of, seconds, warm_up
        self.began = 0.0
        self.tokens = self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Count a step."""
        now = time.perf_counter()
        if state.global_step == self.warm_up:
            self.began = now
        elif state.global_step > self.warm_up:
            self.tokens += self.tokens_of(state.global_step - 1)
            self.steps += 1
            self.elapsed = now - self.began
            if self.elapsed > self.seconds:
                control.should_training_stop = True
        return control


class Everywhere(StageModel):
    """The stage's model with the LM head over all positions, the losses' positions picked afterwards."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the same loss the slow way."""
        logits: Tensor = self.base(**batch["inputs"]).logits  # (B, T, V)
        picked = logits.flatten(0, 1)[batch["positions"]]
        loss = nn.functional.cross_entropy(picked.float(), batch["targets"])
        return {"loss": loss, "parts": {"lm": loss.detach()}, "weighted": {"lm": loss}}


class Unsorted(StagePlan):
    """The same rows in random order, a fixed number per batch."""

    def _plan(self) -> dict[str, list[np.ndarray]]:
        count = len(self.streams[self.primary].tokens)
        order = np.concatenate([np.random.default_rng(seed).permutation(count) for seed in range(40)])
        return {self.primary: [order[i : i + ROWS] for i in range(0, len(order) - ROWS, ROWS)]}


class Items(Dataset[dict[str, list[int]]]):
    """Rows as the stock Trainer takes them."""

    def __init__(self, tokens: Tokens, passes: int) -> None:
        self.tokens, self.passes = tokens, passes

    def __len__(self) -> int:
        return len(self.tokens) * self.passes

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if index >= len(self):
            raise IndexError(index)  # Trainer's length grouping iterates until this
        ids = self.tokens[index % len(self.tokens)].tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def arguments(folder: str, bf16: bool, **more: Any) -> TrainingArguments:
    """Return Trainer's arguments that all variants share."""
    return TrainingArguments(
        output_dir=folder,
        max_steps=100_000,
        learning_rate=1e-4,
        bf16=bf16,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        **more,
    )


def run_stock(variant: Variant, host: Host, tokens: Tokens, seconds: float) -> tuple[Clock, float]:
    """Train with the stock Trainer and collator; return the clock and the padding share."""
    seen: list[tuple[int, int]] = []
    collate = DataCollatorForLanguageModeling(host.tokenizer, mlm_probability=MASK_RATE)

    def counted(items: list[dict[str, Any]]) -> Any:
        batch = collate(items)
        seen.append((int(batch["attention_mask"].sum()), batch["input_ids"].numel()))
        return batch

    clock = Clock(lambda step: seen[step][0], seconds)
    strategy = "group_by_length" if variant.grouped else "random"
    with tempfile.TemporaryDirectory() as folder:
        settings = arguments(
            folder,
            variant.bf16,
            per_device_train_batch_size=ROWS,
            train_sampling_strategy=strategy,
            remove_unused_columns=False,
        )
        trainer = Trainer(
            model=host.model, args=settings, train_dataset=Items(tokens, 3), data_collator=counted, callbacks=[clock]
        )
        trainer.train()
    used = np.array(seen[clock.warm_up : clock.warm_up + clock.steps])
    return clock, 1 - float(used[:, 0].sum() / used[:, 1].sum())


def run_engine(variant: Variant, host: Host, stream: Stream, seconds: float) -> tuple[Clock, float]:
    """Train with guidebook's loop and the variant's switches; return the clock and the padding share."""
    train = Training(tokens_per_batch=ROWS * LENGTH, fuse=FuseTraining(tokens=40_000_000, mask_rate=MASK_RATE))
    stage = Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None})
    plan = (StagePlan if variant.grouped else Unsorted)(stage, train, 0, input_of(host))
    model = (Everywhere if variant.head_everywhere else StageModel)(host, stage, {})
    lengths = stream.tokens.lengths
    clock = Clock(lambda step: int(lengths[plan.rows[plan.primary][step]].sum()), seconds)
    with tempfile.TemporaryDirectory() as folder, running(host, train):
        settings = arguments(
            folder,
            variant.bf16,
            per_device_train_batch_size=1,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )
        trainer = StageTrainer(model, settings, plan, Listener())
        trainer.add_callback(clock)
        trainer.train()
    chosen = plan.rows[plan.primary][clock.warm_up : clock.warm_up + clock.steps]
    positions = sum(len(rows) * int(lengths[rows].max()) for rows in chosen)
    return clock, 1 - clock.tokens / positions


def products(host: Host, kind: str, width: int) -> list[tuple[int, int, float]]:
    """Return (inputs, outputs, products per token) of every matrix product of a training step's forward and backward.

    A frozen matrix is multiplied twice (forward, gradient of the input), a trained one three times; the LM head's at
    the predicted positions only. Attention's own products (T x T) are counted by the caller.
    """
    config = host.config
    hidden, layers = host.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", 4 * hidden)
    times = 3.0 if kind == "full" else 2.0
    found = [(hidden, hidden, 4 * times * layers), (hidden, inner, 2 * times * layers)]
    if kind != "full":
        found.append((hidden, width, 2 * 2 * 3.0 * layers))
    head_times = MASK_RATE * times
    return [*found, (hidden, hidden, head_times), (hidden, config.vocab_size, head_times)]


def rate_of(inputs: int, outputs: int, rows: int, bf16: bool, seconds: float = 0.5) -> float:
    """Return the measured rate of one product's shape in FLOP/s."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(*s, device=device, dtype=dtype) for s in ((rows, inputs), (inputs, outputs)))
    for _ in range(3):
        left @ right
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        float((left @ right)[0, 0])
        count += 1
    return 2.0 * rows * inputs * outputs * count / (time.perf_counter() - began)


def floor(host: Host, kind: str, width: int, bf16: bool, mean_length: float) -> dict[str, float]:
    """Return operations per real token, the matmul rate over the model's shapes, and tokens per second at that rate."""
    operations = seconds = 0.0
    for inputs, outputs, times in products(host, kind, width):
        rows = int(ROWS * LENGTH * (MASK_RATE if outputs == host.config.vocab_size else 1))
        work = 2.0 * inputs * outputs * times
        operations += work
        seconds += work / rate_of(inputs, outputs, rows, bf16)
    attention = 2.0 * 2 * mean_length * host.hidden_size * host.config.num_hidden_layers * 3
    seconds += attention / (operations / seconds)
    operations += attention
    return {"operations_per_token": operations, "matmul_rate": operations / seconds, "tokens_per_second": 1 / seconds}


def profiled(variant: Variant, host: Host, stream: Stream, steps: int = 8) -> dict[str, float]:
    """Return the share of the operators' own time in a few steps of the variant, by kind of operator."""
    from torch.profiler import ProfilerActivity, profile

    train = Training(tokens_per_batch=ROWS * LENGTH, fuse=FuseTraining(tokens=40_000_000, mask_rate=MASK_RATE))
    stage = Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None})
    plan = StagePlan(stage, train, 0, input_of(host))
    model = StageModel(host, stage, {})
    model.train()
    optimiser = torch.optim.AdamW(model.trainable().values())

    def run(numbers: range) -> None:
        for step in numbers:
            with torch.autocast("cpu", torch.bfloat16, enabled=variant.bf16):
                loss = model(plan.batch(step))["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

    run(range(3))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run(range(3, 3 + steps))
    kinds = {
        "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn"),
        "attention": ("scaled_dot_product",),
        "normalisation": ("layer_norm",),
        "activation": ("gelu",),
        "softmax and loss": ("log_softmax", "nll_loss"),
        "optimiser": ("adam", "foreach"),
    }
    shares = dict.fromkeys([*kinds, "everything else"], 0.0)
    for event in found.key_averages():
        kind = next((k for k, names in kinds.items() if any(n in event.key.lower() for n in names)), "everything else")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: round(value / total, 4) for kind, value in shares.items()}


def measure(variant: Variant, base: str, texts: list[str], seconds: float) -> dict[str, Any]:
    """Return one variant's figures; of the whole of guidebook also the floor and the profile."""
    width = 64
    host = Host.load(base, dropout=variant.dropout)
    tokens = chunk(tokenise(texts, host.tokenizer), LENGTH, read_specials(host.tokenizer))
    stream = Stream("text", tokens, np.zeros(len(tokens), np.int64), ("text",), np.ones(1))
    host.add("domain", Full() if variant.kind == "full" else Houlsby(width=width), seed=0)
    host.activate(("domain",), train=("domain",))
    parameters = sum(p.numel() for p in host.trainable().values())
    if variant.stock:
        clock, padding = run_stock(variant, host, tokens, seconds)
    else:
        clock, padding = run_engine(variant, host, stream, seconds)
    found: dict[str, Any] = {
        "tokens_per_second": clock.tokens / clock.elapsed,
        "padding_share": padding,
        "peak_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "trainable": parameters,
    }
    if variant.name == "guidebook":
        length = float(tokens.lengths.mean())
        found["floor"] = {kind: floor(host, kind, width, variant.bf16, length) for kind in ("houlsby", "full")}
        found["profile"] = profiled(variant, host, stream)
    return found


def main() -> None:
    """Measure every variant, repeat after repeat, and append the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--texts", type=Path, nargs="*", default=sorted(Path("examples/reviews").glob("*.csv")))
    parser.add_argument("--seconds", type=float, default=30.0, help="per variant and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--variant", help="measure this one here and print its figures (what every process does)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.variant:
        from guidebook.data.read import Columns, read_table

        texts = [text for path in options.texts for text in read_table(path, Columns(), {}).texts]
        variant = next(item for item in variants() if item.name == options.variant)
        print(json.dumps(measure(variant, options.base, texts, options.seconds)))
        return
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.repeats):
        for variant in variants():
            figures = figures_of([__file__, *sys.argv[1:], "--variant", variant.name])
            results.setdefault(variant.name, []).append(figures)
            print(f"{variant.name:42s} {figures['tokens_per_second']:8.0f} tokens/s", flush=True)
    record = {
        "base": options.base,
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
