"""The sets of domains that several studies share, as they are read from their files."""

from __future__ import annotations

import itertools
import json
import lzma
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POOL = "unlabeled"
"""Split of the texts that have no label, or whose labels are not to be read."""
SPELLINGS = {"unlabelled": POOL}


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

    def test(self, domain: str, count: int) -> dict[str, Any]:
        """Return a fixed random part of the rows that test a target: the same in every study."""
        columns = self.of(domain, *self.tests)
        return take(columns, np.sort(np.random.default_rng(0).permutation(len(columns["texts"]))[:count]))

    def pool(self, domain: str) -> dict[str, Any]:
        """Return a domain's texts without labels: its pool, else its training texts."""
        columns = self.of(domain, POOL if (domain, POOL) in self.rows else "train")
        return {name: values for name, values in columns.items() if name != "labels"}


def take(columns: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return some rows of columns."""
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def read(name: str, path: Path) -> Data:
    """Return the rows of one collection: JSON lines with text (or premise, hypothesis), label, domain and split."""
    rows: dict[tuple[str, str], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    with lzma.open(path, "rt", encoding="utf8") as lines:
        for line in lines:
            row = json.loads(line)
            split = SPELLINGS.get(row["split"], row["split"])
            columns = rows[row["domain"], split]
            columns["texts"].append(row.get("text", row.get("premise")))
            if "hypothesis" in row:
                columns["text_pairs"].append(row["hypothesis"])
            if split != POOL:
                columns["labels"].append(str(row["label"]))
    domains = tuple(sorted({domain for domain, _ in rows}))
    tests = ("test",) if (domains[0], "test") in rows else ("train", "dev")
    return Data(name, domains, tests, rows)


def read_general(path: Path, articles: int) -> list[str]:
    """Return the first articles of general text."""
    with lzma.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, articles)]
