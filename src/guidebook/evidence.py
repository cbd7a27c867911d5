"""What a run keeps so that its report can show more than numbers: rows before and after, disagreements, words.

It is small, plain data (evidence.json). It quotes texts of the target, so it is never uploaded with a guidebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guidebook.data.domains import Population
from guidebook.data.gold import reveal_gold
from guidebook.data.streams import seed_for
from guidebook.evaluation.closer import align, calibration_bins, changed_words, project
from guidebook.evaluation.drift import TWIN
from guidebook.recipe import Recipe, name_of
from guidebook.training.engine import Engine, Outcome, Trained
from guidebook.training.prediction import Rows, make_rows, pooled_rows, predicted_and_pooled
from guidebook.training.reading import Reading, read_text
from guidebook.training.run import Material

MAPPED = 120
"""Rows of the source, and as many of the target, that stand on the map."""
QUOTED = 6
"""Rows that are quoted where the adapted model and its twin disagree."""
LONGEST_QUOTE = 400
PIECES = 128
"""Pieces of text that are read before and after."""
Passes = dict[tuple[str, str], tuple[np.ndarray | None, np.ndarray]]
"""Key of a model and fingerprint of rows -> what its pass over them gave: targets share the source's."""


def evidence(recipe: Recipe, material: Material, engine: Engine, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the report shows of every target, and how general text is read before and after.

    Target labels are revealed here for the final evaluation (calibration, the truth beside quoted rows); nothing that
    was trained or chosen comes after it.
    """
    method, whole = name_of(recipe.method), not recipe.task.words  # maps and quotes are of whole rows
    found: dict[str, Any] = {"format": 1, "targets": {}, "general": None}
    passes: Passes = {}
    for target in material.corpus.targets:
        by_arm = {outcome.arm: outcome for outcome in outcomes if outcome.target == target.name}
        closer = _Closer(recipe, material, engine, target, passes)
        ours, twin = by_arm.get(method), by_arm.get(TWIN)
        found["targets"][target.name] = {
            "calibration": closer.calibration(list(by_arm.values())),
            "map": closer.map(ours) if whole and ours is not None and ours.stages else None,
            "disagreement": closer.disagreement(ours, twin) if whole and ours and twin and method != TWIN else None,
            "words": closer.words(ours) if ours is not None else None,
        }
        if found["general"] is None and ours is not None and material.corpus.general:
            found["general"] = closer.general(ours)
    engine.clear()
    return found


class _Closer:
    """A closer look at one target."""

    def __init__(self, recipe: Recipe, material: Material, engine: Engine, target: Population, passes: Passes) -> None:
        self._recipe = recipe
        self._material = material
        self._engine = engine
        self._target = target
        self._passes = passes
        self._test = material.corpus.tests[target.name]

    def _gold(self) -> np.ndarray | None:
        gold = reveal_gold(self._test, self._material.corpus.labels)
        return None if gold is None else gold.items

    def calibration(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Return confidence and accuracy in ten bins, by model."""
        gold = self._gold()
        if gold is None or not (gold >= 0).any():
            return {}
        known = gold >= 0
        found = {o.arm: o.predictions["target"][known] for o in outcomes if "target" in o.predictions}
        return {arm: calibration_bins(chances, gold[known]) for arm, chances in found.items()}

    def map(self, outcome: Outcome) -> dict[str, Any]:
        """Return a sample of source and target rows in two dimensions, on the base and on the adapted model."""
        source = self._sample(self._material.corpus.sources[0], "map of the source")
        target = self._sample(self._target, "map of the target")
        before = np.concatenate([self._engine.pooled(rows) for rows in (source, target)])  # (N, H)
        seen = [self._seen(outcome.stages[-1], rows) for rows in (source, target)]
        after = np.concatenate([rows for _, rows in seen])
        flat_before, explained_before = project(before)
        flat_after, explained_after = project(after)
        chances = [found for found, _ in seen if found is not None]
        predicted = np.concatenate(chances).argmax(1).tolist() if chances else None
        return {
            "source": [self._material.corpus.sources[0].name, len(source.texts)],
            "target": [self._target.name, len(target.texts)],
            "before": np.round(flat_before, 3).tolist(),
            "after": np.round(align(flat_after, flat_before), 3).tolist(),
            "explained": [round(explained_before, 3), round(explained_after, 3)],
            "predicted": predicted,
            "labels": list(self._material.corpus.labels.names),
        }

    def _seen(self, trained: Trained, rows: Rows) -> tuple[np.ndarray | None, np.ndarray]:
        """Return a model's probabilities (N, C), if it has a head, and pooled rows (N, H): one pass for all targets."""
        engine, dtype, where = self._engine, self._recipe.train.dtype, (trained.key, rows.fingerprint)
        if where not in self._passes:
            found, head = None, engine.attach(trained)
            if head is None:
                pooled = pooled_rows(engine.host, rows, engine.pooling, dtype, engine.listener)
            else:
                how = {"dtype": dtype, "listener": engine.listener}
                found, pooled = predicted_and_pooled(engine.host, head, rows, engine.pooling, **how)
            self._passes[where] = (found, pooled)
        return self._passes[where]

    def disagreement(self, ours: Outcome, twin: Outcome) -> dict[str, Any] | None:
        """Return how often the adapted model and its twin differ, and the rows where both are surest."""
        if "target" not in ours.predictions or "target" not in twin.predictions:
            return None
        mine, other = ours.predictions["target"], twin.predictions["target"]  # (N, C)
        gold, names = self._gold(), self._material.corpus.labels.names
        differ = np.flatnonzero(mine.argmax(1) != other.argmax(1))
        known = differ if gold is None else differ[gold[differ] >= 0]
        surest = differ[np.argsort(-(mine.max(1) + other.max(1))[differ], kind="stable")][:QUOTED]
        return {
            "rows": len(mine),
            "differ": len(differ),
            "ours_right": None if gold is None else int((mine.argmax(1) == gold)[known].sum()),
            "twin_right": None if gold is None else int((other.argmax(1) == gold)[known].sum()),
            "examples": [
                {
                    "line": self._test.lines[row],
                    "text": _quoted(self._test, int(row)),
                    "ours": [names[mine[row].argmax()], round(float(mine[row].max()), 3)],
                    "twin": [names[other[row].argmax()], round(float(other[row].max()), 3)],
                    "truth": None if gold is None or gold[row] < 0 else names[gold[row]],
                }
                for row in surest
            ],
        }

    def words(self, outcome: Outcome) -> dict[str, Any] | None:
        """Return how the target's text is read before and after the fusion, and the words that changed most."""
        stage = fused(outcome)
        if stage is None or self._engine.host.placement.kind == "seq2seq":  # which learns spans, not words
            return None
        before, after = self._read(self._target, stage)
        change = after.log_probabilities - before.log_probabilities
        return {
            "stage": stage.stage.name,
            "guessed": len(before.tokens),
            "loss": [round(before.loss, 4), round(after.loss, 4)],
            **changed_words(before.tokens, before.followers, change, self._material.tokenizer),
        }

    def general(self, outcome: Outcome) -> dict[str, Any] | None:
        """Return how general text is read before and after the fusion: what was forgotten."""
        stage = fused(outcome)
        if stage is None or self._engine.host.placement.kind == "seq2seq":  # which learns spans, not words
            return None
        before, after = self._read(self._material.corpus.general[0], stage)
        return {"guessed": len(before.tokens), "loss": [round(before.loss, 4), round(after.loss, 4)]}

    def _read(self, population: Population, stage: Trained) -> tuple[Reading, Reading]:
        material, engine = self._material, self._engine
        pieces = material.pieces(material.plain_tokens(population))
        chosen = np.random.default_rng(seed_for(0, "read", population.name)).permutation(len(pieces))[:PIECES]
        sample = pieces.take(np.sort(chosen))
        settings = {"rate": self._recipe.train.fuse.mask_rate, "dtype": self._recipe.train.dtype}
        engine.attach(stage)
        with engine.host.disabled():
            before = read_text(engine.host, sample, **settings, listener=engine.listener)
        return before, read_text(engine.host, sample, **settings, listener=engine.listener)

    def _sample(self, population: Population, role: str) -> Rows:
        count = len(population.texts)
        chosen = np.sort(np.random.default_rng(seed_for(0, role)).permutation(count)[:MAPPED])
        pairs = population.text_pairs
        return make_rows(
            [population.texts[row] for row in chosen],
            None if pairs is None else [pairs[row] for row in chosen],
            self._material.tokenizer,
            self._recipe.task.max_length,
            template=self._material.template,
        )


def fused(outcome: Outcome) -> Trained | None:
    """Return the last stage of an outcome that read text as a language model, if it has one."""
    reads = [
        t for t in outcome.stages if any(r.how == "masked" for loss in t.stage.losses.values() for r in loss.reads)
    ]
    return reads[-1] if reads else None


def _quoted(population: Population, row: int) -> str:
    text = population.texts[row]
    if population.text_pairs is not None:
        text = f"{text}\n{population.text_pairs[row]}"
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1].rstrip() + "…"
