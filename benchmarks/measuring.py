"""What a record says of one trained candidate, and how long what has no record yet will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guidebook.account import scores
from guidebook.compare.scores import label_free_scores
from guidebook.data.population import Population
from guidebook.evaluation.records import machine, versions
from guidebook.training.engine import Engine, Outcome
from guidebook.training.run import Material

LEVEL = 0.9
"""Of the intervals of guessed accuracies."""
Record = dict[str, Any]


def measured(outcome: Outcome, target: Population, material: Material, engine: Engine) -> Record:
    """Return what a candidate got right on a target's test rows, and what it says of itself without their labels."""
    hidden = material.corpus.tests[target.name].hidden
    assert hidden is not None
    gold = material.corpus.labels.encode(hidden.reveal("final evaluation"))
    probabilities = outcome.predictions["target"]  # (N, C)
    corpus = material.corpus
    material.corpus = replace(corpus, targets=(target,))  # what is said without labels is said of this target alone
    free: Record = {"scores": {}, "estimates": {}, "prior": None, "doubt": None}
    if outcome.stages:
        free = label_free_scores(material, engine, outcome, LEVEL)
    material.corpus = corpus
    brief = scores(probabilities, gold, corpus.labels.names)
    return {
        "rows": len(gold),
        **{key: brief[key] for key in ("accuracy", "macro_f1", "calibration_error")},
        "correct": "".join("01"[int(hit)] for hit in probabilities.argmax(1) == gold),
        "label_free_scores": free["scores"],
        "estimates": free["estimates"],
        "prior": free["prior"],
        "doubt": free["doubt"],
        "shares": dict(
            zip(corpus.labels.names, np.bincount(gold, minlength=len(corpus.labels.names)).tolist(), strict=True)
        ),
        "notes": outcome.notes,
        "stages": [{"key": t.key, "cached": t.cached, **t.figures} for t in outcome.stages],
        "base_fingerprint": engine.host.fingerprint,
        "versions": versions(),
        "machine": machine(),
    }


def hours_left(todo: Sequence[Any], records: Sequence[Record]) -> float:
    """Return the hours that jobs take, each as long as those of its phase and method took so far.

    >>> from types import SimpleNamespace
    >>> past = [{"phase": "screening", "method": "dann", "seconds": 1800.0}]
    >>> hours_left([SimpleNamespace(phase="screening", method="dann")] * 4, past)
    2.0
    """
    spent: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for record in records:
        for kind in ((record["phase"], record["method"]), (record["method"],), ()):
            spent[kind].append(record["seconds"])

    def expected(job: Any) -> float:
        kinds: list[tuple[str, ...]] = [(job.phase, job.method), (job.method,), ()]
        return next((float(np.mean(spent[kind])) for kind in kinds if spent[kind]), 0.0)

    return sum(expected(job) for job in todo) / 3600


def processor(made_on: Record) -> tuple[Any, ...]:
    """Return what decides how long a run takes: hours on a GPU say nothing of a processor's."""
    return made_on["gpu"] or made_on["cpu"], made_on["torch_threads"]
