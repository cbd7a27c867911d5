"""Texts of a corpus as streams of tokens, made once and shared by all methods and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from guidebook.data.batches import mixture_ratios
from guidebook.data.corpus import Corpus, distinct_rows, labels_of
from guidebook.data.domains import Population
from guidebook.data.streams import Stream, concatenate, document_ids, stack_streams
from guidebook.data.template import framed
from guidebook.data.tokens import (
    Specials,
    Tokens,
    chunk,
    encode,
    ended,
    pieces_of,
    read_specials,
    require_mask,
    tokenise,
)
from guidebook.data.words import word_rows
from guidebook.training.prediction import Rows, make_rows, make_word_rows


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
        template: str | None = None,
    ) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.length = length
        self.task_length = task_length
        self.causal = causal
        self.words = words
        self.template = template
        self._cache = cache
        self._texts: dict[str, Stream] = {}
        self._mixes: dict[tuple[Any, ...], Stream] = {}
        self._plain: dict[str, Tokens] = {}
        self._rows: dict[str, Rows] = {}

    @cached_property
    def specials(self) -> Specials:
        """The tokenizer's special tokens."""
        return read_specials(self.tokenizer)

    @cached_property
    def task_specials(self) -> Specials:
        """The special tokens around a row of the task, with the words of its template."""
        return framed(self.specials, self.tokenizer, self.template)

    @property
    def end(self) -> int | None:
        """The token that ends a text: the tokenizer's own, else the last of those that it puts behind every text."""
        end = self.tokenizer.eos_token_id
        return int(end) if end is not None else next(reversed(self.specials.after), None)

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
            parts.append(encode(tokens, second, self.task_length, self.task_specials))
        owner = np.concatenate([np.full(len(part), index) for index, part in enumerate(parts)])
        return Stream(
            name,
            concatenate(parts),
            owner,
            tuple(p.name for p in populations),
            np.full(len(parts), 1 / len(parts)),
            labels,
            documents=np.concatenate([_documents(p, np.arange(len(p.texts))) for p in populations]),
        )

    def _tagged(self, name: str, populations: Sequence[Population], tags: np.ndarray) -> Stream:
        """Return windows of words with the tags (W,) at each word's first token; no tags: without labels."""
        parts = [word_rows(p.texts, self.tokenizer, self.task_length, self.specials) for p in populations]
        owner = np.concatenate([np.full(len(part.tokens), index) for index, part in enumerate(parts)])
        labels = None
        if len(tags):
            ends = np.cumsum([len(part.places) for part in parts])[:-1]
            labels = np.concatenate([p.per_token(t) for p, t in zip(parts, np.split(tags, ends), strict=True)])
        return Stream(
            name,
            concatenate([part.tokens for part in parts]),
            owner,
            tuple(p.name for p in populations),
            np.full(len(parts), 1 / len(parts)),
            labels,
            per_token=True,
            documents=np.concatenate([_documents(p, part.owner) for p, part in zip(populations, parts, strict=True)]),
        )

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
            pieces = self.pieces(tokens)
            of = pieces_of(tokens, self.length, self._frame)
            documents = _documents(population, rows[of] % len(population.texts))  # both texts of a pair are one row
            owner = np.zeros(len(pieces), np.int64)
            self._texts[key] = Stream(
                population.name, pieces, owner, (population.name,), np.ones(1), documents=documents
            )
        return self._texts[key]

    def pieces(self, tokens: Tokens) -> Tokens:
        """Return documents cut into pieces as the base reads them: a causal one, with nothing behind a piece."""
        return chunk(tokens, self.length, self._frame)

    @property
    def _frame(self) -> Specials:
        return self.specials.opening if self.causal else self.specials

    def rows(self, population: Population) -> Rows:
        """Return a population's texts ready to be predicted."""
        if population.fingerprint not in self._rows:
            made = (
                make_word_rows(population.texts, self.tokenizer, self.task_length)
                if self.words
                else make_rows(
                    population.texts,
                    population.text_pairs,
                    self.tokenizer,
                    self.task_length,
                    cache=self._cache,
                    template=self.template,
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


def _documents(population: Population, rows: np.ndarray) -> np.ndarray:
    return document_ids(population.fingerprint, rows)
