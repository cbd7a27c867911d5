"""Which rows of a test were read in training: the same text but for case and white space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guidebook.data.fingerprints import text_keys
from guidebook.data.population import Population

ROLES = {
    "targets": "the text that was adapted to",
    "source": "labelled rows that were trained on",
    "unlabelled": "unlabelled text of the source",
    "general": "general text",
}


@dataclass(frozen=True)
class Overlap:
    """How many of the tested rows also stand in text that was trained on.

    Attributes:
        rows: Number of rows tested.
        counts: Role of the text ("targets", "source", "unlabelled", "general") -> how many rows stand there, too.
    """

    rows: int
    counts: Mapping[str, int]

    @property
    def transductive(self) -> float:
        """Share of the tested rows whose text was adapted to, 0..1; 1: the test has no other rows."""
        return self.counts.get("targets", 0) / max(self.rows, 1)

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"rows": self.rows, "in": {role: count for role, count in self.counts.items() if count}}


def overlaps(tests: Sequence[Population], read: Mapping[str, Sequence[Population]]) -> list[Overlap]:
    """Return the overlap of every test with what was read, by role; every text is hashed once.

    Pairs are compared with pairs and single texts with single ones.

    Args:
        tests: Populations whose rows are tested.
        read: Role -> populations that were trained on.
    """
    known: dict[int, np.ndarray] = {}

    def keys(population: Population) -> np.ndarray:
        if id(population) not in known:
            known[id(population)] = text_keys(population.texts, population.text_pairs)
        return known[id(population)]

    pools = {
        (role, paired): np.unique(np.concatenate(parts))
        for role, populations in read.items()
        for paired in (True, False)
        if (parts := [keys(p) for p in populations if (p.text_pairs is not None) is paired])
    }
    found = []
    for test in tests:
        own = {role: pool for (role, paired), pool in pools.items() if paired is (test.text_pairs is not None)}
        counts = {role: int(np.isin(keys(test), pool).sum()) for role, pool in own.items()}
        found.append(Overlap(len(test.texts), counts))
    return found


def said_of_overlap(overlap: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each kind of text that holds some of the tested rows, from an overlap as plain data.

    That all rows are those that were adapted to is no news: it is called transductive.

    >>> said_of_overlap({"rows": 100, "in": {"targets": 12, "source": 3}})[1]
    '3 of 100 test rows (3 %) also stand in the labelled rows that were trained on: scores on them flatter'
    """
    rows = overlap["rows"]
    return [
        f"{count:,} of {rows:,} test rows ({100 * count / max(rows, 1):.0f} %) also stand in the "
        f"{ROLES[role].removeprefix('the ')}: scores on them flatter"
        for role, count in overlap["in"].items()
        if not (role == "targets" and count == rows)
    ]
