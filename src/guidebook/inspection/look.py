"""The inspection from top to bottom: each domain alone, the source beside every other one, a map."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.data.domains import Domain, load_text
from guidebook.data.labels import normalise_column
from guidebook.data.population import Population
from guidebook.data.read import read_table
from guidebook.errors import InputError
from guidebook.evaluation.discrepancy import mmd_test
from guidebook.evaluation.records import read_records
from guidebook.evaluation.seen import Floats
from guidebook.inspection.content import content_difference
from guidebook.inspection.form import form_differences
from guidebook.inspection.map import places, word_rows
from guidebook.inspection.overlap import same_rows, similar_rows, vocabulary_overlap
from guidebook.inspection.through import fertility, loss_on, rows_of

MOST_ROWS = 5_000  # of each domain; the first ones of a shuffle
MOST_CLASSES = 20


def inspect(
    domains: Sequence[Domain],
    *,
    base: str | None = None,
    records: str | Path | None = None,
    seed: int = 0,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return how far the first domain, the source, is from each other one, ready for JSON. Nothing is trained on it.

    Args:
        domains: The source, then one or more others. Labels are counted for the source alone; of the others the label
            column is not even looked for.
        base: A base to look through: fertility, language-modelling loss, MMD of pooled rows. None: words alone.
        records: JSON lines of recorded directions (source, target, and numbers such as error and gain), which are
            shown as points beside these.
        seed: Draws samples and halves.
        note: Hears what is being done.

    Returns:
        domains, pairs (form, content, vocabulary, same_rows, similar_rows, mmd), map (domain -> points), directions.

    Raises:
        InputError: fewer than two domains, two of one name, or what reading refuses.
    """
    if len(domains) < 2:
        raise InputError("Inspecting compares domains: name the source and at least one other file.")
    names = [domain.name for domain in domains]
    if len(set(names)) != len(names):
        raise InputError(f"Two of the domains are named {Counter(names).most_common(1)[0][0]!r}. Rename a file.")
    populations = [load_text(domain, "text") for domain in domains]
    texts = {p.name: _sampled(p, seed) for p in populations}
    host = None
    if base is not None:
        note("loading the base")
        from guidebook.adapters.host import Host

        host = Host.load(base)
    found = []
    seen: dict[str, Floats] = {}
    for domain, population in zip(domains, populations, strict=True):
        note(f"reading {domain.name}")
        entry = _alone(population, texts[domain.name])
        if domain is domains[0]:
            entry["classes"] = _classes(domain)
        if host is not None:
            entry |= {
                "fertility": fertility(host, texts[domain.name]),
                "lm_loss": loss_on(host, texts[domain.name], seed),
            }
            seen[domain.name] = rows_of(host, texts[domain.name], seed)
        found.append(entry)
    pairs = []
    for name in names[1:]:
        note(f"comparing {names[0]} with {name}")
        pairs.append(_pair((names[0], texts[names[0]]), (name, texts[name]), seed))
        if host is not None:
            distance, chance = mmd_test(seen[names[0]], seen[name], seed=seed)
            pairs[-1]["mmd"] = {"squared": distance, "p_value": chance}
    return {
        "domains": found,
        "pairs": pairs,
        "map": places(seen or word_rows(texts, seed)),
        "map_of": "pooled rows of the base" if seen else "TF-IDF of words",
        "directions": _directions(records) if records is not None else [],
    }


def _sampled(population: Population, seed: int) -> list[str]:
    pairs = population.text_pairs
    every = population.texts if pairs is None else [f"{a}\n{b}" for a, b in zip(population.texts, pairs, strict=True)]
    order = np.random.default_rng(seed).permutation(len(every))[:MOST_ROWS]
    return [every[row] for row in order]


def _alone(population: Population, texts: Sequence[str]) -> dict[str, Any]:
    return {
        "name": population.name,
        "path": population.path,
        "rows": len(population.texts),
        "words_median": float(np.median([len(text.split()) for text in texts])),
        "repeated": len(texts) - len(set(texts)),
        "similar_rows": len(similar_rows(texts)),
    }


def _classes(domain: Domain) -> dict[str, int] | None:
    """Return how many rows each label of the source has, if it has labels that repeat."""
    raw = domain.labels
    if raw is None and domain.path is not None:
        raw = read_table(Path(domain.path), domain.columns, domain.where).labels
    counts = Counter(label for label in normalise_column(raw or ()) if label is not None)
    return dict(sorted(counts.items())) if 0 < len(counts) <= MOST_CLASSES else None


def _pair(source: tuple[str, Sequence[str]], target: tuple[str, Sequence[str]], seed: int) -> dict[str, Any]:
    near = similar_rows(source[1], target[1])
    shared, known = vocabulary_overlap(source[1], target[1])
    examples = [[source[1][a][:120], target[1][b][:120]] for a, b, _ in near[:3]]
    return {
        "source": source[0],
        "target": target[0],
        "form": [dataclasses.asdict(difference) for difference in form_differences(source[1], target[1])],
        "content": dataclasses.asdict(content_difference(source[1], target[1], seed)),
        "vocabulary": {"frequent_words_shared": shared, "running_words_known": known},
        "same_rows": same_rows(source[1], target[1]),
        "similar_rows": len({b for _, b, _ in near}),
        "examples_of_similar_rows": examples,
    }


def _directions(path: str | Path) -> list[Mapping[str, Any]]:
    """Return recorded directions: their names and numbers.

    Raises:
        InputError: no such file, or no line names source and target.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file of recorded directions. Leave --records out.")
    found: list[Mapping[str, Any]] = []
    for record in read_records(path):
        if "source" in record and "target" in record:
            numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
            found.append({"source": str(record["source"]), "target": str(record["target"]), **numbers})
    if not found:
        raise InputError(
            f"{path}: no line has source and target. Write JSON lines such as "
            '{"source": "books", "target": "dvd", "error": 0.2, "gain": 0.01}.'
        )
    return found
