"""Every run says what can be said of its targets without their labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import guidebook as gb
from guidebook import adaptation
from guidebook.adaptation import adapt
from guidebook.data.domains import HiddenLabels
from guidebook.evaluation.validators import VALIDATORS
from guidebook.label_free import _prior
from guidebook.reports.unlabelled import said_without_labels
from tiny import LABELS, TEXTS, tiny_recipe


def recipe(base, **changes):
    source = gb.Domain("books", [f"{text} {number}" for number in range(5) for text in TEXTS], labels=LABELS * 5)
    apart = gb.Domain("kitchen", [f"the {text} {n}" for n in range(3) for text in TEXTS], labels=LABELS * 3)
    apart_test = gb.Domain("kitchen test", [f"a {text}" for text in TEXTS], labels=LABELS)
    kitchen = gb.Domain("kitchen", apart.texts, labels=apart.labels, test=apart_test)
    hotels = gb.Domain("hotels", [f"{text} indeed {n}" for n in range(3) for text in TEXTS], labels=LABELS * 3)
    return tiny_recipe(base, source=source, targets=[kitchen, hotels], task={"dev": 0.4}, **changes)


@pytest.fixture(scope="module")
def book(tiny_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("label-free")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        yield adapt(recipe(tiny_base("bert")), out=root / "book")


def test_scores_estimates_and_class_shares_stand_in_the_guidebook(book):
    scores = json.loads((book.path / "guidebook.json").read_text())["scores"]
    kitchen, hotels = scores["targets"]
    assert (kitchen["name"], kitchen["rows_read"]) == ("kitchen", 24)
    for target, tfidf in ((kitchen, False), (hotels, True)):
        arms = {"linear_probe", "source_only", "domain_fusion"} | ({"tfidf"} if tfidf else set())
        assert set(target["validators"]) == arms, "tfidf keeps no model, so it says nothing of a pool apart"
        assert set(target["validators"]["domain_fusion"]) == set(VALIDATORS)
        assert np.isfinite(list(target["validators"]["domain_fusion"].values())).all()
        assert set(target["picks"].values()) <= arms
        assert {"threshold_confidence", "confidence_difference"} <= set(target["estimates"]["domain_fusion"])
        for shares in (target["prior"]["em"], target["prior"]["confusion"]):
            assert sum(share["estimate"] for share in shares.values()) == pytest.approx(1)
    assert set(scores["calibration"]) == {"tfidf", "linear_probe", "source_only", "domain_fusion"}
    assert scores["source_prior"] == {"0": 0.5, "1": 0.5}


def test_known_rows_are_kept_for_abstaining(book):
    rows = load_file(book.path / "known_rows.safetensors")
    assert {name.partition("/")[0] for name in rows} == {"source", "target kitchen", "target hotels"}
    assert rows["source/rows"].shape == (12, 16)
    assert np.allclose(np.linalg.norm(rows["source/rows"].astype(float), axis=1), 1, atol=1e-2)
    assert (np.diff(rows["source/distances"]) >= 0).all()


def test_the_summary_and_the_card_say_it(book):
    card = (book.path / "README.md").read_text()
    said = {
        True: "hotels: no accuracy is guessed without labels",
        False: "hotels, guessed without labels: domain fusion",
    }
    hotels = book.meta["scores"]["targets"][1]
    assert said["domain_fusion" in hotels["doubts"]] in card
    assert "class shares guessed without labels: 0 " in card or "class shares cannot be guessed" in card


def test_a_doubted_guess_is_not_reported():
    guess = {"threshold_confidence": {"estimate": 0.9, "low": 0.8, "high": 0.95}}
    target = {"name": "kitchen", "estimates": {"dann": guess}}
    (told,) = said_without_labels({"targets": [{**target, "doubts": {}}]}, "dann", "dann")
    assert "dann is right on about 90.0 %" in told
    doubts = {"dann": {"disagreement": 0.48, "expected": 0.31, "other": "tfidf"}}
    (said,) = said_without_labels({"targets": [{**target, "doubts": doubts}]}, "dann", "dann")
    assert "no accuracy is guessed" in said
    assert "disagree on 48 % of the rows, and on about 31 %" in said
    assert "90" not in said


def confident(answers, sure=0.9):
    return np.where(np.eye(2)[answers] > 0, sure, 1 - sure)


@pytest.mark.parametrize(
    ("words", "doubted", "why"),
    [
        (0.5, False, ""),
        (0.5, True, "the model's accuracy there is doubted"),
        (0.95, False, "a model of word counts gives other shares"),
    ],
)
def test_class_shares_are_withheld_where_their_ground_is_doubted(words, doubted, why):
    gold = np.arange(200) % 2
    held_out = np.where(np.arange(200) % 20 < 2, 1 - gold, gold)  # right on 90 %
    rows = (np.arange(400) % 100 < 50).astype(int)
    others = (np.arange(400) % 100 < 100 * words).astype(int)
    views = {
        "source_only": (confident(held_out), confident(rows)),
        "tfidf": (confident(held_out), confident(others)),
    }
    found = _prior(views, gold, ["bad", "good"], 0, doubted=doubted)
    assert found["withheld"].startswith(why)
    assert bool(found["withheld"]) == bool(why)
    assert not (found["withheld"] and found["shifted"])


@pytest.mark.parametrize(
    ("of_a", "high", "said"),
    [
        (0.2, 0.3, "class shares guessed without labels: a 20.0 %"),
        (0.2, 0.9, "cannot be guessed; an interval"),
        (0.0, 0.3, "cannot be guessed; they leave out a"),
    ],
)
def test_class_shares_that_say_nothing_are_called_so(of_a, high, said):
    shares = {
        "a": {"estimate": of_a, "low": min(of_a, 0.1), "high": high},
        "b": {"estimate": 1 - of_a, "low": 1 - high, "high": 1.0},
    }
    target = {"name": "kitchen", "estimates": {}, "prior": {"em": shares, "shifted": False}}
    (line,) = said_without_labels({"source_prior": {"a": 0.5, "b": 0.5}, "targets": [target]}, "dann", "dann")
    assert said in line


@pytest.mark.slow
def test_no_target_label_is_read_for_it(book, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    reveal, score = HiddenLabels.reveal, adaptation.label_free
    purposes: list[str] = []
    inside: list[list[str]] = []

    def watched(*given):
        before = len(purposes)
        found = score(*given)
        inside.append(purposes[before:])
        return found

    monkeypatch.setattr(HiddenLabels, "reveal", lambda self, purpose: purposes.append(purpose) or reveal(self, purpose))
    monkeypatch.setattr(adaptation, "label_free", watched)
    flipped = recipe(tiny_base("bert"))
    for domain in flipped.targets:
        object.__setattr__(domain, "labels", [1 - label for label in domain.labels])
    again = adapt(flipped, out=tmp_path / "book")
    assert again.meta["scores"] == json.loads((book.path / "guidebook.json").read_text())["scores"]
    assert inside == [[]]
    assert set(purposes) == {"final evaluation"}


@pytest.mark.slow
def test_without_held_out_rows_only_what_needs_none_is_there(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    bare = adapt(tiny_recipe(tiny_base("bert"), task={"dev": 0.0}, method="target_mlm"), out=tmp_path / "book")
    kitchen = bare.meta["scores"]["targets"][0]
    assert set(kitchen["validators"]["target_mlm"]) == {
        "entropy",
        "information",
        "nuclear_norm",
        "neighbourhood",
        "ensemble",
    }
    assert kitchen["estimates"] == {}
    assert "prior" not in kitchen
