"""A model of word counts beside the trained models: what they guess without labels is held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guidebook.data.corpus import labels_of
from guidebook.data.domains import Population, select_rows
from guidebook.evaluation.seen import Floats, Ints
from guidebook.methods.tfidf import word_model
from guidebook.training.run import Material

MOST_ROWS = 20_000
"""Labelled source rows that it learns from at most: a few seconds."""


class WordView:
    """Logistic regression on tf-idf of the source's labelled rows; it shares nothing with the base.

    Args:
        material: Texts of the run; some source rows are held out.
    """

    def __init__(self, material: Material) -> None:
        self._material = material
        corpus = material.corpus
        self._classes = len(corpus.labels.names)
        texts, labels = self._texts(corpus.sources), labels_of(corpus.sources)
        rows = np.flatnonzero(labels >= 0)
        rows = np.random.default_rng(0).permutation(rows)[:MOST_ROWS]
        self._model = word_model().fit([texts[row] for row in rows], labels[rows])
        self.held_out = self._probabilities(self._texts(corpus.dev))
        """Probabilities (S, C) of the held-out source rows."""

    def of(self, target: Population, rows: Ints) -> Floats:
        """Return probabilities (R, C) of some rows (R,) of a target's pool."""
        return self._probabilities(self._texts([select_rows(target, rows)]))

    def _texts(self, populations: Sequence[Population]) -> list[str]:
        return [text for population in populations for text in self._material.rows(population).joined()]

    def _probabilities(self, texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), self._classes))
        found[:, self._model.classes_] = self._model.predict_proba(texts)
        return found
