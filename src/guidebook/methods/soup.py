"""Soup: adapters of several domains averaged, the more alike a domain is to the target the more of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from guidebook.data.similarity import text_similarity
from guidebook.errors import InputError
from guidebook.losses.language_modelling import LanguageModelling
from guidebook.losses.task import TaskLoss
from guidebook.methods.stage import Stage

if TYPE_CHECKING:
    from guidebook.training.run import Run


@dataclass(frozen=True)
class Soup:
    """Train an adapter per domain from one initialisation and average them, weighted by likeness to the target.

    Reference: Chronopoulou et al. 2023, AdapterSoup: Weight Averaging to Improve Generalization of Pretrained Language
        Models, Findings of EACL; Wortsman et al. 2022, Model Soups, ICML.
    Differs: the target has text, so its own adapter is one of them; all of the domains are averaged with weights by
        text similarity (tf-idf), where AdapterSoup averages the nearest few evenly; the task is learned from the
        averaged adapter. LoRA averages its updates, not their factors, and a soup of it has the sum of the ranks.
    Reads: source text and all targets' text, source labels; with `of: sources` source labels and the target's text.
    Assumes: nothing about the class priors; that the adapters grew out of one (else they are refused).
    """

    of: Literal["domains", "sources"] = "domains"
    """domains: adapters that read the text of the source and of each target, then the task; sources: a task adapter and
    a head for each of several labelled sources."""
    weights: Literal["similarity", "uniform"] = "similarity"
    """Of the adapters: by text similarity to the target, or equal."""
    sharpness: float = 1.0
    """Similarities are raised to this power before they are divided by their sum."""

    def plan(self, run: Run) -> Iterator[Stage]:
        """One stage per domain, then their average."""
        if self.of == "sources":
            yield from self._sources(run)
            return
        source = run.text(("source",))
        yield Stage("read_source", {"lm": LanguageModelling(source)}, train={"source_domain": None})
        texts: dict[str, Sequence[str]] = {"source_domain": run.texts("source")}
        for number, name in enumerate(run.target_names):
            adapter = f"target_domain_{number}"
            yield Stage(f"read_{number}", {"lm": LanguageModelling(run.text_of(name))}, train={adapter: None})
            texts[adapter] = run.texts_of(name)
        yield Stage("soup", {}, train={}, combine={"domain": self._shares(run, texts)})
        yield Stage("task", {"task": TaskLoss(run.source)}, train={"task": "domain"})

    def _sources(self, run: Run) -> Iterator[Stage]:
        sources = run.sources
        if len(sources) < 2:
            raise InputError(
                f"method.of is sources, and there is one source ({next(iter(sources))}). Name several, or of: domains."
            )
        texts = {}
        for number, (name, stream) in enumerate(sources.items()):
            yield Stage(f"task_{number}", {"task": TaskLoss(stream)}, train={f"task_{number}": None})
            texts[f"task_{number}"] = run.texts_of(name)
        yield Stage("soup", {}, train={}, combine={"task": self._shares(run, texts)})

    def _shares(self, run: Run, texts: Mapping[str, Sequence[str]]) -> dict[str, float]:
        if self.weights == "uniform":
            return dict.fromkeys(texts, 1 / len(texts))
        alike = text_similarity(texts, run.texts("target"))
        powers = {name: max(value, 1e-6) ** self.sharpness for name, value in alike.items()}
        run.note("shares of the soup: " + ", ".join(f"{n} {v / sum(powers.values()):.2f}" for n, v in powers.items()))
        return {name: value / sum(powers.values()) for name, value in powers.items()}
