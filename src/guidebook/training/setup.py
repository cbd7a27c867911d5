"""What a stage is built from beside its rows: its batches, its heads, its rate, how the loop is run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from guidebook.adapters.host import Host
from guidebook.losses.contract import Facts
from guidebook.methods.stage import Stage
from guidebook.training.keys import altered, few_rows, recorded
from guidebook.training.plan import StagePlan
from guidebook.training.prediction import input_of
from guidebook.training.settings import FuseTraining, TaskTraining, Training
from guidebook.training.stopping import hold_out
from guidebook.training.trainer import arguments_from


@dataclass(frozen=True)
class Setup:
    """Settings, and what a stage takes from them: all that a stage reads of the settings it reads through here."""

    host: Host
    adapter: Any
    train: Training
    facts: Facts
    """What losses may know when they build their modules."""
    seed: int
    parts: int
    """Parts of a step: micro-batches times processes."""

    def reads(self, stage: Stage) -> dict[str, Any]:
        """Return every setting that a stage reads, by name: built on a few of its rows, with settings that note it."""
        read: dict[str, Any] = {}
        if None in stage.train.values():
            read["adapter"] = self.adapter  # a new one: all of it
        if stage.losses:
            self._with(read, sealed=False)._rehearse(few_rows(stage))
            if self.settings(stage).patience is not None:  # whole documents are held out
                read["documents"] = [part.stream.documents for loss in stage.losses.values() for part in loss.reads]
        return read

    def only(self, read: dict[str, Any]) -> Setup:
        """Return the same with nothing but these settings: another one is refused when it is read."""
        return self._with(read, sealed=True)

    def _with(self, read: dict[str, Any], *, sealed: bool) -> Setup:
        views = {
            name: recorded(getattr(self, name), read, name, sealed=sealed) for name in ("adapter", "train", "facts")
        }
        return dataclasses.replace(self, **views)

    def _rehearse(self, stage: Stage) -> None:
        """Build everything of a stage once, and read what `_train` and the layers ask for by themselves."""
        settings = self.settings(stage)
        early = settings.held_out if settings.patience is not None else None  # few rows leave none to hold out
        plan = StagePlan(stage, self.train, self.seed, input_of(self.host), parts=1)
        plan.batch(0)
        self.heads(stage)
        arguments_from(self.train, settings, steps=1, rate=self.rate(stage))
        assert (early, self.base_dropout, self.train.compile) is not None

    def settings(self, stage: Stage) -> FuseTraining | TaskTraining:
        """Return the settings of this sort of stage."""
        first = next(iter(stage.losses.values()))
        return self.train.fuse if first.length_in == "tokens" else self.train.task

    @property
    def base_dropout(self) -> bool:
        """Whether the base was loaded with its own dropout."""
        return bool(self.adapter.kind == "full" or self.train.base_dropout)

    def plan(self, stage: Stage) -> StagePlan:
        """Return every batch of a stage."""
        if (settings := self.settings(stage)).patience is not None:
            stage, _ = hold_out(stage, settings.held_out, self.seed)
        return StagePlan(stage, self.train, self.seed, input_of(self.host), parts=self.parts)

    def held_out(self, stage: Stage) -> StagePlan | None:
        """Return one pass over the rows that are held out to tell when to stop early, if the settings ask for that."""
        settings = self.settings(stage)
        if settings.patience is None:
            return None
        _, out = hold_out(stage, settings.held_out, self.seed)
        tokens = sum(int(read.stream.tokens.lengths.sum()) for read in next(iter(out.losses.values())).reads[:1])
        once = altered(self.train, {"fuse.tokens": tokens, "fuse.epochs": None, "task.epochs": 1.0})
        return StagePlan(out, once, self.seed, input_of(self.host))

    def heads(self, stage: Stage) -> dict[str, nn.Module]:
        """Return the modules that a stage's losses bring, freshly initialised."""
        found: dict[str, nn.Module] = {}
        for loss in stage.losses.values():
            found.update({name: head for name, head in loss.modules(self.facts).items() if name not in found})
        return found

    def rate(self, stage: Stage) -> float:
        """Return the peak learning rate: the stage's own, the settings', or the adapter kind's."""
        rate = stage.learning_rate or self.settings(stage).learning_rate
        return float(self.adapter.learning_rate if rate is None else rate)
