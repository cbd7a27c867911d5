"""MAD-X: a language adapter per domain, a task adapter on top; at test time the domain adapter is exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class MADX:
    """Model each domain's text in an adapter of its own, learn the task on the source's, predict on the target's.

    The task adapter is trained once for all targets: a new target costs one run of language modelling and no label.

    Reference: Pfeiffer et al. 2020, MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer, EMNLP;
        Pfeiffer et al. 2021, UNKs Everywhere: Adapting Multilingual Language Models to New Scripts, EMNLP.
    Differs: domains take the place of languages, so there is no new vocabulary to invert for; the kind of adapter is
        the recipe's. `adapter.layers: all but last` leaves the last layer alone, as MAD-X 2.0 does (the second paper).
    Reads: source text, target text; then source labels.
    Assumes: nothing about the class priors; that what the task adapter reads means the same on either domain adapter.
    """

    def plan(self, run: Run) -> Iterator[Stage]:
        """Read both domains, learn the task on the source's adapter, then put it on the target's."""
        yield Stage("read_source", {"lm": LanguageModelling(run.text(("source",)))}, train={"source_domain": None})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": None}, below=("source_domain",))
        yield Stage("read_target", {"lm": LanguageModelling(run.text(("target",)))}, train={"target_domain": None})
        yield Stage("exchange", {}, train={}, below=("target_domain", "task"))
