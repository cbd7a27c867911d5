"""Tested rows that were read in training."""

from __future__ import annotations

import pytest

from guidebook.data.corpus import read_corpus
from guidebook.data.domains import Domain
from guidebook.data.overlap import said_of_overlap

SOURCE = Domain("s", ["one a", "two b", "three c", "four d"], labels=["x", "y", "x", "y"])


@pytest.mark.parametrize(
    ("test", "share", "counts"),
    [
        (None, 1.0, {"targets": 4}),
        (["p", "q", "r", "t"], 1.0, {"targets": 4}),
        (["p", " Q\n", "new", "newer"], 0.5, {"targets": 2}),  # white space and case do not count
        (["new", "One A", "three  c", "p"], 0.25, {"targets": 1, "source": 2}),
        (["new", "pool", "wiki"], 0.0, {"unlabelled": 1, "general": 1}),
        (["new"], 0.0, {}),
    ],
)
def test_every_tested_row_that_was_read_is_counted(
    test: list[str] | None, share: float, counts: dict[str, int]
) -> None:
    rows = None if test is None else Domain("t test", test)
    corpus = read_corpus(
        [SOURCE],
        [Domain("t", ["p", "q", "r", "t"], test=rows)],
        unlabelled=[Domain("u", ["pool"])],
        general=[Domain("g", ["wiki"])],
        dev=0.0,
    )
    found = corpus.overlaps["t"]
    assert found.transductive == share
    assert found.plain() == {"rows": len(test or "pqrt"), "in": counts}


def test_pairs_are_compared_with_pairs() -> None:
    source = Domain("s", ["a", "b"], ["c", "d"], labels=["x", "y"])
    target = Domain("t", ["p"], ["q"], test=Domain("t test", ["a", "a"], ["c", "d"]))
    corpus = read_corpus([source], [target], unlabelled=[Domain("u", ["a"])], dev=0.0)
    assert corpus.overlaps["t"].plain()["in"] == {"source": 1}


def test_what_is_said_of_it() -> None:
    assert said_of_overlap({"rows": 4, "in": {"targets": 4}}) == []  # it is called transductive
    assert said_of_overlap({"rows": 4, "in": {"targets": 1}}) == [
        "1 of 4 test rows (25 %) also stand in the text that was adapted to: scores on them flatter"
    ]
    assert said_of_overlap({"rows": 0, "in": {}}) == []
