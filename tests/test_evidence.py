"""What a run keeps for its report, on a tiny base, and the report made again from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guidebook as gb
from guidebook.cli.main import main
from guidebook.evidence import LONGEST_QUOTE
from tiny import domains, tiny_recipe


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, tiny_base: Callable[[str], Path]) -> Any:
    folder = tmp_path_factory.mktemp("evidence")
    found = domains()
    found["targets"][1] = gb.Domain("hotels", [f"{text} indeed {'long ' * 200}" for text in found["targets"][1].texts])
    recipe = tiny_recipe(tiny_base("bert"), **found, train={"task": {"epochs": 3, "learning_rate": 3e-2}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(folder / "cache"))
        yield gb.adapt(recipe, out=folder / "book")


@pytest.fixture(scope="module")
def kept(book: Any) -> dict[str, Any]:
    return json.loads((book.path / "evidence.json").read_text())


def test_every_target_is_looked_at(kept: dict[str, Any]) -> None:
    assert list(kept["targets"]) == ["kitchen", "hotels"]
    assert kept["targets"]["hotels"]["calibration"] == {}  # no labels
    bins = kept["targets"]["kitchen"]["calibration"]
    assert set(bins) == {"tfidf", "linear_probe", "source_only", "domain_fusion"}
    assert all(sum(bin_["rows"] for bin_ in found) == 6 for found in bins.values())


def test_the_map_holds_rows_of_both_domains(kept: dict[str, Any]) -> None:
    found = kept["targets"]["kitchen"]["map"]
    assert found["source"] == ["books", 19]  # 24 rows, a fifth held out
    assert found["target"] == ["kitchen", 6]
    assert np.shape(found["before"]) == np.shape(found["after"]) == (25, 2)
    assert found["before"] != found["after"]
    assert set(found["predicted"]) <= {0, 1}


def test_disagreements_are_those_of_the_two_models(book: Any, kept: dict[str, Any]) -> None:
    texts = list(domains()["targets"][0].texts)
    ours, twin = (book.predict(texts, domain=which) for which in ("domain_fusion", "source_only"))
    found = kept["targets"]["kitchen"]["disagreement"]
    assert found["differ"] == (ours != twin).sum()
    assert {row["text"] for row in found["examples"]} == {texts[i] for i in np.flatnonzero(ours != twin)}
    for row in found["examples"]:
        assert row["ours"][0] == ours[texts.index(row["text"])]
        assert row["twin"][0] == twin[texts.index(row["text"])]
        assert row["truth"] is not None
    without = kept["targets"]["hotels"]["disagreement"]
    assert without["ours_right"] is None
    assert all(row["truth"] is None and len(row["text"]) <= LONGEST_QUOTE for row in without["examples"])


def test_reading_before_and_after_is_kept(kept: dict[str, Any]) -> None:
    found = kept["targets"]["kitchen"]["words"]
    assert found["stage"] == "fuse"
    assert found["guessed"] > 0
    assert found["loss"][0] != found["loss"][1]
    assert kept["general"]["loss"][0] != kept["general"]["loss"][1]


def test_curves_end_where_the_losses_do(book: Any) -> None:
    for stage in book.meta["stages"]:
        assert stage["curves"].keys() == stage["losses"].keys()
        for part, values in stage["curves"].items():
            assert values[0][1] == stage["losses"][part]["first"]
            assert values[-1][1] == stage["losses"][part]["last"]
            assert [step for step, _ in values] == sorted({step for step, _ in values})


def test_the_report_is_made_again_from_what_was_kept(book: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["report", str(book.path), "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    assert (tmp_path / "page.html").read_text() == (book.path / "report.html").read_text()
    assert main(["report", str(book.path / "records.jsonl"), "--out", str(tmp_path / "page.html"), "-q"]) == 0
    assert "What the adapter learned to expect" in (tmp_path / "page.html").read_text()


def test_what_quotes_texts_is_not_uploaded(book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: list[dict[str, Any]] = []

    class Api:
        def create_repo(self, *args: Any, **kwargs: Any) -> None:
            pass

        def upload_folder(self, **kwargs: Any) -> str:
            calls.append(kwargs)
            return "there"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert book.push_to_hub("me/book") == "there"
    assert set(calls[0]["ignore_patterns"]) == {"evidence.json", "report.html"}


@pytest.mark.slow
def test_methods_without_a_language_model_and_without_a_stage(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    for method, has_map in (("source_only", True), ("tfidf", False)):
        made = gb.adapt(tiny_recipe(tiny_base("bert"), method=method), out=tmp_path / method)
        found = json.loads((made.path / "evidence.json").read_text())["targets"]["kitchen"]
        assert (found["map"] is not None) == has_map
        assert found["words"] is None
        assert (found["disagreement"] is None) == (method == "source_only")
