from __future__ import annotations

import json

from guidebook.cli.main import main


def test_scores_stand_in_a_table(engine, reviews, capsys):
    assert main(["evaluate", "book", str(reviews), "where.label=positive", "--domain", "kitchen"]) == 0
    captured = capsys.readouterr()
    assert "'meh': 3" in captured.err
    said = captured.out
    assert "source_only" in said
    assert "domain_fusion" in said
    assert "70.0% to 80.0%" in said
    ((domain, which),) = engine.domains
    assert which == "kitchen"
    assert domain.path == str(reviews)
    assert domain.where == {"label": "positive"}


def test_json_holds_all_scores(engine, reviews, capsys):
    assert main(["evaluate", "book", str(reviews), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["domain_fusion"]["calibration_error"] == 0.05


def test_a_file_must_be_named(engine, capsys):
    assert main(["evaluate", "book"]) == 2
    assert "FILE" in capsys.readouterr().err
