"""Everything a run reads, in one place: labelled sources, targets without labels, rows of the final evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import xxhash

from guidebook.data.domains import Domain, LabelSet, Population, load_sources, load_target, load_text, split_rows
from guidebook.data.overlap import Overlap, overlaps
from guidebook.data.tags import TagSet, flat
from guidebook.data.texts import Texts, take
from guidebook.errors import InputError


@dataclass(frozen=True)
class Corpus:
    """The populations of a run; the targets' labels are inside `hidden` of `tests` and nowhere else."""

    sources: tuple[Population, ...]
    """Labelled rows to train on."""
    dev: tuple[Population, ...]
    """Labelled source rows that are not trained on: the source accuracy."""
    targets: tuple[Population, ...]
    """Texts to adapt to."""
    tests: Mapping[str, Population]
    """Target name -> the rows of its final evaluation; the target itself where it has no rows apart (transductive)."""
    unlabelled: tuple[Population, ...]
    general: tuple[Population, ...]
    labels: LabelSet | TagSet

    @cached_property
    def overlaps(self) -> dict[str, Overlap]:
        """Target name -> how many rows of its final evaluation also stand in text that is trained on."""
        read = {
            "targets": self.targets,
            "source": self.sources,
            "unlabelled": self.unlabelled,
            "general": self.general,
        }
        found = overlaps(list(self.tests.values()), read)
        return dict(zip(self.tests, found, strict=True))

    @property
    def everything(self) -> tuple[Population, ...]:
        """All populations that are trained on, each once."""
        return (*self.sources, *self.targets, *self.unlabelled, *self.general)


def read_corpus(
    sources: Sequence[Domain],
    targets: Sequence[Domain],
    *,
    unlabelled: Sequence[Domain] = (),
    general: Sequence[Domain] = (),
    labels: Sequence[str] | None = None,
    dev: float = 0.2,
    seed: int = 0,
    words: bool = False,
) -> Corpus:
    """Read every domain; hold out a stratified share `dev` of the sources that bring no test rows of their own.

    With `words`, rows are words and their labels are tags, one per word.

    Raises:
        InputError: a file, a column or a label is wrong.
    """
    labelled, label_set = load_sources(list(sources), labels, words=words)
    train, held_out = [], []
    for domain, population in zip(sources, labelled, strict=True):
        if domain.test is not None:
            rows, _ = load_sources([domain.test], label_set.names, words=words)
            train.append(population)
            held_out.append(rows[0])
        elif dev > 0:
            kept, out = split_rows(population, dev, seed)
            train.append(kept)
            held_out += [out] if len(out.texts) else []
        else:
            train.append(population)
    loaded = tuple(load_target(domain, words=words) for domain in targets)
    pairs = {population.text_pairs is not None for population in (*train, *loaded)}
    if len(pairs) > 1:
        raise InputError("Some of the source and target domains have text pairs and some have single texts.")
    return Corpus(
        sources=tuple(train),
        dev=tuple(held_out),
        targets=loaded,
        tests={
            d.name: load_target(d.test, words=words, labels_needed=True) if d.test is not None else p
            for d, p in zip(targets, loaded, strict=True)
        },
        unlabelled=tuple(load_text(domain, "unlabelled", words=words) for domain in unlabelled),
        general=tuple(load_text(domain, "general") for domain in general),
        labels=label_set,
    )


def documents(population: Population) -> Sequence[str]:
    """Return the distinct texts of a population in order; a pair is two documents."""
    return take(_every_text(population), distinct_rows(population))


def distinct_rows(population: Population) -> np.ndarray:
    """Return which of a population's texts (a pair is two, all second ones last) are the first of their kind.

    Texts on disk are told apart by 64-bit hashes: of ten million, one is lost by mistake once in some 300,000 corpora.
    """
    texts = _every_text(population)
    if isinstance(texts, list):
        first = dict(zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True))
        return np.sort(np.fromiter(first.values(), np.int64, count=len(first)))
    keys = np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), np.uint64, count=len(texts))
    return np.sort(np.unique(keys, return_index=True)[1])


def _every_text(population: Population) -> Sequence[str]:
    texts, pairs = population.texts, population.text_pairs
    if isinstance(texts, Texts) or isinstance(pairs, Texts):
        return texts if pairs is None else Texts.of(chain(texts, pairs))
    return [*texts] if pairs is None else [*texts, *pairs]


def labels_of(populations: Sequence[Population]) -> np.ndarray:
    """Return the class ids (N,) of labelled populations, one after the other; of words (W,) where words are labelled.

    Raises:
        InputError: a population has no labels.
    """
    found = []
    for population in populations:
        if population.labels is None:
            raise InputError(f"{population.path}: no labels. A source needs a label column.")
        found.append(flat(population.labels))
    return np.concatenate(found)
