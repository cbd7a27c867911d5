"""Trackers: TensorBoard, MLflow, Weights & Biases and others watch a stage through Trainer's `report_to`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.integrations import integration_utils

from guidebook.errors import InputError, nearest

EXTRAS = ("tensorboard", "mlflow", "wandb")
"""Trackers whose package is an extra of the same name."""
WATCHING = ("report_to", "run_name", "logging_strategy", "logging_steps", "logging_first_step", "disable_tqdm")
"""Arguments of Trainer that change what is heard of a stage, not what it makes."""


def deciding(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that decide what a stage makes: a tracked run shares its stages with an untracked one.

    >>> deciding({"report_to": "tensorboard", "adam_beta2": 0.98})
    {'adam_beta2': 0.98}
    """
    return {name: value for name, value in extra.items() if name not in WATCHING}


def check_trackers(report_to: str | list[str] | None) -> None:
    """Refuse trackers that are not there, before anything is trained.

    Raises:
        InputError: transformers knows no such tracker, or its package is missing; the message holds the pip command.
    """
    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in ("none", "all"):
            continue
        if name not in known:
            hint = nearest(str(name), known)
            raise InputError(f"trainer.report_to: no tracker is named {name!r}.{hint} Known: {', '.join(known)}.")
        is_there = getattr(integration_utils, f"is_{name}_available", None)
        if is_there is not None and not is_there():
            what = f"'guidebook[{name}]'" if name in EXTRAS else str(name)
            raise InputError(f"trainer.report_to: the package of {name} is not installed: pip install {what}")


def place_logs(trainer: Trainer, root: Path, run: str) -> Path | None:
    """Send TensorBoard's files to `root`/tensorboard/`run` and return that folder; None where it does not watch.

    Trainer puts them beside the checkpoints, and those are removed when a stage is done. A folder in
    TENSORBOARD_LOGGING_DIR wins.
    """
    folder = root / "tensorboard" / run
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, integration_utils.TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)
            return folder
    return None


def close_runs(before: object) -> None:
    """End the run that Weights & Biases opened for a stage, so that the next one has its own.

    Args:
        before: `open_run()` when the stage began: a run that the user opened stays open.
    """
    run = open_run()
    if run is not None and before is None:
        sys.modules["wandb"].finish()


def open_run() -> object:
    """Return the open run of Weights & Biases, None where there is none or the package was never imported."""
    return getattr(sys.modules.get("wandb"), "run", None)
