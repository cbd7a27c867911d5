"""What a method sees of a run: streams to train on, and where to put predictions that no stage makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from guidebook.data.batches import mixture_ratios
from guidebook.data.corpus import Corpus, distinct_rows, documents, labels_of
from guidebook.data.domains import Population, select_rows
from guidebook.data.streams import Stream, concatenate, seed_for, stack_streams
from guidebook.data.tags import flat
from guidebook.data.tokens import Specials, Tokens, chunk, encode, ended, read_specials, require_mask, tokenise
from guidebook.data.words import word_rows
from guidebook.errors import InputError
from guidebook.training.prediction import Rows, make_rows, make_word_rows


class Predictor(Protocol):
    """Runs a trained or untouched model over rows."""

    def pooled(self, rows: Rows) -> np.ndarray:
        """Return pooled rows (N, H) of the untouched base."""

    def latest(self, rows: Rows) -> np.ndarray:
        """Return probabilities (N, C) of the model that the method's last stage made."""

    def probe(self, tensors: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """Return probabilities (N, C) of a head on the untouched base."""


class Material:
    """Texts of a corpus as streams of tokens, each made once and shared by all methods and targets."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int,
        task_length: int,
        causal: bool,
        words: bool = False,
        cache: Path | None = None,
    ) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.length = length
        self.task_length = task_length
        self.causal = causal
        self.words = words
        self._cache = cache
        self._texts: dict[str, Stream] = {}
        self._mixes: dict[tuple[Any, ...], Stream] = {}
        self._plain: dict[str, Tokens] = {}
        self._rows: dict[str, Rows] = {}

    @cached_property
    def specials(self) -> Specials:
        """The tokenizer's special tokens."""
        return read_specials(self.tokenizer)

    @property
    def end(self) -> int | None:
        """The token that ends a text, unless the tokenizer puts one there by itself."""
        end = self.tokenizer.eos_token_id
        return None if end is None or end in self.specials.after else int(end)

    @cached_property
    def source(self) -> Stream:
        """Labelled source rows."""
        return self.labelled("source", self.corpus.sources, labels_of(self.corpus.sources))

    def labelled(self, name: str, populations: Sequence[Population], labels: np.ndarray) -> Stream:
        """Return rows of whole populations with labels as a stream, truncated to the task's length."""
        if self.words:
            return self._tagged(name, populations, labels)
        parts = []
        for population in populations:
            tokens, second = self.plain_tokens(population), self.plain_pairs(population)
            parts.append(encode(tokens, second, self.task_length, self.specials))
        owner = np.concatenate([np.full(len(part), index) for index, part in enumerate(parts)])
        tokens = concatenate(parts)
        return Stream(
            name, tokens, owner, tuple(p.name for p in populations), np.full(len(parts), 1 / len(parts)), labels
        )

    def _tagged(self, name: str, populations: Sequence[Population], tags: np.ndarray) -> Stream:
        """Return windows of words with the tags (W,) at each word's first token; no tags: without labels."""
        parts = [word_rows(p.texts, self.tokenizer, self.task_length, self.specials) for p in populations]
        owner = np.concatenate([np.full(len(part.tokens), index) for index, part in enumerate(parts)])
        labels = None
        if len(tags):
            ends = np.cumsum([len(part.places) for part in parts])[:-1]
            labels = np.concatenate([p.per_token(t) for p, t in zip(parts, np.split(tags, ends), strict=True)])
        tokens, names = concatenate([part.tokens for part in parts]), tuple(p.name for p in populations)
        return Stream(name, tokens, owner, names, np.full(len(parts), 1 / len(parts)), labels, per_token=True)

    def text(
        self,
        populations: Sequence[Population],
        mixture: str | Mapping[str, float],
        general: Sequence[Population] = (),
        share: float = 0.0,
    ) -> Stream:
        """Return the documents of populations in pieces, mixed by token ratio; general text gets a share of its own."""
        if not self.causal and not self.specials.sentinels:
            require_mask(self.specials)
        parts = [self._text(population) for population in (*populations, *general)]
        counts = np.array([int(part.tokens.lengths.sum()) for part in parts])
        names = [population.name for population in populations]
        ratios = mixture_ratios(counts[: len(names)], mixture, names)
        if general:
            beside = mixture_ratios(counts[len(names) :], "proportional")
            ratios = np.concatenate([(1 - share) * ratios, share * beside])
        key = (*names, *(part.tokens.fingerprint for part in parts), *ratios)
        if key not in self._mixes:
            self._mixes[key] = stack_streams("text", parts, ratios)
        return self._mixes[key]

    def unlabelled(self, name: str, populations: Sequence[Population]) -> Stream:
        """Return the texts of populations as rows of the task, truncated to its length, without labels."""
        rows = self.labelled(name, populations, np.zeros(0, np.int64))
        return replace(rows, labels=None)

    def _text(self, population: Population) -> Stream:
        key = f"{population.role} {population.name}"
        if key not in self._texts:
            tokens, second = self.plain_tokens(population), self.plain_pairs(population)
            tokens = tokens if second is None else concatenate([tokens, second])
            rows = distinct_rows(population)
            tokens = tokens if len(rows) == len(tokens) else tokens.take(rows)
            if self.causal and self.end is not None:
                tokens = ended(tokens, self.end)
            pieces = chunk(tokens, self.length, self.specials)
            owner = np.zeros(len(pieces), np.int64)
            self._texts[key] = Stream(population.name, pieces, owner, (population.name,), np.ones(1))
        return self._texts[key]

    def rows(self, population: Population) -> Rows:
        """Return a population's texts ready to be predicted."""
        if population.fingerprint not in self._rows:
            made = (
                make_word_rows(population.texts, self.tokenizer, self.task_length)
                if self.words
                else make_rows(
                    population.texts, population.text_pairs, self.tokenizer, self.task_length, cache=self._cache
                )
            )
            self._rows[population.fingerprint] = made
        return self._rows[population.fingerprint]

    def plain_tokens(self, population: Population) -> Tokens:
        """Return a population's texts as tokens, uncut."""
        return self._tokens(f"first {population.fingerprint}", population.texts)

    def plain_pairs(self, population: Population) -> Tokens | None:
        """Return a population's second texts as tokens, uncut, if it has any."""
        pairs = population.text_pairs
        return self._tokens(f"second {population.fingerprint}", pairs) if pairs is not None else None

    def _tokens(self, key: str, texts: Sequence[str]) -> Tokens:
        """Return texts as tokens, made once: even the hash by which stored ones are found takes a while for many."""
        if key not in self._plain:
            self._plain[key] = tokenise(texts, self.tokenizer, self._cache)
        return self._plain[key]


class Run:
    """One method for one target. Without a predictor it is only planned."""

    def __init__(self, material: Material, target: Population, seed: int, predictor: Predictor | None) -> None:
        self._material = material
        self._corpus = material.corpus
        self._predictor = predictor
        self._seed = seed
        self._target = target
        self.head: Mapping[str, Any] | None = None
        """A head on the untouched base that a method submitted."""
        self.predictions: dict[str, np.ndarray] = {}
        """Probabilities that a method submitted by itself: "target" (rows of the final evaluation), "source"."""

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

        On the rows held out of training where there are any, else on those trained on.
        """
        populations = self._corpus.dev or self._corpus.sources
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
        return Stream(
            name, pool.tokens.take(rows), pool.owner[rows], pool.domains, pool.ratios, labels.astype(np.int64)
        )

    def texts(self, which: Literal["source", "target"]) -> list[str]:
        """Return the raw texts of the source's or this target's pool."""
        source = self._corpus.unlabelled or self._corpus.sources
        populations = source if which == "source" else (self._target,)
        return [text for population in populations for text in documents(population)]

    def labelled_texts(self) -> tuple[list[str], np.ndarray]:
        """Return the labelled source texts (pairs joined) and their class ids (N,)."""
        rows = [self._material.rows(population) for population in self._corpus.sources]
        return [text for part in rows for text in part.joined()], labels_of(self._corpus.sources)

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

    def submit(self, predict: Callable[[Rows], np.ndarray]) -> None:
        """Predict the evaluation rows with a function from rows to probabilities (N, C)."""
        self.predictions["target"] = predict(self._material.rows(self._test))
        if self._corpus.dev:
            parts = [predict(self._material.rows(population)) for population in self._corpus.dev]
            self.predictions["source"] = np.concatenate(parts)

    def submit_head(self, tensors: Mapping[str, Any]) -> None:
        """Predict the evaluation rows with a head on the untouched base, and keep the head."""
        predictor = self._predictor
        assert predictor is not None
        self.head = tensors
        self.submit(lambda rows: predictor.probe(tensors, rows))

    def submit_rows(self, rows: np.ndarray) -> None:
        """Predict only these evaluation rows (n,) with the model of the last stage (cross-fitting)."""
        if self._predictor is None:
            return
        probabilities = self._predictor.latest(self._material.rows(self._test))
        whole = self.predictions.setdefault("target", np.full_like(probabilities, np.nan))
        whole[rows] = probabilities[rows]

    def oracle_fold(self, fold: int, folds: int) -> tuple[Stream, np.ndarray]:
        """Return the target's labelled rows outside a fold, and the ids of the rows inside it. Reads target labels.

        Raises:
            InputError: the target has no labels.
        """
        population = self._test
        if population.hidden is None:
            raise InputError(f"{population.path}: target_oracle reads the target's labels, and there are none.")
        labels = self._corpus.labels.encode(population.hidden.reveal("oracle"))
        part = np.random.default_rng(seed_for(self._seed, "folds")).permutation(len(labels)) % folds
        words = labels.dtype == object
        known = np.array([len(row) > 0 for row in labels]) if words else labels >= 0
        outside = np.flatnonzero((part != fold) & known)
        rest = select_rows(population, outside)
        stream = self._material.labelled(f"target without fold {fold}", (rest,), flat(labels[outside]))
        inside = np.repeat(part == fold, [len(row) for row in labels]) if words else part == fold
        return stream, np.flatnonzero(inside)
