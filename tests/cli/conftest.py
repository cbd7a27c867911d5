"""Stand-ins for the engine: the command line is tested without training anything."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from guidebook.errors import InputError, nearest
from guidebook.training.listener import Listener

ESTIMATE = {
    "stages": [
        {
            "arm": "source_only",
            "name": "task",
            "targets": [],
            "tokens": 48_000,
            "steps": 30,
            "seconds": 12.0,
            "cached": True,
        },
        {
            "arm": "domain_fusion",
            "name": "fuse",
            "targets": ["kitchen", "hotels"],
            "tokens": 184_000,
            "steps": 50,
            "seconds": 62.0,
            "cached": False,
        },
    ],
    "seconds": 62.0,
    "tokens": 184_000,
    "parameters": 22_700_000,
    "trainable_parameters": 900_000,
    "memory_megabytes": 812.0,
}

META = {
    "created": "2026-01-02T03:04:05",
    "base": {"id": "mini"},
    "method": "domain_fusion",
    "seed": 0,
    "task": {"labels": ["negative", "positive"]},
    "domains": [{"name": "books", "role": "source"}, {"name": "kitchen", "role": "target"}],
    "serves": {"kitchen": "domain_fusion", "hotels": "domain_fusion"},
    "size": {"megabytes_per_domain": 3.61},
}


class FakeBook:
    """A guidebook that calls everything with an exclamation mark positive."""

    def __init__(self, path: Path, meta: dict[str, Any] | None = None) -> None:
        self.path = path
        self.meta = {**META, **(meta or {})}
        self.labels = ("negative", "positive")
        self.words = False
        self.asked: list[Any] = []

    def predict_proba(self, texts, text_pairs=None, domain="auto"):
        self.asked.append((list(texts), text_pairs, domain))
        if domain not in ("auto", *self.meta["serves"]):
            raise InputError(f"no domain {domain!r}.{nearest(domain, self.meta['serves'])}")
        positive = np.array([0.9 if "!" in text else 0.2 for text in texts])
        return np.stack([1 - positive, positive], axis=1)  # (B,) -> (B, 2)


class FakeSummary:
    """The parts of a summary that the terminal draws."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.outcome, self.verdict, self.findings = "noise", f"a summary of {meta['method']}", ("one finding [x]",)

    def tables(self):
        return [SimpleNamespace(title="Results", columns=("model", "accuracy %"), align="lr", rows=(("twin", "75.0"),))]

    def text(self):
        return self.verdict + "\n"


class Engine:
    """What the stand-ins were called with, and what they do."""

    def __init__(self, folder: Path) -> None:
        self.book = FakeBook(folder / "book")
        self.recipes: list[Any] = []
        self.outs: list[Any] = []
        self.domains: list[Any] = []
        self.figures = ""
        self.error: BaseException | None = None

    def adapt(self, recipe, out=None, listener: Listener | None = None, *, figures: str = "all"):
        self.figures = figures
        self.recipes.append(recipe)
        self.outs.append(out)
        if self.error is not None:
            raise self.error
        assert listener is not None
        listener.note("books: columns text, label [as found]")
        listener.announce(ESTIMATE)
        listener.start("fuse", 50)
        listener.advance("fuse", 25, tokens_per_second=3412.0, loss=2.5)
        listener.finish("fuse", seconds=62.0)
        return self.book

    def estimate(self, recipe, listener: Listener | None = None):
        self.recipes.append(recipe)
        return ESTIMATE

    def evaluate(self, book, domain, which=None):
        self.domains.append((domain, which))
        score = {"accuracy": 0.75, "accuracy_low": 0.7, "accuracy_high": 0.8, "macro_f1": 0.74, "rows": 240}
        twin, adapted = {**score, "calibration_error": 0.1}, {**score, "calibration_error": 0.05}
        return {"rows": 240, "unknown_labels": {"meh": 3}, "scores": {"source_only": twin, "domain_fusion": adapted}}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """Put stand-ins in place of the modules that train and load."""
    made = Engine(tmp_path)
    adaptation: Any = ModuleType("guidebook.adaptation")
    adaptation.adapt, adaptation.estimate, adaptation.evaluate = made.adapt, made.estimate, made.evaluate
    artifact: Any = ModuleType("guidebook.artifact")
    artifact.load = lambda path, *more, **options: made.book
    summary: Any = ModuleType("guidebook.reports.summary")
    summary.summary = FakeSummary
    for module in (adaptation, artifact, summary):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture(autouse=True)
def outside_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `main` from quieting libraries for the tests that follow."""
    monkeypatch.setattr("guidebook.cli.main.quiet_libraries", lambda: None)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A labelled CSV of four rows, the third without text."""
    path = tmp_path / "reviews.csv"
    path.write_text('text,label\n"so good!",positive\ntoo thin,negative\n"",negative\n"a joy, a joy!",positive\n')
    return path
