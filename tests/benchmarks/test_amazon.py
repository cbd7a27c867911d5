"""The Amazon study's tables: what they compare, and that nothing is compared with itself or with another budget."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "amazon"
spec = importlib.util.spec_from_file_location("amazon_report", FOLDER / "report.py")
assert spec is not None
assert spec.loader is not None
report: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(report)

DOMAINS = ("books", "dvd", "electronics")
RIGHT = {
    ("full", "none"): 0.6,
    ("full", "source+targets"): 0.5,
    ("houlsby", "none"): 0.65,
    ("houlsby", "source+targets"): 0.75,
}


def record(kind: str, arm: str, pair: tuple[str, str], right: float, tokens: int = 1) -> dict[str, Any]:
    marks = np.arange(100) < round(100 * right)
    return {
        "phase": "few",
        "kind": kind,
        "arm": arm,
        "source": pair[0],
        "target": pair[1],
        "draw": 0,
        "labels": 200,
        "learning_rate": 1e-3,
        "budget": {"base": "mini", "fuse_tokens": tokens, "epochs": 1},
        "rows": 100,
        "accuracy": right,
        "correct": "".join("01"[int(mark)] for mark in marks),
        "seconds": 1.0,
        "base_fingerprint": "f" * 64,
        "base_saw": ["wikipedia-en"],
    }


def study(tokens: int = 1) -> list[dict[str, Any]]:
    return [
        record(kind, arm, pair, right, tokens)
        for (kind, arm), right in RIGHT.items()
        for pair in itertools.permutations(DOMAINS, 2)
    ]


def test_the_two_by_two_holds_every_difference_of_its_cells() -> None:
    found = {
        what.strip(): float(points)
        for what, points in (line.split("|")[1:3] for line in report.two_by_two(study())[2:])
    }
    assert found == {
        "all weights: two-step minus the task alone": pytest.approx(-10),
        "Houlsby adapters: two-step minus the task alone": pytest.approx(10),
        "Houlsby adapters, the task alone, minus all weights, the task alone": pytest.approx(5),
        "Houlsby adapters, two-step, minus all weights, the task alone": pytest.approx(15),
    }


def test_one_kind_alone_makes_no_two_by_two() -> None:
    assert report.two_by_two([entry for entry in study() if entry["kind"] == "full"]) == []


def test_pairs_are_of_the_same_direction_and_draw() -> None:
    better = [
        record("lora", "none", pair, 0.9) for pair in (("books", "dvd"), ("dvd", "books"), ("dvd", "electronics"))
    ]
    worse = [
        record("full", "none", pair, 0.4) for pair in (("books", "dvd"), ("dvd", "books"), ("books", "electronics"))
    ]
    interval, _, cells = report.paired(better, worse)
    assert (interval.estimate, cells) == (pytest.approx(0.5), 2)
    assert report.paired(better[:1], worse) is None  # one source says nothing of sources


def test_budgets_are_not_mixed() -> None:
    page = report.page([*study(), *study(tokens=2)])
    assert page.count("### What is trained against how") == 2
    assert page.count("### houlsby") == 2


def test_the_gain_is_shown_by_the_number_of_labels_where_there_are_several() -> None:
    few = study()
    assert report.by_labels(few) == []
    many = [{**entry, "labels": 400, "phase": "curve"} for entry in few if entry["kind"] == "houlsby"]
    rows = report.by_labels([*many, *few])[5:]
    assert [row.split(" | ")[2] for row in rows] == ["200", "400"]
    assert all("| Houlsby adapters |" in row and "| +10.0 |" in row for row in rows)


def test_the_front_page_shows_what_is_complete_and_borrows_arms_without_adapter() -> None:
    arms = {"tf-idf": 0.5, "linear probe": 0.55, "none": 0.6, "general": 0.6, "source+targets": 0.7}
    pairs = list(itertools.permutations(DOMAINS, 2))
    entries = [record("houlsby", arm, pair, right) for arm, right in arms.items() for pair in pairs]
    entries += [
        record("lora", arm, pair, arms[arm] + 0.1) for arm in ("none", "general", "source+targets") for pair in pairs
    ]
    entries += [record("full", "none", pair, 0.9) for pair in pairs[:2]]
    houlsby, lora = report.brief(entries).splitlines()[2:]
    assert "| 50.0 | 55.0 | 60.0 | 60.0 | 70.0 | +10.0" in houlsby
    assert "| 50.0 | 55.0 | 70.0 | 70.0 | 80.0 | +10.0" in lora
    assert "| +20.0" in lora
