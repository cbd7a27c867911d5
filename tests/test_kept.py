"""Nothing that a person wrote into a guidebook's folder, or named for writing, is lost by a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guidebook.adaptation import adapt
from guidebook.caution import guarded
from guidebook.cli.main import main
from guidebook.writing import retired
from tiny import tiny_recipe

LABELS = "row,text,label\n0,the plot,1\n"
ENTRY = {"plan": {"pool": "p", "rows": []}, "labels": {"0": 1}, "verdict": "keep_source_only", "more": 0}


@pytest.fixture
def book(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A guidebook with an audit and a person's notes in its folder, and a function that adapts again."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    made = adapt(tiny_recipe(tiny_base("bert")), out=tmp_path / "book")
    (made.path / "audit.json").write_text(json.dumps({"kitchen": ENTRY}))
    (made.path / "audit-kitchen.csv").write_text(LABELS)
    card = (made.path / "README.md").read_text()
    (made.path / "README.md").write_text(card + "\nLicense: mine.\n")
    return lambda **changes: adapt(tiny_recipe(tiny_base("bert"), **changes), out=tmp_path / "book")


def test_adapting_again_keeps_labels_and_retires_the_verdict_on_other_models(book: Any) -> None:
    same = book()
    entries = json.loads((same.path / "audit.json").read_text())
    assert entries == {"kitchen": ENTRY}, "the models are the same, so the verdict still holds"
    assert guarded(same, "kitchen")[0] == "source_only"
    other = book(seed=1)
    entries = json.loads((other.path / "audit.json").read_text())
    assert entries == {"kitchen": {"earlier": [ENTRY]}}
    assert not list(other.path.glob("*.2.json")), "the entry was retired, not doubled"
    assert (other.path / "audit-kitchen.csv").read_text() == LABELS
    assert "License: mine." in (other.path / "README.2.md").read_text()
    assert "License: mine." not in (other.path / "README.md").read_text()
    assert "was not audited" in guarded(other, "kitchen")[1]


def test_another_pool_keeps_the_labels_of_the_one_before() -> None:
    assert retired({**ENTRY, "earlier": [{"verdict": "ship"}]}) == {"earlier": [{"verdict": "ship"}, ENTRY]}
    assert retired({"earlier": [ENTRY]}) == {"earlier": [ENTRY]}


@pytest.mark.parametrize("name", ["labels.csv", "corrected.jsonl", "page.html", "map.png"])
def test_a_file_of_a_person_is_not_overwritten(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / name
    line = {"line": 1, "label": "bad", "probabilities": {"good": 0.9, "bad": 0.1}}  # a corrected prediction
    taken.write_text(json.dumps(line) + "\n" if name.endswith("jsonl") else "years of work")
    before = taken.read_text()
    records = tmp_path / "records.jsonl"
    records.write_text("")
    for words in (
        ["predict", str(tmp_path), str(taken), "--out", str(taken)],
        ["report", str(records), "--out", str(taken)],
        ["inspect", str(taken), str(taken), "--map", str(taken)],
    ):
        assert main(words) == 2, words
        said = " ".join(capsys.readouterr().err.split())
        assert "exists already, and is not overwritten" in said
        assert taken.read_text() == before
