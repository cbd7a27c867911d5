from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from guidebook.cli.adapt import split_words
from guidebook.cli.main import main
from guidebook.errors import InputError, RunError


def test_flags_and_changes_make_a_recipe(engine, reviews, tmp_path, capsys):
    words = [
        "adapt",
        "--base",
        "some/base",
        "--source",
        str(reviews),
        "--target",
        "kitchen.csv",
        "--target",
        "apps.csv",
    ]
    words += ["--method", "source_only", "--adapter", "lora", "--out", str(tmp_path / "out"), "--seed", "3"]
    assert main([*words, "train.task.epochs=2", "-q"]) == 0
    (recipe,) = engine.recipes
    assert recipe.base == "some/base"
    assert [domain.name for domain in recipe.targets] == ["kitchen", "apps"]
    assert type(recipe.method).__name__ == "SourceOnly"
    assert recipe.adapter.kind == "lora"
    assert recipe.seed == 3
    assert recipe.train.task.epochs == 2
    assert engine.outs == [tmp_path / "out"]
    assert capsys.readouterr().out == f"{engine.book.path}\n"


def test_a_recipe_is_read_and_flags_change_it(engine, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("base: mini\nsource: books.csv\ntargets: [kitchen.csv]\nadapter: {kind: houlsby, reduction: 6}\n")
    assert main(["adapt", str(path), "seed=1", "adapter.reduction=8"]) == 0
    (recipe,) = engine.recipes
    assert Path(recipe.source[0].path) == tmp_path / "books.csv"
    assert (recipe.seed, recipe.adapter.reduction) == (1, 8)
    said = capsys.readouterr()
    assert said.out.startswith("a summary of domain_fusion\n")
    assert "books: columns text, label [as found]" in said.err
    assert "2 stages, 184 k tokens, about 1 min 2 s on this machine (1 stored from an earlier run)" in said.err
    assert "900 k of 22.7 M parameters are trained" in said.err
    assert "kitchen, hotels" in said.err


def test_figures_are_all_or_none(engine, reviews, capsys):
    words = ["adapt", "--source", str(reviews), "--target", "kitchen.csv", "-q"]
    assert main(words) == 0
    assert engine.figures == "all"
    assert main([*words, "--figures", "none"]) == 0
    assert engine.figures == "none"
    assert main([*words, "--figures", "some"]) == 2
    assert "--figures some: write all or none." in capsys.readouterr().err


def test_json_is_one_document_on_stdout(engine, reviews, capsys):
    assert main(["adapt", "--source", str(reviews), "--target", "kitchen.csv", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(engine.book.path)
    assert said["method"] == "domain_fusion"


def test_a_dry_run_trains_nothing(engine, reviews, capsys):
    words = ["adapt", "--source", str(reviews), "--target", "kitchen.csv", "--dry-run"]
    assert main(words) == 0
    assert engine.outs == []
    said = capsys.readouterr()
    assert "fuse" in said.out
    assert "184 k tokens" in said.out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 184_000


def test_quiet_says_nothing_but_the_folder(engine, reviews, capsys):
    assert main(["adapt", "--source", str(reviews), "--target", "kitchen.csv", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == f"{engine.book.path}\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("books.csv line 4: no label. Add one."), 2, "Error: books.csv line 4: no label. Add one."),
        (RunError("the loss is not finite"), 1, "Error: the loss is not finite"),
        (KeyboardInterrupt(), 130, "Stopped. The same command goes on"),
    ],
)
def test_what_goes_wrong_has_one_message_and_a_code(engine, reviews, capsys, *, error, code, text):
    engine.error = error
    assert main(["adapt", "--source", str(reviews), "--target", "kitchen.csv"]) == code
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


def test_a_long_message_is_not_broken_and_not_markup(engine, reviews, capsys):
    message = "reviews.csv line 418: label 'positve' is not one of ['negative', 'positive']. " * 4 + "[/] [red]"
    engine.error = InputError(message)
    assert main(["adapt", "--source", str(reviews), "--target", "kitchen.csv", "-q"]) == 2
    assert capsys.readouterr().err == f"Error: {message}\n"


def test_an_unexpected_error_shows_its_traceback_and_where_to_report(engine, reviews, capsys):
    engine.error = ZeroDivisionError("nobody thought of this")
    assert main(["adapt", "--source", str(reviews), "--target", "kitchen.csv"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "nobody thought of this" in said
    assert "report it" in said
    assert "guidebook doctor" in said


def test_wrong_words_are_input_errors(engine, capsys):
    assert main(["adapt", "kitchen.csv"]) == 2
    assert "--target" in capsys.readouterr().err
    assert main(["adapt", "missing.yaml"]) == 2
    assert "missing.yaml: there is no such recipe" in capsys.readouterr().err
    assert main(["adapt"]) == 2
    assert "the recipe has no source" in capsys.readouterr().err
    assert main(["adapt", "--sauce", "x"]) == 2
    assert "--source" in capsys.readouterr().err


def test_a_terminal_gets_tables_and_the_places(engine, reviews, monkeypatch, capsys):
    engine.book.path.mkdir()
    (engine.book.path / "report.html").write_text("<html>")
    monkeypatch.setattr("guidebook.cli.adapt.stdout", lambda: Console(force_terminal=True, width=80, highlight=False))
    assert main(["adapt", "--source", str(reviews), "--target", "kitchen.csv"]) == 0
    said = capsys.readouterr().out
    assert "Results" in said
    assert "75.0" in said
    assert "one finding [x]" in said
    assert f"report:    {engine.book.path / 'report.html'}" in said
    assert "records:" not in said


def test_split_words(tmp_path):
    odd = tmp_path / "seed=1.yaml"
    odd.write_text("base: mini")
    assert split_words([str(odd), "seed=2"]) == (odd, ["seed=2"])
    with pytest.raises(InputError, match="neither a recipe"):
        split_words(["a.yaml", "b.yaml"])
