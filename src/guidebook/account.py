"""The account of a run: everything that guidebook.json says, from which summary, card and report are made."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from guidebook.data.corpus import labels_of
from guidebook.data.describe import describe
from guidebook.data.domains import LabelSet, Population
from guidebook.evaluation.metrics import classification_scores
from guidebook.evaluation.records import machine, versions
from guidebook.evaluation.statistics import accuracy_interval, paired_difference
from guidebook.recipe import Recipe, name_of
from guidebook.training.engine import Engine, Outcome
from guidebook.training.run import Material

TWIN = "source_only"


def account(recipe: Recipe, material: Material, engine: Engine, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what guidebook.json holds; target labels are revealed here, for the final evaluation, and nowhere else."""
    corpus, method = material.corpus, name_of(recipe.method)
    host = engine.host
    adapters = _adapters(engine, outcomes, method)
    total = host.parameters
    moving = max((item["trainable_parameters"] for item in _stages(outcomes)), default=0)
    per_domain = sum(item["megabytes"] for item in adapters if item["variant"] == method)
    return {
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "base": {
            "id": host.base_id,
            "fingerprint": host.fingerprint,
            "parameters": total,
            "model_type": host.config.model_type,
            "saw": host.saw,
        },
        "task": {
            "kind": recipe.task.kind,
            "labels": list(corpus.labels.names),
            "pairs": corpus.sources[0].text_pairs is not None,
            "pooling": engine.pooling,
            "max_length": recipe.task.max_length,
            "head": recipe.task.head,
            "dropout": recipe.task.dropout,
        },
        "recipe": recipe.resolved(),
        "method": method,
        "seed": recipe.seed,
        "domains": describe(
            [*corpus.everything, *corpus.dev],
            {f"{p.role} {p.name}": material.plain_tokens(p) for p in (*corpus.everything, *corpus.dev)},
            recipe.task.max_length,
            labels=corpus.labels.names,
        ),
        "stages": _stages(outcomes),
        "adapters": adapters,
        "size": {
            "trainable_share": moving / total,
            "megabytes_per_domain": per_domain,
            "base_megabytes": host.megabytes,
        },
        "evaluation": {
            "source": _source(corpus.dev, outcomes, corpus.labels),
            "targets": [
                _target(population, corpus.tests[population.name], outcomes, corpus.labels, method)
                for population in corpus.targets
            ],
        },
        "versions": versions(),
        "machine": machine(),
    }


def scores(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return the classification scores of (N, C) probabilities with a 95 % interval of the accuracy."""
    found = classification_scores(probabilities, labels, names)
    interval = accuracy_interval(probabilities.argmax(1) == labels)
    return {**found, "accuracy_low": interval.low, "accuracy_high": interval.high}


def _source(dev: Sequence[Population], outcomes: Sequence[Outcome], labels: LabelSet) -> dict[str, Any]:
    if not dev:
        return {"name": "", "rows": 0, "scores": {}}
    gold = labels_of(dev)
    found = {o.arm: scores(o.predictions["source"], gold, labels.names) for o in outcomes if "source" in o.predictions}
    return {"name": " + ".join(population.name for population in dev), "rows": len(gold), "scores": found}


def _target(
    population: Population, test: Population, outcomes: Sequence[Outcome], labels: LabelSet, method: str
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": population.name,
        "rows": len(test.texts),
        "transductive": test is population or test.fingerprint == population.fingerprint,
        "unknown_labels": {},
        "scores": {},
    }
    if test.hidden is None:
        return facts
    raw = test.hidden.reveal("final evaluation")
    facts["unknown_labels"] = labels.unknown(raw)
    gold = labels.encode(raw)
    known = gold >= 0
    facts["rows"] = int(known.sum())
    here = {o.arm: o.predictions["target"][known] for o in outcomes if o.target == population.name and o.predictions}
    if not known.any():
        return facts
    facts["scores"] = {arm: scores(found, gold[known], labels.names) for arm, found in here.items()}
    if method != TWIN and method in here and TWIN in here:
        correct = [here[arm].argmax(1) == gold[known] for arm in (method, TWIN)]
        difference = paired_difference(*correct)
        facts["difference"] = {
            "of": [method, TWIN],
            "estimate": difference.estimate,
            "low": difference.low,
            "high": difference.high,
            "within_noise": bool(difference.low <= 0 <= difference.high),
        }
    return facts


def _stages(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return every trained stage once, with all targets it served."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for outcome in outcomes:
        for trained in outcome.stages:
            entry = found.setdefault(
                (outcome.arm, trained.key),
                {
                    "arm": outcome.arm,
                    "name": trained.stage.name,
                    "key": trained.key,
                    "targets": [],
                    "train": list(trained.stage.train),
                    "starts_from": {name: start for name, start in trained.stage.train.items() if start},
                    **trained.figures,
                    "cached": trained.cached,
                },
            )
            entry["targets"].append(outcome.target)
    return list(found.values())


def _adapters(engine: Engine, outcomes: Sequence[Outcome], method: str) -> list[dict[str, Any]]:
    """Return the adapters that the artifact keeps, each once."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        if outcome.arm not in (method, TWIN):
            continue
        for trained in outcome.stages:
            for name in trained.stage.train:
                folder = trained.places[name]
                size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
                found[str(folder)] = {
                    "name": name,
                    "variant": outcome.arm,
                    "kind": engine.adapter.kind,
                    "parameters": trained.figures["trainable_parameters"],
                    "megabytes": round(size / 1e6, 3),
                    "stage": trained.key,
                }
    return list(found.values())
