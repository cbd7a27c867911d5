"""What guidebook is measured against: PEFT and `transformers.Trainer`, as documented and at their best; `pipeline`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from clock import Clock
from peft import LoraConfig, TaskType, get_peft_model
from torch.utils.data import Dataset

RANK = 8
MASK_RATE = 0.15
CLASSES = {"causal": hf.AutoModelForCausalLM, "masked": hf.AutoModelForMaskedLM}


class Items(Dataset[dict[str, Any]]):
    """Rows of token ids, with a label each where they have one, again and again."""

    def __init__(self, rows: Sequence[Sequence[int]], labels: Sequence[int] | None, passes: int = 1000) -> None:
        self.rows, self.labels, self.passes = rows, labels, passes

    def __len__(self) -> int:
        return len(self.rows) * self.passes

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            raise IndexError(index)  # Trainer's length grouping iterates until this
        ids = list(self.rows[index % len(self.rows)])
        item: dict[str, Any] = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        return item if self.labels is None else item | {"labels": self.labels[index % len(self.rows)]}


def blocks(rows: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Return all rows one after the other, cut into pieces of equal length: transformers' own packing for decoders."""
    joined = [token for row in rows for token in row]
    return [joined[start : start + length] for start in range(0, len(joined) - length + 1, length)]


def adapted(folder: Path, kind: str) -> Any:
    """Return a base under the class of its task with PEFT's LoRA on every linear module of its layers."""
    if kind == "task":
        model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = model.config.eos_token_id
        task = TaskType.SEQ_CLS
    else:
        model, task = CLASSES[kind].from_pretrained(folder), None
    names = {
        name.rpartition(".")[2] if kind != "masked" else name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layer" in name
    }
    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=sorted(names), task_type=task)
    return get_peft_model(model, settings)


def trainer_round(
    model: Any, tokenizer: Any, kind: str, items: Items, *, rows: int, tuned: bool, bf16: bool
) -> Callable[[Clock], None]:
    """Return what trains some steps with the stock Trainer while a clock watches."""
    if kind == "task":
        collate: Any = hf.DataCollatorWithPadding(tokenizer)
    else:
        collate = hf.DataCollatorForLanguageModeling(tokenizer, mlm=kind == "masked", mlm_probability=MASK_RATE)

    def run(clock: Clock) -> None:
        def counted(features: list[dict[str, Any]]) -> Any:
            batch = collate(features)
            clock.tokens.append(sum(len(item["input_ids"]) for item in features))
            return batch

        with tempfile.TemporaryDirectory() as folder:
            settings = hf.TrainingArguments(
                output_dir=folder,
                max_steps=clock.steps,
                per_device_train_batch_size=rows,
                train_sampling_strategy="group_by_length" if tuned and kind != "causal" else "random",
                learning_rate=1e-4,
                bf16=bf16 and tuned,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=not torch.cuda.is_available(),
            )
            hf.Trainer(
                model=model, args=settings, train_dataset=items, data_collator=counted, callbacks=[clock]
            ).train()

    return run


def pipeline_of(folder: Path) -> Any:
    """Return the plain `pipeline` of a base with a fresh classification head, no adapter."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    return hf.pipeline("text-classification", model=model, tokenizer=tokenizer, device=-1)
