"""A recipe's `trainer: {report_to: …}` reaches trackers with named parts of the loss, and changes no weights."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

import guidebook as gb
from guidebook.errors import InputError
from guidebook.training import trackers
from guidebook.training.listener import Listener
from guidebook.training.trainer import check_arguments
from tiny import tiny_recipe


class Notes(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("names", ["mlflow", "wandb", ["tensorboard", "mlflow"]])
def test_a_missing_tracker_comes_with_its_command(monkeypatch, names):
    monkeypatch.setattr(integration_utils, "is_mlflow_available", lambda: False)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    missing = names if isinstance(names, str) else names[-1]
    with pytest.raises(InputError, match=rf"pip install 'guidebook\[{missing}\]'"):
        check_arguments({"report_to": names})


def test_an_unknown_tracker_suggests_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'tensorboard'"):
        check_arguments({"report_to": "tensorbord"})
    check_arguments({"report_to": "none"})
    check_arguments({})


def test_every_tracker_of_an_extra_is_known_to_transformers():
    assert set(trackers.EXTRAS) <= set(integration_utils.INTEGRATION_TO_CALLBACK)
    for name in trackers.EXTRAS:
        assert callable(getattr(integration_utils, f"is_{name}_available"))


def test_what_only_watches_decides_nothing():
    extra = {"report_to": "wandb", "run_name": "x", "logging_steps": 3, "optim": "adafactor"}
    assert trackers.deciding(extra) == {"optim": "adafactor"}


@pytest.mark.slow
def test_tensorboard_hears_named_parts_and_a_tracked_run_shares_its_stages(tiny_base, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    targets = [gb.Domain("kitchen", ["the pan warped", "it boils fast"])]
    recipe = tiny_recipe(tiny_base("bert"), targets=targets, trainer={"report_to": "tensorboard", "logging_steps": 1})
    notes = Notes()
    gb.adapt(recipe, out=tmp_path / "tracked", listener=notes)
    runs = sorted(path.name.partition("-")[0] for path in (tmp_path / "cache" / "tensorboard").iterdir())
    assert runs == ["fuse", "task", "task"]  # the method's two stages and the twin's
    (folder,) = (tmp_path / "cache" / "tensorboard").glob("fuse-*")
    assert f"fuse: tensorboard --logdir {folder}" in notes.notes
    found = accumulator.EventAccumulator(str(folder)).Reload()
    assert {"train/loss", "train/loss/lm"} <= set(found.Tags()["scalars"])
    losses = [event.value for event in found.Scalars("train/loss/lm")]
    assert len(set(losses)) > 1
    assert np.isfinite(losses).all()
    again = gb.adapt(recipe.replace(trainer={}), out=tmp_path / "untracked")
    assert all(stage["cached"] for stage in again.meta["stages"])


def test_any_tracker_of_transformers_hears_the_parts(tiny_base, tmp_path, monkeypatch):
    heard: list[tuple[str, dict[str, float]]] = []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            heard.append((args.run_name, dict(logs)))

    monkeypatch.setattr(integration_utils, "is_mlflow_available", lambda: True)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", Recorder)
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    targets = [gb.Domain("kitchen", ["the pan warped", "it boils fast"])]
    gb.adapt(tiny_recipe(tiny_base("bert"), targets=targets, trainer={"report_to": ["mlflow"]}), out=tmp_path / "out")
    assert any(name.startswith("fuse-") and "loss/lm" in logs for name, logs in heard)
    assert any(name.startswith("task-") and "loss/task" in logs for name, logs in heard)
    assert len({name for name, _ in heard}) == 3


def test_a_run_of_weights_and_biases_ends_with_its_stage_unless_the_user_opened_it(monkeypatch):
    ended = []
    module = SimpleNamespace(run=None, finish=lambda: ended.append(True))
    monkeypatch.setitem(sys.modules, "wandb", module)
    before = trackers.open_run()
    trackers.close_runs(before)
    assert ended == []
    module.run = object()
    trackers.close_runs(trackers.open_run())
    assert ended == []
    trackers.close_runs(before)
    assert ended == [True]
    monkeypatch.delitem(sys.modules, "wandb")
    assert trackers.open_run() is None
