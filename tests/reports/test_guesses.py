"""What was said without labels, beside the truth."""

from __future__ import annotations

import re
from typing import Any

import pytest

from guidebook.reports.guesses import guess_name, guesses
from guidebook.reports.page import render
from guidebook.reports.summary import percent
from reports.test_reports import Page, sample


def share(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.05, "high": estimate + 0.05}


def guessed(labels: bool = True) -> dict[str, Any]:
    meta = sample()
    arms = ("source_only", "domain_fusion")
    validators = {arm: {"entropy": 0.2 + 0.1 * i, "source_accuracy": 0.9} for i, arm in enumerate(arms)}
    validators["tfidf"] = {"entropy": 0.5}
    meta["scores"] = {
        "source_prior": {"negative": 0.5, "positive": 0.5},
        "targets": [
            {
                "name": "kitchen",
                "validators": validators,
                "picks": {"entropy": "source_only", "source_accuracy": "domain_fusion"},
                "estimates": {"domain_fusion": {"same_as_source": share(0.9), "threshold_confidence": share(0.8)}},
                "prior": {
                    "of": "source_only",
                    "em": {"negative": share(0.7), "positive": share(0.3)},
                    "confusion": {"negative": share(0.6), "positive": share(0.4)},
                    "pulled": {"negative": 0.66, "positive": 0.34},
                    "shifted": True,
                },
            },
            {"name": "hotels", "validators": {}, "picks": {}, "estimates": {}},
        ],
    }
    if not labels:
        meta["evaluation"]["targets"][0]["scores"] = {}
        del meta["evaluation"]["targets"][0]["difference"]
    return meta


def test_estimates_stand_beside_the_truth() -> None:
    meta = guessed()
    (found,) = guesses(meta)  # nothing was said of the other target
    truth = meta["evaluation"]["targets"][0]["scores"]["domain_fusion"]["accuracy"]
    assert [mark.name for mark in found["marks"]] == ["as on the source", "ATC, confidence"]
    assert found["truth"] == truth
    left, right = sorted(mark.at for mark in found["marks"])
    assert (left < found["truth_at"] < right) == (0.8 < truth < 0.9)
    page = Page(render(meta))
    assert "guesses" in page.ids
    assert "The truth is" in page.text
    assert "80.0 75.0 to 85.0" in page.text


def test_validators_say_what_they_take_and_what_it_reaches() -> None:
    meta = guessed()
    (found,) = guesses(meta)
    scores = meta["evaluation"]["targets"][0]["scores"]
    entropy, source = found["validators"].rows
    assert entropy == ("entropy", "0.200", "0.300", "0.500", "source only", percent(scores["source_only"]["accuracy"]))
    assert source[:4] == ("source accuracy", "0.900", "0.900", "")
    assert source[5] == percent(scores["domain_fusion"]["accuracy"])


def test_class_shares_stand_beside_source_and_truth() -> None:
    meta = guessed()
    (found,) = guesses(meta)
    rows = meta["evaluation"]["targets"][0]["scores"]["tfidf"]["per_class"]["negative"]["rows"]
    expected = ("negative", "70.0 (65.0 to 75.0)", "60.0 (55.0 to 65.0)", "66.0", "50.0", percent(rows / 2000))
    assert found["shares"].rows[0] == expected
    assert "They seem to differ" in Page(render(meta)).text


def test_without_labels_there_is_no_truth() -> None:
    meta = guessed(labels=False)
    (found,) = guesses(meta)
    assert found["truth_at"] is None
    assert [row[-1] for row in (*found["validators"].rows, *found["shares"].rows)] == [""] * 4
    html = render(meta)
    assert "The truth is" not in html
    section = html[
        html.index('id="guesses"') : html.index('id="disagreement"') if 'id="disagreement"' in html else None
    ]
    assert not re.search(r'class="zero"', section.partition("</section>")[0])


@pytest.mark.parametrize("nothing", [{}, {"targets": []}])
def test_a_run_that_said_nothing_has_no_section(nothing: Any) -> None:
    meta = {**sample(), "scores": nothing}
    assert guesses(meta) == []
    assert "guesses" not in Page(render(meta)).ids


def test_names() -> None:
    assert guess_name("nuclear_norm") == "BNM"
    assert guess_name("something_new") == "something new"
