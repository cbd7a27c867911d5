from __future__ import annotations

import json

import pytest

from guidebook.adapters.placement import PLACEMENTS
from guidebook.cli.listing import KNOWN, TABLES, rows_of
from guidebook.cli.main import main
from guidebook.methods import METHODS


@pytest.mark.parametrize("what", [name for name in KNOWN if name != "guidebooks"])
def test_every_entry_says_what_it_is(what):
    rows = rows_of(what)
    assert rows
    for row in rows:
        assert row["about"], f"{what} {row['name']} has no first docstring line"


def test_methods_and_architectures_are_all_there(capsys):
    assert main(["ls", "methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(METHODS)
    assert "Ganin et al. 2016, Domain-Adversarial" in next(row["paper"] for row in rows if row["name"] == "dann")
    assert main(["ls", "methods"]) == 0
    assert "Ganin et al. 2016" in capsys.readouterr().out
    assert main(["ls", "architectures"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in PLACEMENTS)


def test_without_a_word_everything_is_listed(capsys):
    assert main(["ls"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in TABLES)
    assert main(["ls", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(KNOWN) - {"guidebooks"}


def test_an_unknown_list_suggests_the_nearest(capsys):
    assert main(["ls", "metods"]) == 2
    assert "Did you mean 'methods'?" in capsys.readouterr().err


def test_guidebooks_of_a_folder(tmp_path, capsys):
    book = tmp_path / "deep" / "kitchen"
    book.mkdir(parents=True)
    meta = {
        "base": {"id": "mini"},
        "method": "domain_fusion",
        "seed": 4,
        "domains": [{"name": "books", "role": "source"}] * 2 + [{"name": "kitchen", "role": "target"}],
        "size": {"megabytes_per_domain": 3.61},
    }
    (book / "guidebook.json").write_text(json.dumps(meta))
    assert main(["ls", "guidebooks", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["base"], row["source"], row["targets"], row["seed"]) == ("mini", ["books"], ["kitchen"], 4)
    assert main(["ls", "guidebooks", str(tmp_path)]) == 0
    assert "3.6" in capsys.readouterr().out
    (book / "guidebook.json").write_text("{")
    assert main(["ls", "guidebooks", str(tmp_path)]) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_no_guidebooks(tmp_path, capsys):
    assert main(["ls", "guidebooks", str(tmp_path)]) == 0
    assert "No guidebook under" in capsys.readouterr().out
    assert main(["ls", "guidebooks", str(tmp_path / "missing")]) == 2
    assert "no such folder" in capsys.readouterr().err
