"""What a method sees of a run: streams to train on, and where to put predictions that no stage makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from guidebook.data.brought import labelled_by_hand
from guidebook.data.corpus import documents, labels_of
from guidebook.data.domains import Population, select_rows
from guidebook.data.gold import reveal_gold
from guidebook.data.probabilities import read_probabilities
from guidebook.data.streams import Stream, seed_for
from guidebook.data.tags import flat
from guidebook.errors import InputError
from guidebook.training.choices import question_for
from guidebook.training.material import Material
from guidebook.training.prediction import Rows

__all__ = ["Material", "Predictor", "Run"]


class Predictor(Protocol):
    """Runs a trained or untouched model over rows."""

    def pooled(self, rows: Rows) -> np.ndarray:
        """Return pooled rows (N, H) of the untouched base."""

    def latest(self, rows: Rows) -> np.ndarray:
        """Return probabilities (N, C) of the model that the method's last stage made."""

    def model(self) -> Callable[[Rows], np.ndarray]:
        """Return what `latest` is now, for rows that are predicted when further stages were trained."""

    def probe(self, tensors: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """Return probabilities (N, C) of a head on the untouched base."""

    def answers(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the log-probability (N, C) of every answer after every prompt, by the untouched base."""

    def note(self, text: str) -> None:
        """Keep one thing worth a line beside the results, and tell whoever watches."""


class Run:
    """One method for one target. Without a predictor it is only planned."""

    def __init__(self, material: Material, target: Population, seed: int, predictor: Predictor | None) -> None:
        self._material = material
        self._corpus = material.corpus
        self._predictor = predictor
        self._seed = seed
        self._target = target
        self._said_dev = False
        self.head: Mapping[str, Any] | None = None
        """A head on the untouched base that a method submitted."""
        self._submitted: list[Callable[[dict[str, np.ndarray]], None]] = []

    @property
    def has_task(self) -> bool:
        """True if there is a task to learn from labels; without one, modelling text is all."""
        return bool(self._corpus.sources)

    @property
    def source(self) -> Stream:
        """Labelled source rows.

        Raises:
            InputError: there are none.
        """
        if not self.has_task:
            raise InputError(
                "This method learns from labels, and this task has none. Choose a method that models text: "
                "domain_fusion, target_mlm or general_mlm."
            )
        return self._material.source

    def text(
        self,
        scope: Sequence[str] = ("source", "targets"),
        mixture: str | Mapping[str, float] = "proportional",
        general: float = 0.0,
    ) -> Stream:
        """Return raw text to model: of "source", this "target", all "targets", "general".

        Args:
            scope: Whose text.
            mixture: Token shares of the domains.
            general: Share of the tokens that is general text, beside what `scope` names.

        Raises:
            InputError: the recipe gives no such text.
        """
        corpus = self._corpus
        groups = {
            "source": (*corpus.sources, *corpus.unlabelled),
            "target": (self._target,),
            "targets": corpus.targets,
            "general": corpus.general,
        }
        chosen = [population for name in scope for population in groups[name]]
        if not chosen or (general and not corpus.general):
            raise InputError("This method reads general text. Name some: `general: wikipedia.txt`.")
        return self._material.text(chosen, mixture, *((corpus.general, general) if general else ()))

    def pool(self, which: Literal["source", "target"]) -> Stream:
        """Return unlabelled texts as rows of the task: of this target, or of the source.

        The source's are its unlabelled texts where there are any, else its labelled texts without labels: losses that
        compare domains compare pool with pool, since labelled rows and pools of a benchmark may differ in form.
        """
        source = self._corpus.unlabelled or self._corpus.sources
        return self._material.unlabelled(f"pool of {which}", source if which == "source" else (self._target,))

    @property
    def planned(self) -> bool:
        """True while the run is only planned: nothing is trained, and predictions are placeholders."""
        return self._predictor is None

    def note(self, text: str) -> None:
        """Say one thing worth a line, such as an assumption that does not hold here; it is kept with the results."""
        if self._predictor is not None:
            self._predictor.note(text)

    @property
    def corrupts(self) -> bool:
        """True if a "masked" view is the text with tokens masked: not on decoders, nor where spans are cut out."""
        specials = self._material.specials
        return not self._material.causal and specials.mask is not None and not specials.sentinels

    @property
    def labels_words(self) -> bool:
        """True if the task labels words, not whole texts."""
        return self._material.words

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of all targets, in the recipe's order."""
        return tuple(population.name for population in self._corpus.targets)

    def text_of(self, target: str) -> Stream:
        """Return raw text to model of any one target, by its name."""
        return self._material.text([p for p in self._corpus.targets if p.name == target], "proportional")

    def texts_of(self, name: str) -> Sequence[str]:
        """Return the raw texts of any one source or target, by its name."""
        return documents(next(p for p in (*self._corpus.sources, *self._corpus.targets) if p.name == name))

    @property
    def sources(self) -> dict[str, Stream]:
        """Labelled rows of every source by itself, by its name."""
        parts = {population.name: (population,) for population in self._corpus.sources}
        return {name: self._material.labelled(f"source {name}", part, labels_of(part)) for name, part in parts.items()}

    def labelled_by_hand(self, path: str, label: str | None) -> Stream:
        """Return rows of this target with labels that the user brings in a file of their own."""
        part = (labelled_by_hand(path, label, self._target, self._test, self._corpus.labels.names),)
        return self._material.labelled("labelled target", part, labels_of(part))

    def probable(self, path: str) -> np.ndarray:
        """Return probabilities (N, C) that the user brings for the rows of this target's pool."""
        place = path.replace("{target}", self._target.name)
        return read_probabilities(place, self._corpus.labels.names, len(self._target.texts))

    @property
    def labels(self) -> Sequence[str]:
        """Names of the task's classes, in the order of their ids."""
        return self._corpus.labels.names

    @property
    def classes(self) -> int:
        """Number of classes of the task."""
        return len(self._corpus.labels.names)

    def predicted(self) -> np.ndarray:
        """Return probabilities (N, C) of the last stage's model on the target's pool, in its order; of words (W, C).

        In a run that is only planned, every row is sure of a class, the classes in turn.
        """
        rows = self._material.rows(self._target)
        if self._predictor is None:
            return np.eye(self.classes)[np.arange(rows.items) % self.classes]
        return self._predictor.latest(rows)

    def predicted_source(self) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (N, C) of the last stage's model on source rows and their class ids (N,).

        On the rows held out of training where there are any, else on those trained on, which the run says.
        """
        populations = self._corpus.dev or self._corpus.sources
        if not self._corpus.dev and not self._said_dev:
            self._said_dev = True
            self.note(
                "no source row is held out (task.dev is 0), so probabilities are calibrated on rows that were trained "
                "on: they are too sure of themselves. Set task.dev=0.2."
            )
        labels = labels_of(populations)
        if self._predictor is None:
            return np.eye(self.classes)[labels], labels
        parts = [self._predictor.latest(self._material.rows(population)) for population in populations]
        return np.concatenate(parts), labels

    def pseudo_labelled(self, name: str, rows: np.ndarray, labels: np.ndarray) -> Stream:
        """Return rows (n,) of the target's pool as a stream with the class ids (n,) that a method gave them.

        Where words are labelled, `rows` are ids of words, and the stream holds all rows with these words labelled.
        """
        if self._material.words:
            tags = np.full(self._material.rows(self._target).items, -1, dtype=np.int64)
            tags[rows] = labels
            return self._material.labelled(name, (self._target,), tags)
        pool = self.pool("target")
        return replace(pool.take(rows), name=name, labels=labels.astype(np.int64))

    def texts(self, which: Literal["source", "target"]) -> list[str]:
        """Return the raw texts of the source's or this target's pool."""
        source = self._corpus.unlabelled or self._corpus.sources
        populations = source if which == "source" else (self._target,)
        return [text for population in populations for text in documents(population)]

    def labelled_texts(self) -> tuple[list[str], np.ndarray]:
        """Return the labelled source texts (pairs joined) and their class ids (N,)."""
        rows = [self._material.rows(population) for population in self._corpus.sources]
        return [text for part in rows for text in part.joined()], labels_of(self._corpus.sources)

    def held_out_texts(self) -> list[str]:
        """Return the texts (pairs joined) of the rows that `predicted_source` speaks of."""
        populations = self._corpus.dev or self._corpus.sources
        return [text for population in populations for text in self._material.rows(population).joined()]

    def pool_texts(self) -> list[str]:
        """Return the texts (pairs joined) of the rows that `predicted` speaks of."""
        return self._material.rows(self._target).joined()

    @property
    def causal(self) -> bool:
        """True if the base is a decoder, which predicts the next token."""
        return self._material.causal

    def answers(self, asked: str, completed: str) -> Callable[[Sequence[str]], np.ndarray]:
        """Return what gives the log-probability (N, C) of every label's name as the answer to a question on a text.

        Args:
            asked: The question, with {text} and perhaps {labels}, for a base with a chat template.
            completed: What the answer completes, for a base without one.
        """
        predictor = self._predictor
        assert predictor is not None
        tokenizer = self._material.tokenizer
        question = question_for(tokenizer, asked, completed, self.labels, self._material.task_length)
        return lambda texts: predictor.answers(question.prompts(texts, tokenizer), question.answers)

    def labelled_rows(self) -> tuple[list[Rows], np.ndarray]:
        """Return the labelled source rows ready to be predicted and their class ids (N,)."""
        return [self._material.rows(population) for population in self._corpus.sources], labels_of(self._corpus.sources)

    def pooled(self, rows: Rows | Sequence[Rows]) -> np.ndarray:
        """Return pooled rows (N, H) of the untouched base."""
        assert self._predictor is not None
        parts = [rows] if isinstance(rows, Rows) else rows
        return np.concatenate([self._predictor.pooled(part) for part in parts])

    @property
    def _test(self) -> Population:
        return self._corpus.tests[self._target.name]

    @property
    def submitted(self) -> bool:
        """True if the method said itself how the evaluation rows are predicted."""
        return bool(self._submitted)

    def predict(self) -> dict[str, np.ndarray]:
        """Return the probabilities of what was submitted: "target" (rows of the final evaluation), "source"."""
        found: dict[str, np.ndarray] = {}
        for add in self._submitted:
            add(found)
        return found

    def submit(self, predict: Callable[[Rows], np.ndarray]) -> None:
        """Give the function from rows to probabilities (N, C) that predicts the evaluation rows, after all training."""

        def add(found: dict[str, np.ndarray]) -> None:
            found["target"] = predict(self._material.rows(self._test))
            if self._corpus.dev:
                parts = [predict(self._material.rows(population)) for population in self._corpus.dev]
                found["source"] = np.concatenate(parts)

        self._submitted.append(add)

    def submit_head(self, tensors: Mapping[str, Any]) -> None:
        """Let a head on the untouched base predict the evaluation rows, and keep the head."""
        predictor = self._predictor
        assert predictor is not None
        self.head = tensors
        self.submit(lambda rows: predictor.probe(tensors, rows))

    def submit_rows(self, rows: np.ndarray) -> None:
        """Let the model of the last stage predict only these evaluation rows (n,) (cross-fitting)."""
        if self._predictor is None:
            return
        model = self._predictor.model()

        def add(found: dict[str, np.ndarray]) -> None:
            probabilities = model(self._material.rows(self._test))
            whole = found.setdefault("target", np.full_like(probabilities, np.nan))
            whole[rows] = probabilities[rows]

        self._submitted.append(add)

    def oracle_fold(self, fold: int, folds: int) -> tuple[Stream, np.ndarray]:
        """Return the target's labelled rows outside a fold, and the ids of the rows inside it. Reads target labels.

        Raises:
            InputError: the target has no labels.
        """
        population = self._test
        gold = reveal_gold(population, self._corpus.labels, "oracle")
        if gold is None:
            raise InputError(f"{population.path}: target_oracle reads the target's labels, and there are none.")
        labels = gold.rows
        part = np.random.default_rng(seed_for(self._seed, "folds")).permutation(len(labels)) % folds
        words = labels.dtype == object
        outside = np.flatnonzero((part != fold) & gold.labelled)
        rest = select_rows(population, outside)
        stream = self._material.labelled(f"target without fold {fold}", (rest,), flat(labels[outside]))
        inside = np.repeat(part == fold, [len(row) for row in labels]) if words else part == fold
        return stream, np.flatnonzero(inside)
