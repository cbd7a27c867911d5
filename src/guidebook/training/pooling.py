"""Which state of a decoder stands for a row: chosen on held-out source rows, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from guidebook.data.corpus import labels_of
from guidebook.data.domains import Population, select_rows
from guidebook.data.streams import seed_for
from guidebook.training.engine import Engine
from guidebook.training.prediction import pooled_in_ways
from guidebook.training.run import Material
from guidebook.training.store import code_digest, key_of
from guidebook.training.trainer import chosen_dtype

WAYS: tuple[Literal["last", "mean"], ...] = ("last", "mean")
"""Ways that a decoder's rows may be pooled, the architecture's own first: it is kept where both do equally well."""
MOST = 512
"""Rows of the source that are read at most, of those trained on and of those held out."""


def settle_pooling(engine: Engine, material: Material) -> None:
    """Decide what `pooling: auto` means on a decoder, and say so; encoders and encoder-decoders keep their default.

    A linear probe on the untouched base is trained on labelled source rows for each way and scored on held-out ones.
    """
    corpus, task = material.corpus, engine.task
    asked = task.labelled and not task.words and task.pooling == "auto" and engine.host.placement.kind == "causal"
    if not asked or not corpus.dev:
        return
    right = accuracies(engine, material)
    chosen = max(WAYS, key=lambda way: (right[way], way == engine.pooling))
    told = ", ".join(f"{way} {100 * right[way]:.1f} %" for way in WAYS)
    engine.task = dataclasses.replace(task, pooling=chosen)
    engine.listener.note(
        f"pooling {chosen}: a linear probe on the untouched base gets {told} of held-out source rows right "
        f"(task.pooling sets it)"
    )


def accuracies(engine: Engine, material: Material) -> dict[str, float]:
    """Return the share of held-out source rows that a linear probe gets right, for each way of pooling."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, dev = (_sample(part, engine.seed) for part in (material.corpus.sources, material.corpus.dev))
    labels, gold = (np.concatenate([labels_of([population]) for population in part]) for part in (train, dev))
    read, held = _features(engine, material, train), _features(engine, material, dev)
    if len(np.unique(labels)) < 2:
        return dict.fromkeys(WAYS, 0.0)
    found: dict[str, float] = {}
    for place, way in enumerate(WAYS):
        scale = StandardScaler().fit(read[place])
        probe = LogisticRegression(C=0.1, max_iter=2000, random_state=0).fit(scale.transform(read[place]), labels)
        found[way] = float((probe.predict(scale.transform(held[place])) == gold).mean())
    return found


def _sample(populations: Sequence[Population], seed: int) -> list[Population]:
    """Return rows of all populations, drawn where there are too many."""
    total = sum(len(population.texts) for population in populations)
    found = []
    for population in populations:
        count = len(population.texts)
        wanted = count if total <= MOST else max(1, MOST * count // total)
        rows = np.sort(np.random.default_rng(seed_for(seed, f"pooling {population.name}")).permutation(count)[:wanted])
        found.append(population if wanted == count else select_rows(population, rows))
    return found


def _features(engine: Engine, material: Material, populations: Sequence[Population]) -> np.ndarray:
    """Return pooled rows (ways, N, H) of the untouched base, kept in the store: the base reads every row once."""
    parts = []
    for population in populations:
        rows = material.rows(population)

        def run(rows: object = rows) -> np.ndarray:
            with engine.host.disabled():
                return np.stack(pooled_in_ways(engine.host, rows, WAYS, engine.train.dtype))  # type: ignore[arg-type]

        where = (engine.host.fingerprint, WAYS, chosen_dtype(engine.train.dtype), code_digest(), "pooled in ways")
        parts.append(engine.store.array(key_of({"model": where, "rows": rows.fingerprint}), run))
    return np.concatenate(parts, axis=1)
