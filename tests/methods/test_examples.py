"""Every method runs from the command line on the example reviews, on a small budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guidebook.cli.main import main
from guidebook.methods import METHODS

REVIEWS = Path(__file__).parents[2] / "examples" / "reviews"
ROWS = 40


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first example reviews of every domain, and what some methods want from their user."""
    folder = tmp_path_factory.mktemp("reviews")
    for name in ("books", "kitchen", "hotels"):
        lines = (REVIEWS / f"{name}.csv").read_text(encoding="utf8").splitlines()
        (folder / f"{name}.csv").write_text("\n".join(lines[: ROWS + 1]) + "\n", encoding="utf8")
    rows = "\n".join(f"{label},it is {label} indeed {row}" for row in range(15) for label in ("negative", "positive"))
    (folder / "few.csv").write_text(f"label,text\n{rows}\n")
    (folder / "taught.jsonl").write_text("\n".join(['{"positive": 0.6, "negative": 0.4}'] * ROWS) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_method_runs_on_the_example_reviews(method, reviews, monkeypatch, capsys) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(reviews / "cache"))  # the baselines are trained once for all
    out = reviews / f"out-{method}"
    words = ["adapt", "--source", str(reviews / "books.csv"), "--target", str(reviews / "kitchen.csv"), "--json"]
    words += ["--method", method, "--out", str(out), "train.fuse.tokens=1000", "train.task.epochs=0.5"]
    words += ["train.max_length=24", "task.max_length=24", f"general={reviews / 'hotels.csv'}"]
    brought = {"few_target_labels": "few.csv", "teacher": "taught.jsonl"}
    if method in brought:
        words.append(f"method.path={reviews / brought[method]}")
    if method == "zero_shot":  # asks a decoder
        words += ["--base", "mini-gptj"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["method"] == method
    assert (out / "report.html").exists()
