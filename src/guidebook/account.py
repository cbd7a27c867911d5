"""The account of a run: everything that guidebook.json says, from which summary, card and report are made."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.data.corpus import Corpus
from guidebook.data.describe import describe
from guidebook.data.domains import LabelSet, Population
from guidebook.data.gold import reveal_gold
from guidebook.data.tags import TagSet, flat
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.records import machine, versions
from guidebook.evaluation.task_scores import difference, metric_of, scores
from guidebook.recipe import Recipe, name_of
from guidebook.text_account import text_evaluation, text_samples
from guidebook.training.engine import Engine, Outcome
from guidebook.training.run import Material
from guidebook.training.trainer import chosen_dtype

NEVER_CUT = 2**31


def essentials(recipe: Recipe, material: Material, engine: Engine, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what guidebook.json must hold so that the guidebook predicts, and empty places for all that is added.

    Nothing is measured here.
    """
    corpus, host = material.corpus, engine.host
    targets = [
        {"name": p.name, "rows": 0, "transductive": False, "unknown_labels": {}, "scores": {}} for p in corpus.targets
    ]
    return {
        "format": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "base": {
            "id": host.base_id,
            "path": host.base_folder,
            "fingerprint": host.fingerprint,
            "dtype": host.dtype,
            "quantise": host.quantise,
            "quantised_from": host.quantised_from,
            "modules": host.modules,
            "parameters": host.base_parameters,
            "model_type": host.config.model_type,
            "saw": list(recipe.base_saw),
        },
        "task": {
            "kind": recipe.task.kind,
            "labels": list(corpus.labels.names),
            "pairs": bool(corpus.sources) and corpus.sources[0].text_pairs is not None,
            "pooling": engine.pooling,
            "template": material.template,
            "max_length": recipe.task.max_length or recipe.train.max_length,
            "head": recipe.task.head,
            "dropout": recipe.task.dropout,
            "tags": _tags(corpus.labels),
        },
        "recipe": recipe.resolved(),
        "dtype": chosen_dtype(recipe.train.dtype),
        "method": name_of(recipe.method),
        "label_free": getattr(recipe.method, "label_free", True),
        "notes": {f"{o.arm} for {o.target}": list(o.notes) for o in outcomes if o.notes},
        "seed": recipe.seed,
        "domains": [],
        "stages": [],
        "adapters": [],
        "size": {
            "trainable_share": 0.0,
            "megabytes_per_domain": 0.0,
            "base_megabytes": round(host.base_bytes / 1e6, 1),
        },
        "evaluation": {"source": {"name": "", "rows": 0, "scores": {}}, "targets": targets}
        if recipe.task.labelled
        else {"targets": [], "general": [], "samples": []},
        "versions": versions(),
        "machine": {},
        "seconds": 0.0,
    }


def account(recipe: Recipe, material: Material, engine: Engine, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what a finished run adds to the essentials.

    Target labels are revealed here, for the final evaluation, and nowhere else.
    """
    corpus, method = material.corpus, name_of(recipe.method)
    host = engine.host
    moving = max((item["trainable_parameters"] for item in _stages(outcomes)), default=0)
    return {
        "domains": _domains(material, recipe.task.max_length or NEVER_CUT),
        "stages": _stages(outcomes),
        "adapters": _adapters(engine, outcomes, method),
        "size": {
            "trainable_share": moving / host.base_parameters,
            "megabytes_per_domain": _megabytes_per_domain(outcomes, method),
            "base_megabytes": round(host.base_bytes / 1e6, 1),
        },
        "evaluation": _labelled(corpus, outcomes, method)
        if recipe.task.labelled
        else {
            **text_evaluation(material, engine, outcomes, recipe.task.group),
            "samples": text_samples(material, engine, outcomes, recipe.task.prompts),
        },
        "machine": machine(),
    }


def _labelled(corpus: Corpus, outcomes: Sequence[Outcome], method: str) -> dict[str, Any]:
    return {
        "source": _source(corpus.dev, outcomes, corpus.labels),
        "targets": [
            _target(population, corpus, [o for o in outcomes if o.target == population.name], method)
            for population in corpus.targets
        ],
    }


def _tags(labels: LabelSet | TagSet) -> dict[str, Any] | None:
    """Return how tags of words are to be read, None where rows have classes."""
    return {"iob1": labels.iob1, "numbered": labels.numbered} if isinstance(labels, TagSet) else None


def _domains(material: Material, length: int) -> list[dict[str, Any]]:
    corpus = material.corpus
    held_out = corpus.dev or (() if corpus.sources else tuple(corpus.tests.values()))
    populations = [*corpus.everything, *held_out]
    paired = [material.plain_pairs(population) for population in populations]
    tokens = [material.plain_tokens(population) for population in populations]
    found = describe(populations, tokens, length, pairs=paired, specials=material.task_specials)
    for entry in found[len(corpus.everything) :]:
        entry["role"] = "held out"
    return found


def _source(dev: Sequence[Population], outcomes: Sequence[Outcome], labels: LabelSet | TagSet) -> dict[str, Any]:
    if not dev:
        return {"name": "", "rows": 0, "scores": {}}
    gold = np.concatenate([population.labels for population in dev if population.labels is not None])
    found = {o.arm: scores(o.predictions["source"], gold, labels.names) for o in outcomes if "source" in o.predictions}
    return {
        "name": " + ".join(population.name for population in dev),
        "rows": len(flat(gold)),
        "texts": len(gold),
        "scores": found,
    }


def _target(population: Population, corpus: Corpus, outcomes: Sequence[Outcome], method: str) -> dict[str, Any]:
    test, labels = corpus.tests[population.name], corpus.labels
    facts: dict[str, Any] = {
        "name": population.name,
        "rows": len(test.texts),
        "texts": len(test.texts),
        "transductive": corpus.overlaps[population.name].transductive,
        "overlap": corpus.overlaps[population.name].plain(),
        "unknown_labels": {},
        "without_label": 0,
        "scores": {},
    }
    gold = reveal_gold(test, labels)
    if gold is None:
        return facts
    facts |= {"unknown_labels": gold.unknown, "without_label": gold.without}
    facts |= {"rows": int(gold.known.sum()), "texts": int(gold.labelled.sum())}
    here = {o.arm: o.predictions["target"] for o in outcomes if o.predictions}
    if not gold.known.any():
        return facts
    facts["scores"] = {arm: scores(found, gold.rows, labels.names, gold.tags) for arm, found in here.items()}
    if method != TWIN and method in here and TWIN in here:
        found = difference(here[method], here[TWIN], gold, labels.names)
        facts["difference"] = {
            "of": [method, TWIN],
            "metric": metric_of(facts["scores"][method]),
            "estimate": found.estimate,
            "low": found.low,
            "high": found.high,
            "within_noise": bool(found.low <= 0 <= found.high),
        }
    return facts


def _stages(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return every trained stage once, with all targets it served."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for outcome in outcomes:
        for trained in outcome.stages:
            if not trained.figures:
                continue  # only put earlier adapters together
            entry = found.setdefault(
                (outcome.arm, trained.key),
                {
                    "arm": outcome.arm,
                    "name": trained.stage.name,
                    "key": trained.key,
                    "targets": [],
                    "train": list(trained.stage.makes),
                    "starts_from": {name: start for name, start in trained.stage.train.items() if start},
                    **trained.figures,
                    "cached": trained.cached,
                },
            )
            entry["targets"].append(outcome.target)
    return list(found.values())


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6, 3)


def _megabytes_per_domain(outcomes: Sequence[Outcome], method: str) -> float:
    """Return the mean size of what one target needs to be served: the adapters of its last stage's stack."""
    served = [
        sum(_megabytes(outcome.stages[-1].places[name]) for name in outcome.stages[-1].stack)
        for outcome in outcomes
        if outcome.arm == method and outcome.stages
    ]
    return round(float(np.mean(served)), 3) if served else 0.0


def _adapters(engine: Engine, outcomes: Sequence[Outcome], method: str) -> list[dict[str, Any]]:
    """Return the adapters that the artifact keeps, each once."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        if outcome.arm not in (method, TWIN):
            continue
        for trained in outcome.stages:
            for name in trained.stage.makes:
                folder = trained.places[name]
                found[str(folder)] = {
                    "name": name,
                    "variant": outcome.arm,
                    "kind": engine.adapter.kind,
                    "parameters": trained.figures["trainable_parameters"],
                    "megabytes": _megabytes(folder),
                    "stage": trained.key,
                }
    return list(found.values())
