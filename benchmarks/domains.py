"""What several studies share: sets of domains as they are read from their files, and what a cell's runs start from."""

from __future__ import annotations

import itertools
import json
import lzma
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guidebook.adaptation import prepare
from guidebook.compare.work import Share
from guidebook.recipe import Recipe
from guidebook.training.engine import Engine
from guidebook.training.listener import Listener
from guidebook.training.run import Material

POOL = "unlabeled"
"""Split of the texts that have no label."""


@dataclass(frozen=True)
class Data:
    """One set of domains: (domain, split) -> columns."""

    name: str
    domains: tuple[str, ...]
    tests: tuple[str, ...]
    """Splits that make a target's test rows."""
    rows: dict[tuple[str, str], dict[str, list[Any]]]

    def of(self, domain: str, *splits: str) -> dict[str, Any]:
        """Return the texts, pairs and labels of some splits of a domain."""
        found: dict[str, list[Any]] = defaultdict(list)
        for split in splits:
            for column, values in self.rows[domain, split].items():
                found[column] += values
        return dict(found)

    def pool(self, domain: str) -> dict[str, Any]:
        """Return a domain's texts without labels: its pool, else its training texts."""
        columns = self.of(domain, POOL if (domain, POOL) in self.rows else "train")
        return {name: values for name, values in columns.items() if name != "labels"}


def read(name: str, path: Path) -> Data:
    """Return the rows of `amazon_reviews` or `mnli_genres`."""
    rows: dict[tuple[str, str], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    with lzma.open(path, "rt", encoding="utf8") as lines:
        for line in lines:
            row = json.loads(line)
            columns = rows[row["domain"], row["split"]]
            columns["texts"].append(row.get("text", row.get("premise")))
            if "hypothesis" in row:
                columns["text_pairs"].append(row["hypothesis"])
            if row["split"] != POOL:
                columns["labels"].append(str(row["label"]))
    domains = tuple(sorted({domain for domain, _ in rows}))
    tests = ("test",) if (domains[0], "test") in rows else ("train", "dev")
    return Data(name, domains, tests, rows)


def read_general(path: Path, articles: int) -> list[str]:
    """Return the first articles of general text."""
    with lzma.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, articles)]


@dataclass
class Prepared:
    """Data and base of the newest cell: recipes that differ in nothing but the method start from the same."""

    cell: Hashable = None
    made: list[tuple[Material, Engine]] = field(default_factory=list)

    def for_cell(self, cell: Hashable, recipe: Recipe) -> tuple[Material, Engine]:
        """Return what a recipe of the cell starts from, made once."""
        if cell != self.cell or not self.made:
            self.cell, self.made = cell, [prepare(recipe, Listener())]
        return self.made[0]


def share_of(jobs: Sequence[Any], cells: Sequence[Hashable], share: Share) -> list[Any]:
    """Return one part of the jobs; those of one cell stay together.

    >>> share_of([1, 2, 3, 4], ["a", "b", "a", "c"], Share(1, 2))
    [1, 3, 4]
    """
    places = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    return [job for job, cell in zip(jobs, cells, strict=True) if places[cell] % share.parts == share.part - 1]
