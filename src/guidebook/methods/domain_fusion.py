"""Domain fusion: adapters learn from mixed unlabelled text, then a copy of them learns the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class DomainFusion:
    """Fuse source and target text by language modelling, then learn the task from the source's labels.

    Reference: Zhang et al. 2021, Unsupervised Domain Adaptation with Adapter, arXiv 2111.00667.
    Differs: the paper goes on training the fused adapter; here the task starts from a copy, so the fused adapter
        stays as it was and serves every direction. Adapters sit where the kind puts them (Houlsby: after
        attention and feed-forward; the paper: after the feed-forward sub-layer alone).
    Reads: source text and the targets' text; then source labels.
    Assumes: nothing about the class priors.
    """

    scope: Literal["all", "pair"] = "all"
    """all: one fusion stage on the source and every target (the paper); pair: one per target."""
    mixture: str | Mapping[str, float] = "proportional"
    """Token shares of the domains: proportional, equal, temperature:0.5, or {domain: share}."""
    general: float = 0.0
    """Share of the fusion stage's tokens that is general text, mixed in against forgetting, 0 <= general < 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.general < 1:
            raise InputError(f"method.general is {self.general}, expected a share of 0 or more and less than 1.")

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse, then learn the task, if there is one."""
        scope = ("source", "target") if self.scope == "pair" else ("source", "targets")
        text = run.text(scope, self.mixture, self.general)
        yield Stage("fuse", {"lm": LanguageModelling(text)}, train={"domain": None})
        if run.has_task:
            yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": "domain"})
