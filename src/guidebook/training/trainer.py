"""The loop: `transformers.Trainer`, once, over a plan whose items are whole batches."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from guidebook.errors import InputError, RunError, nearest
from guidebook.training import processes
from guidebook.training.listener import Listener
from guidebook.training.model import StageModel
from guidebook.training.plan import StagePlan
from guidebook.training.precision import rates
from guidebook.training.settings import FuseTraining, TaskTraining, Training
from guidebook.training.stopping import EarlyStopping, measured
from guidebook.training.store import complete_checkpoint, mark_complete
from guidebook.training.trackers import check_trackers, close_runs, open_run, place_logs

WEIGHTS = "trainable.safetensors"


def bf16_is_fast() -> bool:
    """Return whether training is faster in bf16: a GPU that has units for it, a processor on which it won a race."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = rates()
    return found is not None and found.bf16_is_faster


def chosen_dtype(dtype: str) -> str:
    """Return "bfloat16" or "float32" for the recipe's `train.dtype`."""
    if dtype == "auto":
        return "bfloat16" if bf16_is_fast() else "float32"
    return dtype


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trainer over planned batches: saves only what moves, resumes only from complete checkpoints."""

    loss_is_scaled_for_ga = False  # a step's parts are means over its parts: Trainer divides by their number

    def __init__(
        self,
        model: StageModel,
        arguments: TrainingArguments,
        plan: StagePlan,
        listener: Listener,
        stopping: EarlyStopping | None = None,
    ) -> None:
        self._sums: dict[str, Tensor] = {}
        self._shares: dict[str, float] = {}
        self._seen = 0
        self._step_loss: Tensor | None = None
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=plan,
            data_collator=_only,
            # what is measured is what is kept: the teacher moves before that
            callbacks=[_Progress(model, plan, listener, self._check_finite), *([stopping] if stopping else [])],
        )
        self._stopping = stopping
        if stopping is not None:
            stopping.log = self.log

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of one part of a step."""
        out = model(inputs)
        done = out["loss"].detach()
        self._step_loss = done if self._step_loss is None else self._step_loss + done
        for name, value in out["parts"].items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
        self._seen += 1
        if len(out["weighted"]) > 1 and self.state.global_step % self.args.logging_steps == 0:
            self._shares = self._gradient_shares(out["weighted"])
        loss: Tensor = out["loss"]
        return loss

    def _check_finite(self) -> None:
        """Look at a whole step's loss before the step is taken: once a step, since a GPU has to be waited for.

        Raises:
            RunError: it is not finite; nothing was updated and the last complete checkpoint stays.
        """
        finite = self._step_loss is None or math.isfinite(float(self._step_loss))
        self._step_loss = None
        if not finite:
            bad = [name for name, value in self._sums.items() if not math.isfinite(float(value))]
            raise RunError(
                f"The loss is not finite at step {self.state.global_step + 1} (part {', '.join(bad) or 'loss'}). "
                "The last complete checkpoint is kept. Lower the learning rate, or use train.dtype=float32."
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every named part since the last log, and each part's share of the gradient."""
        if self._seen and "loss" in logs:
            logs.update({f"loss/{n}": float(processes.mean(v)) / self._seen for n, v in self._sums.items()})
            logs.update({f"gradient_share/{name}": share for name, share in self._shares.items()})
            self._sums, self._seen = {}, 0
        super().log(logs, start_time)

    def _gradient_shares(self, weighted: Mapping[str, Tensor]) -> dict[str, float]:
        """Return every part's norm of the gradient of the trained weights, as a share of the parts' sum of norms."""
        trained = list(self._stage_model().trainable().values())
        norms = {}
        for name, value in weighted.items():
            found = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            norms[name] = math.sqrt(sum(part.float().pow(2).sum() for part in found if part is not None))
        total = sum(norms.values()) or 1.0
        return {name: norm / total for name, norm in norms.items()}

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimiser, with groups of their own for modules that have a learning-rate factor."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        for name, factor in self._stage_model().rates().items():
            module = self._stage_model().heads[name]
            moved = {id(parameter) for parameter in module.parameters()}
            decay = optimizer.param_groups[0]["weight_decay"]
            for group in optimizer.param_groups:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in moved]
            rate = self.args.learning_rate * factor
            optimizer.add_param_group({"params": list(module.parameters()), "lr": rate, "weight_decay": decay})
        return optimizer

    def _stage_model(self) -> StageModel:
        unwrapped: StageModel = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return unwrapped

    def _trainable(self) -> dict[str, Tensor]:
        """Return everything a checkpoint carries: what is trained, the teacher's averages, the best weights so far."""
        model = self._stage_model()
        found = model.trainable() | {f"average.{name}": value for name, value in _averages(model).items()}
        return found | (self._stopping.best if self._stopping is not None else {})

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().contiguous() for name, value in self._trainable().items()}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        wanted = self._trainable()
        if saved.keys() != wanted.keys():
            raise RunError(f"{resume_from_checkpoint} holds other weights than this stage trains. Delete its folder.")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(saved[name])

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        processes.wait()  # every process writes its own random state
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            mark_complete(folder)
            complete_checkpoint(Path(self.args.output_dir))
        processes.wait()


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one item of a list, which is a whole batch already; a named function, so that workers can have it."""
    return items[0]


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Moves the teacher, tells the listener how far the stage is, and asks for a checkpoint when its time has come."""

    def __init__(
        self, model: StageModel, plan: StagePlan, listener: Listener, check: Callable[[], None] = lambda: None
    ) -> None:
        self._model = model
        self._plan = plan
        self._listener = listener
        self._check = check
        self._tokens = plan.step_tokens
        self._done = 0
        self.checkpoint_seconds = 60.0
        self._loss: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = self._saved = time.monotonic()
        self._done = 0  # tokens since then

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._model.average is not None:
            self._model.average.update(self._model.trainable())
        now = time.monotonic()
        self._done += self._tokens[state.global_step - 1]
        figures = {"tokens_per_second": self._done / max(now - self._began, 1e-9)}
        if self._loss is not None:
            figures["loss"] = self._loss
        self._listener.advance(self._plan.stage.name, state.global_step, **figures)
        if processes.agree(now - self._saved > self.checkpoint_seconds) and state.global_step < state.max_steps:
            control.should_save = True
            self._saved = now
        return control


def check_arguments(extra: Mapping[str, Any]) -> None:
    """Refuse what Trainer does not know, before anything is trained.

    Raises:
        InputError: an unknown argument, or a value that transformers does not accept.
    """
    known = [item.name for item in dataclasses.fields(TrainingArguments) if item.init]
    for name in extra:
        if name not in known:
            raise InputError(f"trainer.{name}: transformers.TrainingArguments has no such field.{nearest(name, known)}")
    check_trackers(extra.get("report_to"))
    try:
        TrainingArguments(**{"output_dir": "", "report_to": "none", "use_cpu": not torch.cuda.is_available(), **extra})
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"trainer: transformers refuses {dict(extra)}: {error}") from error


def arguments_from(
    train: Training, settings: FuseTraining | TaskTraining, *, steps: int, rate: float
) -> dict[str, Any]:
    """Return those of Trainer's arguments that follow from the settings."""
    return {
        "max_steps": steps,
        "gradient_accumulation_steps": train.micro_batches,
        "learning_rate": rate,
        "warmup_steps": min(math.ceil(settings.warmup * steps), steps - 1),  # the first of them has a rate of zero
        "weight_decay": settings.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "bf16": chosen_dtype(train.dtype) == "bfloat16",
    }


def training_arguments(
    folder: Path,
    train: Training,
    settings: FuseTraining | TaskTraining,
    *,
    steps: int,
    rate: float,
    extra: dict[str, Any],
) -> TrainingArguments:
    """Return Trainer's arguments of a stage: what guidebook owns, then what the recipe passes through."""
    owned: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "linear",
        **arguments_from(train, settings, steps=steps, rate=rate),
        "save_strategy": "no",
        "logging_steps": max(1, steps // 20),
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
        "accelerator_config": {"non_blocking": torch.cuda.is_available()},  # from pinned memory, which only a GPU has
        "seed": 0,
    }
    arguments = TrainingArguments(**{**owned, **extra})
    arguments._n_gpu = min(arguments.n_gpu, 1)  # Trainer would cut planned batches among all GPUs that it sees
    return arguments


def train_plan(
    model: StageModel,
    plan: StagePlan,
    arguments: TrainingArguments,
    listener: Listener,
    checkpoint_seconds: float,
    *,
    stopping: EarlyStopping | None = None,
) -> dict[str, Any]:
    """Train a stage from its newest complete checkpoint, or from the start, and return its figures.

    Raises:
        RunError: the loss is not finite.
    """
    folder = Path(arguments.output_dir)
    if processes.is_first():
        complete_checkpoint(folder)  # deletes what is not complete, before the others look
    processes.wait()
    checkpoint = complete_checkpoint(folder)
    trainer = StageTrainer(model, arguments, plan, listener, stopping)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, _Progress):
            callback.checkpoint_seconds = checkpoint_seconds
    trainer.remove_callback(PrinterCallback)
    arguments.run_name = arguments.run_name or f"{plan.stage.name}-{folder.stem[:12]}"
    if (logs := place_logs(trainer, folder.parent, arguments.run_name)) is not None:
        listener.note(f"{plan.stage.name}: tensorboard --logdir {logs}")
    before, began = open_run(), time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        close_runs(before)
    model.put(model.kept() if stopping is None else stopping.kept())
    first_step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    seconds = time.monotonic() - began
    steps = trainer.state.global_step
    done = sum(plan.step_tokens[first_step:steps])
    return {
        "tokens": sum(plan.step_tokens[:steps]),
        "steps": steps,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(done / max(seconds, 1e-9), 1),
        "padding_share": round(plan.padding_share, 4),
        "losses": _first_and_last(trainer.state.log_history, "loss/"),
        "curves": _curves(trainer.state.log_history, "loss/"),
        "gradient_shares": _first_and_last(trainer.state.log_history, "gradient_share/"),
        "mix": plan.mix(),
        "stopped_early": steps < plan.steps,
        "held_out_losses": [round(loss, 4) for loss in measured(trainer.state.log_history)],
        "resumed_from_step": first_step,
        "process": os.getpid(),
    }


def _averages(model: StageModel) -> dict[str, Tensor]:
    """Return the buffers of the teacher's averages, if the stage has any."""
    return dict(model.average.named_buffers()) if model.average is not None else {}


def _first_and_last(history: list[dict[str, float]], prefix: str) -> dict[str, dict[str, float]]:
    names = dict.fromkeys(name for entry in history for name in entry if name.startswith(prefix))
    found = {}
    for name in names:
        values = [entry[name] for entry in history if name in entry]
        found[name.removeprefix(prefix)] = {"first": round(values[0], 4), "last": round(values[-1], 4)}
    return found


def _curves(history: list[dict[str, float]], prefix: str) -> dict[str, list[list[float]]]:
    """Return the logged (step, value) pairs of every part; a value is the mean since the last log."""
    found: dict[str, list[list[float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name.startswith(prefix):
                found.setdefault(name.removeprefix(prefix), []).append([entry["step"], round(value, 4)])
    return found
