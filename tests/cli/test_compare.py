from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from compare.conftest import write_comparison
from guidebook.cli.compare import Watch
from guidebook.cli.main import main
from guidebook.compare.grid import load_comparison
from guidebook.evaluation.records import append_record, read_records


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_base: Callable[[str], Path]) -> Path:
    """A folder with a recipe and the records of its comparison under out."""
    folder = tmp_path_factory.mktemp("compared")
    path = write_comparison(folder, tiny_base("bert"), methods=["tfidf", "source_only"], draws=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(folder / "cache"))
        patch.setattr("guidebook.cli.main.quiet_libraries", lambda: None)
        assert main(["compare", str(path), "--out", str(folder / "out"), "-q"]) == 0
    return folder


def test_the_table_the_picks_and_the_verdict_are_printed(done, capsys):
    assert main(["compare", str(done / "recipe.yaml"), "--out", str(done / "out")]) == 0
    said = capsys.readouterr()
    for words in (
        "Candidates; intervals",
        "p (Holm)",
        "source accuracy",
        "oracle",
        "books to kitchen",
        "12 labelled rows",
    ):
        assert words in said.out
    assert "after Holm's correction for 1 tests" in said.out
    assert f"records:   {done / 'out' / 'records.jsonl'}" in said.out
    assert "4 runs; records in" in said.err
    assert "2 candidates" in (done / "out" / "report.html").read_text(encoding="utf8")


def test_json_and_quiet(done, capsys):
    words = ["compare", str(done / "recipe.yaml"), "--out", str(done / "out")]
    assert main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["cells"] == 2
    assert {standing["name"] for standing in found["candidates"]} == {"tfidf", "source_only"}
    assert main([*words, "-q"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{done / 'out'}\n", "")


def test_a_dry_run_counts(done, tmp_path, capsys):
    assert main(["compare", str(done / "recipe.yaml"), "compare.draws=3", "--out", str(done / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 candidates, 2 directions, 3 draws: 12 runs, 8 without a record." in said


def test_wrong_words(done, tmp_path, capsys):
    assert main(["compare"]) == 2
    assert "compare needs a recipe" in capsys.readouterr().err
    assert main(["compare", str(done / "recipe.yaml"), "compare.drows=1"]) == 2
    assert "unknown key 'compare.drows'" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["compare", str(done / "recipe.yaml"), "--out", str(tmp_path)]) == 2
    assert "holds no records" in capsys.readouterr().err
    assert main(["compare", str(done / "recipe.yaml"), "--out", str(done / "out"), "--share", "4/3"]) == 2
    assert "such as 2/3" in capsys.readouterr().err
    assert main(["adapt", str(done / "recipe.yaml")]) == 2
    assert "guidebook compare" in capsys.readouterr().err


def test_what_a_kill_before_the_first_record_left_is_no_hindrance(done, tmp_path, monkeypatch):
    (tmp_path / "out" / "claims").mkdir(parents=True)
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(done / "cache"))
    assert main(["compare", str(done / "recipe.yaml"), "--out", str(tmp_path / "out"), "-q"]) == 0
    assert len(read_records(tmp_path / "out" / "records.jsonl")) == 4


def test_the_live_table_follows_the_records(done, tmp_path):
    jobs = load_comparison(done / "recipe.yaml").jobs()
    console = Console(width=100, record=True, file=(tmp_path / "screen").open("w"))
    watch = Watch(jobs, tmp_path)
    console.print(watch.drawn())
    assert "0 of 4 runs" in console.export_text()
    for record in read_records(done / "out" / "records.jsonl")[:3]:
        append_record(tmp_path / "records.jsonl", {**record, "accuracy": 0.625})
    console.print(watch.drawn())
    said = console.export_text()
    assert "3 of 4 runs, about" in said
    assert "books → kitchen" in said
    assert said.count("62.5") == 3
    assert said.count("·") == 1


def test_report_of_a_comparison_and_of_its_records(done, tmp_path, capsys):
    for place in (done / "out", done / "out" / "records.jsonl"):
        assert main(["report", str(place), "--out", str(tmp_path / "page.html")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
        assert "2 candidates" in (tmp_path / "page.html").read_text(encoding="utf8")
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder or file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "neither a guidebook" in capsys.readouterr().err
