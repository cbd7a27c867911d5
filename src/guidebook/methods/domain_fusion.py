"""Domain fusion: adapters learn from mixed unlabelled text, then a copy of them learns the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
    """

    scope: Literal["all", "pair"] = "all"
    """all: one fusion stage on the source and every target (the paper); pair: one per target."""
    mixture: str | Mapping[str, float] = "proportional"
    """Token shares of the domains: proportional, equal, temperature:0.5, or {domain: share}."""

    def plan(self, run: Run) -> Iterator[Stage]:
        """Fuse, then learn the task."""
        text = run.text(("source", "target") if self.scope == "pair" else ("source", "targets"), self.mixture)
        yield Stage("fuse", {"lm": LanguageModelling(text)}, train={"domain": None})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": "domain"})
