"""What a guidebook's adapters have cost the base in old knowledge, measured with each of them active."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.adapters.host import Host
from guidebook.artifact import Guidebook
from guidebook.data.domains import Domain, Population, load_source, load_text
from guidebook.data.read import read_table
from guidebook.errors import InputError
from guidebook.evaluation.forgetting import forgetting
from guidebook.evaluation.similarity import probe_retention
from guidebook.training.prediction import make_rows, pooled_rows

MOST_PROBED = 1_000


def retention(book: Guidebook, general: Domain, *, rows: int = 256, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return what each variant, and each adapter as it was before the task, has changed on general text.

    Args:
        book: One guidebook.
        general: Text that is neither source nor target. If it has labels of another task, linear probes on the base's
            rows and on the adapted ones say what was forgotten of it.
        rows: Pieces of text that the language-modelling losses are taken on.
        seed: Draws pieces, masks and folds.

    Returns:
        name -> rows, base_loss, adapted_loss, increase (with its interval), divergence, alignment (one per layer) and,
        with labels, probe. Names are the variants', and "ADAPTER (before the task)".

    Raises:
        InputError: no adapters are kept, or the text gives nothing to predict.
    """
    population, length = _read(general), int(book.meta["recipe"]["train"]["max_length"])
    found = {}
    for name, stack in stacks(book).items():
        with _active(book.host, stack):
            changed = forgetting(book.host, population.texts, length=length, rows=rows, seed=seed)
            found[name] = dataclasses.asdict(changed)
            if population.labels is not None:
                found[name]["probe"] = _probe(book, population, seed)
    return found


def stacks(book: Guidebook) -> dict[str, list[Path]]:
    """Return the adapters of each variant, bottom first, and by itself each one that a task was trained on top of.

    Raises:
        InputError: the guidebook keeps no adapters.
    """
    found, used = {}, set()
    for name, facts in book.meta["variants"].items():
        place = book.path / facts["folder"] / "adapters"
        if facts["stack"]:
            found[name] = [place / adapter for adapter in facts["stack"]]
            used.update(found[name])
    for place in sorted((book.path / "adapters").glob("*")):
        if place.is_dir() and place not in used:
            found[f"{place.name} (before the task)"] = [place]
    if not found:
        raise InputError(f"{book.path} keeps no adapters, so nothing can have been forgotten.")
    return found


@contextmanager
def _active(host: Host, stack: list[Path]) -> Iterator[None]:
    """Put the adapters of some folders on the base while the context lasts, whatever was active before."""
    before, others = host.stack, [name for name in host.names if not name.startswith("kept")]
    names = [f"kept{index}" for index in range(len(stack))]
    try:
        for name, place in zip(names, stack, strict=True):
            host.load_adapter(name, place)
        host.activate(names, train=())
        yield
    finally:
        host.activate([name for name in before if name in others], train=())
        for name in names:
            if name in host.names:
                host.remove(name)


def _read(general: Domain) -> Population:
    labels = general.labels
    if labels is None and general.path is not None:
        labels = read_table(Path(general.path), general.columns, general.where).labels
    return load_text(general, "general") if labels is None else load_source(general)[0]


def _probe(book: Guidebook, population: Population, seed: int) -> dict[str, Any]:
    task = book.meta["task"]
    pooling = task["pooling"] if task["pooling"] in ("mean", "cls", "last") else book.host.placement.pooling
    chosen = np.sort(np.random.default_rng(seed).permutation(len(population.texts))[:MOST_PROBED])
    texts = [population.texts[row] for row in chosen]
    pairs = None if population.text_pairs is None else [population.text_pairs[row] for row in chosen]
    rows = make_rows(texts, pairs, book.host.tokenizer, task["max_length"], template=task.get("template"))
    adapted = pooled_rows(book.host, rows, pooling)
    with book.host.disabled():
        base = pooled_rows(book.host, rows, pooling)
    assert population.labels is not None
    found = probe_retention(base, adapted, population.labels[chosen], seed)
    return {name: dataclasses.asdict(interval) for name, interval in found.items()}
