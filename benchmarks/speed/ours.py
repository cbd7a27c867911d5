"""guidebook's side: its loop over planned batches, its artifact's predictions, and a bare forward of the base."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import Clock
from peers import MASK_RATE, RANK
from safetensors.torch import save_file

from guidebook.adapters.host import Host
from guidebook.adapters.presets import Houlsby, LoRA
from guidebook.artifact import Guidebook
from guidebook.data.streams import Stream
from guidebook.data.tokens import Tokens, chunk, encode, read_specials, tokenise
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage
from guidebook.training.layers import running
from guidebook.training.listener import Listener
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import input_of
from guidebook.training.settings import FuseTraining, TaskTraining, Training
from guidebook.training.trainer import StageTrainer, training_arguments


@dataclass(frozen=True)
class Texts:
    """What is read: labelled texts, and documents to model."""

    texts: list[str]
    labels: list[int]
    documents: list[str]

    def chunked(self, host: Host, length: int) -> Tokens:
        """Return the documents in pieces as they are trained on, special tokens included."""
        specials = read_specials(host.tokenizer)
        causal = host.placement.kind == "causal"
        return chunk(tokenise(self.documents, host.tokenizer), length, specials.opening if causal else specials)

    def encoded(self, host: Host, length: int) -> Tokens:
        """Return the labelled texts, cut at a length."""
        return encode(tokenise(self.texts, host.tokenizer), None, length, read_specials(host.tokenizer))

    def pieces(self, host: Host, length: int) -> list[list[int]]:
        """Return `chunked` as the stock Trainer takes it."""
        tokens = self.chunked(host, length)
        return [tokens[row].tolist() for row in range(len(tokens))]

    def rows(self, host: Host, length: int) -> list[list[int]]:
        """Return `encoded` as the stock Trainer takes it."""
        tokens = self.encoded(host, length)
        return [tokens[row].tolist() for row in range(len(tokens))]


def host_with(base: str, *, task: bool) -> Host:
    """Return a base with a LoRA adapter that trains."""
    host = Host.load(base)
    name = "task" if task else "domain"
    host.add(name, LoRA(rank=RANK), seed=0)
    host.activate((name,), train=(name,))
    return host


def fusion_round(
    host: Host, texts: Texts, *, length: int, tokens: int, rows: int, bf16: bool
) -> Callable[[Clock], None]:
    """Return what trains some steps of a stage that models text."""
    pieces = texts.chunked(host, length)
    stream = Stream("text", pieces, np.zeros(len(pieces), np.int64), ("text",), np.ones(1))
    fuse = FuseTraining(tokens=10**8, mask_rate=MASK_RATE)
    train = Training(tokens_per_batch=tokens, max_length=length, dtype="bfloat16" if bf16 else "float32", fuse=fuse)
    return _round(host, Stage("fuse", {"lm": LanguageModelling(stream)}, train={"domain": None}), train, {})


def task_round(host: Host, texts: Texts, *, length: int, tokens: int, rows: int, bf16: bool) -> Callable[[Clock], None]:
    """Return what trains some steps of a stage that learns the task."""
    encoded, labels = texts.encoded(host, length), np.array(texts.labels)
    stream = Stream("source", encoded, np.zeros(len(encoded), np.int64), ("source",), np.ones(1), labels)
    task = TaskTraining(epochs=1000.0, rows_per_batch=rows)
    train = Training(tokens_per_batch=tokens, max_length=length, dtype="bfloat16" if bf16 else "float32", task=task)
    loss = TaskLoss(stream)
    stage = Stage("task", {"task": loss}, train={"task": None})
    from guidebook.losses.contract import Facts

    facts = Facts(host.hidden_size, host.layers, host.placement.pooling, 2, "linear", 0.0, 0, 0)
    return _round(host, stage, train, dict(loss.modules(facts)))


def _round(host: Host, stage: Stage, train: Training, modules: dict[str, Any]) -> Callable[[Clock], None]:
    plan = StagePlan(stage, train, 0, input_of(host))
    settings = train.task if "task" in stage.losses else train.fuse

    def run(clock: Clock) -> None:
        clock.tokens = plan.step_tokens[: clock.steps + 2]
        model = StageModel(host, stage, modules)
        with tempfile.TemporaryDirectory() as folder, running(host, train):
            arguments = training_arguments(
                Path(folder), train, settings, steps=clock.steps, rate=1e-4, extra={"logging_strategy": "no"}
            )
            trainer = StageTrainer(model, arguments, plan, Listener())
            trainer.add_callback(clock)
            trainer.train()

    return run


def book_of(base: str, place: Path) -> Guidebook:
    """Return a guidebook with a Houlsby adapter and a head that were never trained: as fast as one that was."""
    host = Host.load(base)
    host.add("task", Houlsby(), seed=0)
    host.save("task", place / "adapters" / "task")
    host.remove("task")
    head = {"head.output.weight": torch.randn(2, host.hidden_size), "head.output.bias": torch.zeros(2)}
    save_file({f"method.{name}": value for name, value in head.items()}, place / "head.safetensors")
    facts = {
        "method": "method",
        "variants": {"method": {"folder": ".", "stack": ["task"], "head": "method"}},
        "serves": {"target": "method"},
        "recipe": {"adapter": {"kind": "houlsby"}, "train": {"dtype": "float32", "max_length": 512}},
        "task": {"labels": ["bad", "good"], "pooling": "mean", "pairs": False, "max_length": 512},
    }
    return Guidebook(host, {"book": (place, facts)})


def bare_forward(host: Host, texts: Sequence[Any], size: int = 32) -> Callable[[], None]:
    """Return what runs the base without head and adapters over texts that were tokenised before."""
    batches = texts if isinstance(texts[0], list) else [texts[i : i + size] for i in range(0, len(texts), size)]
    made = [host.tokenizer(list(batch), return_tensors="pt", padding=True) for batch in batches]

    def run() -> None:
        host.model.eval()
        with torch.no_grad(), host.disabled():
            for inputs in made:
                host.model.base_model(**inputs)

    return run
