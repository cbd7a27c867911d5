"""What a candidate says of itself without target labels: validators, estimates, and what it forgot."""

from __future__ import annotations

from typing import Any

from guidebook.data.corpus import documents
from guidebook.data.streams import seed_for
from guidebook.evaluation.forgetting import language_loss
from guidebook.evaluation.validators import VALIDATORS
from guidebook.label_free import label_free
from guidebook.training.engine import Engine, Outcome
from guidebook.training.run import Material

GENERAL_ROWS = 64
"""Pieces of general text that are read to measure forgetting."""


def label_free_scores(material: Material, engine: Engine, outcome: Outcome, level: float = 0.95) -> dict[str, Any]:
    """Return scores, estimates, guessed class shares and what speaks against them of one candidate, for its record.

    Scores say which way is better, so that a record can be read without this version of the table. What needs several
    candidates or seeds at once is not there, nor are scores of a candidate that reads target labels. `level` is that of
    the estimates' intervals.
    """
    found, _ = label_free(material, engine, [outcome], level)
    entries = [target for target in found["targets"] if target["name"] == outcome.target]
    if not entries:
        return {"scores": {}, "estimates": {}, "prior": None, "doubt": None}
    scores = entries[0]["validators"].get(outcome.arm, {})
    return {
        "scores": {
            name: {"value": value, "higher_is_better": VALIDATORS[name].higher_is_better}
            for name, value in scores.items()
        },
        "estimates": entries[0]["estimates"].get(outcome.arm, {}),
        "prior": entries[0].get("prior"),
        "doubt": entries[0].get("doubts", {}).get(outcome.arm),
    }


def forgotten(material: Material, engine: Engine, outcome: Outcome) -> float | None:
    """Return how much worse general text is read with the candidate's adapters active, in nats per token.

    None where the recipe has no general text, or nothing was trained inside the base.
    """
    if not material.corpus.general or not outcome.stages:
        return None
    texts = documents(material.corpus.general[0])
    settings = {
        "length": engine.train.max_length,
        "rows": GENERAL_ROWS,
        "seed": seed_for(0, "forgetting") % 2**32,
    }
    engine.clear()
    before = language_loss(engine.host, texts, **settings)
    engine.attach(outcome.stages[-1])
    return language_loss(engine.host, texts, **settings) - before
