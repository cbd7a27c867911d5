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
