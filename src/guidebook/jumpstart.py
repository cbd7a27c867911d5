"""Hyper-parameters of the well-known GPT-J hands-on (SageMaker JumpStart), translated into a recipe one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guidebook.adapters.presets import Full, Houlsby
from guidebook.errors import InputError, nearest

LONGEST = 1024
"""What a max_input_length of -1 means there: this, or the tokenizer's limit if that is less."""
PATIENCE = 3
"""What early stopping waits for there if nothing is said."""


@dataclass
class Translation:
    """A recipe as plain data, and what had to be said about the parameters."""

    recipe: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    """What was changed on the way."""
    unsupported: list[str] = field(default_factory=list)
    """Parameters that are known and have no counterpart, with what to do instead."""
    unknown: list[str] = field(default_factory=list)
    """Parameters that the hands-on does not have."""

    def put(self, place: str, value: Any) -> None:
        """Set `a.b.c` of the recipe."""
        *path, last = place.split(".")
        inner = self.recipe
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value


def translate(
    parameters: Mapping[str, Any], *, base: str, targets: list[str], learning_rate: float | None = None
) -> Translation:
    """Return the recipe of a set of hyper-parameters; values may be strings, as SageMaker writes them.

    Without `lora_r` they were meant for training all weights; the recipe trains Houlsby adapters in their place.

    Args:
        parameters: Name -> value.
        base: The recipe's base.
        targets: The recipe's targets.
        learning_rate: The adapters' learning rate; without it one that was meant for all weights is scaled.

    Raises:
        InputError: a value that is not of its parameter's type.

    >>> translate({"epoch": "3", "lora_r": 8}, base="mini-gptj", targets=["train"]).recipe["train"]
    {'fuse': {'epochs': 3.0}}
    """
    kind = "lora" if "lora_r" in parameters else "houlsby"
    found = Translation({"task": {"kind": "causal_lm"}, "base": base, "targets": targets, "adapter": {"kind": kind}})
    if kind == "houlsby":
        found.notes.append(
            "The parameters tune all weights. This recipe trains Houlsby adapters and leaves the base as it is; "
            "adapter: full tunes all weights."
        )
    for name, value in parameters.items():
        _take(found, name, value)
    _batch(found, parameters)
    _rate(found, parameters, learning_rate)
    _stopping(found, parameters)
    return found


def _take(found: Translation, name: str, value: Any) -> None:
    if name in _ONE_TO_ONE:
        place, read = _ONE_TO_ONE[name]
        found.put(place, read(name, value))
    elif name in _SPECIAL:
        _SPECIAL[name](found, name, value)
    elif name in _UNSUPPORTED:
        found.unsupported.append(f"{name}: {_UNSUPPORTED[name]}")
    elif name not in _TOGETHER:
        known = [*_ONE_TO_ONE, *_SPECIAL, *_UNSUPPORTED, *_TOGETHER]
        found.unknown.append(f"{name}: no such parameter.{nearest(name, known)}")


def _batch(found: Translation, parameters: Mapping[str, Any]) -> None:
    """Rows and tokens per row become tokens per step; accumulated batches become parts of one step."""
    length = _whole("max_input_length", parameters.get("max_input_length", -1))
    if "max_input_length" in parameters or "per_device_train_batch_size" in parameters:
        if length == -1:
            found.notes.append(
                f"max_input_length -1 means {LONGEST} or the tokenizer's limit: lower train.max_length if the base has "
                "fewer positions."
            )
        found.put("train.max_length", LONGEST if length == -1 else length)
    parts = _whole("gradient_accumulation_steps", parameters.get("gradient_accumulation_steps", 1))
    if "per_device_train_batch_size" in parameters:
        rows = _whole("per_device_train_batch_size", parameters["per_device_train_batch_size"])
        found.put("train.tokens_per_batch", rows * parts * (LONGEST if length == -1 else length))
        found.notes.append("per_device_train_batch_size is counted in tokens of a whole step: train.tokens_per_batch.")
    if parts > 1:
        found.put("train.micro_batches", parts)


def _rate(found: Translation, parameters: Mapping[str, Any], given: float | None) -> None:
    if given is not None:
        found.put("train.fuse.learning_rate", given)
        return
    if "learning_rate" not in parameters:
        return
    rate = _number("learning_rate", parameters["learning_rate"])
    if "lora_r" not in parameters:
        factor = Houlsby.learning_rate / Full.learning_rate
        found.notes.append(
            f"learning_rate {rate:g} was meant for all weights. Adapters start at zero and want more: it is multiplied "
            f"by {factor:g}, the ratio of the two kinds' defaults. Give --learning-rate to set it yourself."
        )
        rate *= factor
    found.put("train.fuse.learning_rate", float(f"{rate:.6g}"))


def _stopping(found: Translation, parameters: Mapping[str, Any]) -> None:
    """A patience counts unless early stopping is off; it is on where only a patience is given."""
    patience = parameters.get("early_stopping_patience")
    if _truth("early_stopping", parameters.get("early_stopping", patience is not None)):
        found.put("train.fuse.patience", _whole("early_stopping_patience", PATIENCE if patience is None else patience))


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise InputError(f"{name} is {value!r}, expected a whole number. Correct it.")
    return int(number)


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{name} is {value!r}, expected a number. Correct it.")


def _truth(name: str, value: Any) -> bool:
    if str(value).strip().casefold() not in ("true", "false", "1", "0"):
        raise InputError(f"{name} is {value!r}, expected true or false. Correct it.")
    return str(value).strip().casefold() in ("true", "1")


def _samples(place: str) -> Callable[[Translation, str, Any], None]:
    def take(found: Translation, name: str, value: Any) -> None:
        number = _whole(name, value)
        if number != -1:  # -1 stands for all of them
            found.put(place, number)

    return take


def _only(value: str, hint: str) -> Callable[[Translation, str, Any], None]:
    """Return a rule for a parameter of which only one value has a counterpart, the one that changes nothing."""

    def take(found: Translation, name: str, given: Any) -> None:
        said = str(given).strip().casefold()
        if said != value and not (_is_number(said) and _is_number(value) and float(said) == float(value)):
            found.unsupported.append(f"{name}={given}: {hint}")

    return take


def _is_number(value: str) -> bool:
    try:
        return bool(float(value) == float(value))
    except ValueError:
        return False


def _half(dtype: str) -> Callable[[Translation, str, Any], None]:
    def take(found: Translation, name: str, value: Any) -> None:
        if _truth(name, value):
            found.put("train.dtype", dtype)

    return take


def _quantised(found: Translation, name: str, value: Any) -> None:
    if _truth(name, value):
        found.put("quantise", "8bit")


_ONE_TO_ONE: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "epoch": ("train.fuse.epochs", _number),
    "seed": ("seed", _whole),
    "lora_r": ("adapter.rank", _whole),
    "lora_alpha": ("adapter.alpha", _number),
    "lora_dropout": ("adapter.dropout", _number),
    "validation_split_ratio": ("task.validation_split_ratio", _number),
    "train_data_split_seed": ("task.split_seed", _whole),
    "gradient_checkpointing": ("train.gradient_checkpointing", _truth),
    "warmup_ratio": ("train.fuse.warmup", _number),
    "weight_decay": ("train.fuse.weight_decay", _number),
    "max_grad_norm": ("train.max_grad_norm", _number),
    "adam_beta1": ("trainer.adam_beta1", _number),
    "adam_beta2": ("trainer.adam_beta2", _number),
    "adam_epsilon": ("trainer.adam_epsilon", _number),
}
_SPECIAL: dict[str, Callable[[Translation, str, Any], None]] = {
    "max_train_samples": _samples("task.max_train_documents"),
    "max_val_samples": _samples("task.max_validation_documents"),
    "bf16": _half("bfloat16"),
    "instruction_tuned": _only("false", "text is modelled as it is; write question and answer into one text."),
    "chat_dataset": _only("false", "text is modelled as it is; write a chat into one text."),
    "lr_scheduler_type": _only("linear", "the learning rate rises, then falls on a line."),
    "enable_fsdp": _only("false", "run the recipe under torchrun: torchrun --nproc-per-node 2 -m guidebook.cli.main."),
    "int8_quantization": _quantised,
    "load_best_model_at_end": _only("false", "the best weights are kept with train.fuse.patience, else the last."),
    "fp16": _only("false", "float16 needs loss scaling; use bf16, or leave train.dtype at auto."),
    "label_smoothing_factor": _only("0", "losses are the method's."),
    "max_steps": _only("-1", "training is counted in passes over the text: give epoch, or set train.fuse.tokens."),
    "warmup_steps": _only("0", "give warmup_ratio, or set train.fuse.warmup: a share of the steps."),
    "train_from_scratch": _only("false", "an adapter is trained on a base that stays as it is."),
    "dataloader_drop_last": _only("false", "every token is read; batches are planned."),
    "dataloader_num_workers": _only("0", "batches are planned by guidebook; workers change no result."),
}
_UNSUPPORTED = {
    "per_device_eval_batch_size": "batches of evaluation are planned by guidebook and change no result.",
    "preprocessing_num_workers": "texts are tokenised in parallel already.",
    "early_stopping_threshold": "any fall of the loss on held-out text counts.",
    "evaluation_strategy": "the loss on held-out text is measured before and after training.",
    "eval_steps": "the loss on held-out text is measured before and after training.",
    "logging_steps": "losses are logged twenty times a stage.",
    "logging_first_step": "losses are logged twenty times a stage.",
    "logging_nan_inf_filter": "a loss that is not finite ends the run with an error.",
    "save_strategy": "a checkpoint is written every train.checkpoint_seconds.",
    "save_steps": "a checkpoint is written every train.checkpoint_seconds.",
    "save_total_limit": "one complete checkpoint is kept.",
    "target_modules": "LoRA goes into all linear modules of the layers; adapter.layers picks layers.",
    "auto_find_batch_size": "`guidebook adapt --dry-run` says what fits.",
}
_TOGETHER = (
    *("learning_rate", "per_device_train_batch_size", "max_input_length", "gradient_accumulation_steps"),
    *("early_stopping", "early_stopping_patience"),
)
"""Parameters that are translated together; see `_batch`, `_rate` and `_stopping`."""
