"""Co-training: two views of the target's rows are multiplied, drawn to the source's shares, and learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import guidebook as gb
from guidebook.adaptation import estimate, follow, prepare
from guidebook.errors import InputError
from guidebook.evaluation.prior import calibrate, em_prior
from guidebook.methods import co_training
from guidebook.methods.co_training import CoTraining, Words, multiplied
from guidebook.recipe import Recipe
from guidebook.training.listener import Listener
from guidebook.training.run import Run
from tiny import tiny_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))


def views(rows: int = 60, classes: int = 3) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=rows)

    def view(noise: float) -> tuple[np.ndarray, np.ndarray]:
        logits = np.eye(classes)[labels] + random.normal(0, noise, (rows, classes))
        on_labelled = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return on_labelled, random.dirichlet(np.ones(classes), rows // 2)

    return [view(0.5), view(1.0)], labels


def test_the_product_is_a_slow_loop() -> None:
    both, labels = views()
    fits = [calibrate(on_labelled, labels) for on_labelled, _ in both]

    def slow(part: int) -> np.ndarray:
        found = []
        for row in range(len(both[0][part])):
            chances = [
                float(np.prod([max(fit(v[part])[row, c], 1e-6) for fit, v in zip(fits, both, strict=True)]))
                for c in range(3)
            ]
            found.append([chance / sum(chances) for chance in chances])
        return np.array(found)

    expected = calibrate(slow(0), labels)(slow(1))
    assert multiplied(both, labels) == pytest.approx(expected, abs=1e-9)


def test_rows_without_a_label_calibrate_nothing() -> None:
    both, labels = views()
    some = np.where(np.arange(len(labels)) % 4 == 0, -1, labels)
    kept = some >= 0
    expected = multiplied([(on_labelled[kept], rows) for on_labelled, rows in both], labels[kept])
    assert multiplied(both, some) == pytest.approx(expected, abs=1e-12)


def test_a_view_that_knows_nothing_changes_nothing() -> None:
    both, labels = views()
    blind = np.full((len(labels), 3), 1 / 3), np.full((len(both[0][1]), 3), 1 / 3)
    assert multiplied([both[0], blind], labels).argmax(1) == pytest.approx(multiplied([both[0]], labels).argmax(1))


def test_words_of_the_target_alone_get_their_weight_from_rows_in_which_others_tell() -> None:
    source = ["a gripping plot", "a dull plot"] * 10
    pool = ["gripping and crisp", "dull and soggy"] * 60
    words = Words(source, np.array([1, 0] * 10), pool, 2)
    unseen = ["crisp", "soggy"]
    before = words.said_of(unseen)
    assert before[0] == pytest.approx(before[1])
    words.learn(words.said_of())
    assert words.said_of(unseen).argmax(1).tolist() == [1, 0]
    assert words.said_of(unseen)[0, 1] > 0.6


def test_a_row_that_is_undecided_teaches_nothing() -> None:
    source, labels = ["good thing", "bad thing"] * 5, np.array([1, 0] * 5)
    pool = ["good again", "odd again", "odd yet"]
    told = []
    for odd in (0.5, 0.5 + 1e-12):  # the class of an undecided row is a matter of rounding
        words = Words(source, labels, pool, 2)
        words.learn(np.array([[0.1, 0.9], [1 - odd, odd], [odd, 1 - odd]]))
        told.append(words.said_of(["odd"]))
    assert told[0] == pytest.approx(told[1], abs=1e-6)


def test_a_class_without_a_labelled_row_and_rows_without_a_label() -> None:
    words = Words(["good", "bad", "what"], np.array([2, 0, -1]), ["good", "bad"], 3)
    assert words.said_of(["good", "bad"])[:, 1].tolist() == [0.0, 0.0]
    words.learn(words.said_of())
    assert words.said_of().sum(1) == pytest.approx(1.0)


@pytest.mark.parametrize("dev", [0.0, 0.25])
def test_calibrating_on_rows_that_were_trained_on_is_said_once(dev, tiny_base) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method="co_training", task={"dev": dev})
    material, _ = prepare(recipe, Listener())
    said: list[str] = []

    class Says:
        def note(self, text: str) -> None:
            said.append(text)

        def latest(self, rows: Any) -> np.ndarray:
            return np.full((rows.items, 2), 0.5)

    run = Run(material, material.corpus.targets[0], 0, Says())
    for _ in range(2):
        found, labels = run.predicted_source()
        assert len(found) == len(labels) == (24 if dev == 0 else 6)
    assert len(said) == (dev == 0)
    assert all("calibrated on rows that were trained on" in text for text in said)


@pytest.mark.parametrize("pull", [0.0, 3.0, 1e6])
def test_labels_have_shares_between_what_em_says_and_the_sources(pull, tiny_base, monkeypatch) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "co_training", "pull": pull, "rounds": 1})
    material, _ = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], 0, None)
    random = np.random.default_rng(0)
    held_out, labels = random.dirichlet([1, 1], 40), np.array([0, 1] * 20)
    pool = random.dirichlet([1, 3], 30)
    monkeypatch.setattr(Run, "predicted_source", lambda self: (held_out, labels))
    monkeypatch.setattr(Run, "predicted", lambda self: pool)
    monkeypatch.setattr(Run, "held_out_texts", lambda self: ["x"] * 40)

    class Blind:
        def said_of(self, texts: Any = None) -> np.ndarray:
            return np.full((30 if texts is None else len(texts), 2), 0.5)

    agreed, shares = recipe.method._agreed(run, Blind(), None)
    said = multiplied([(held_out, pool), (np.full((40, 2), 0.5), np.full((30, 2), 0.5))], labels)
    assert shares == pytest.approx(em_prior(said, np.array([0.5, 0.5]), pull=pull))
    assert agreed.mean(0) == pytest.approx(shares, abs=1e-3)
    assert (agreed[:, 1].argsort() == said[:, 1].argsort()).all()
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Run, "note", lambda self, text: said.append(text))
        patch.setattr(Run, "predicted_source", lambda self: (held_out, np.zeros(40, np.int64)))
        told, _ = recipe.method._agreed(run, Blind(), None)
    assert told is pool
    assert len(said) == 1
    assert "no held-out source row of 1" in said[0]
    assert "nothing is calibrated" in said[0]
    told, shares = recipe.method._agreed(run, Blind(), np.array([0.15, 0.85]))
    assert shares.tolist() == [0.15, 0.85]
    assert told.mean(0) == pytest.approx(shares, abs=1e-3)


@pytest.mark.slow
def test_every_round_starts_anew_beside_the_source_and_the_last_is_kept(tiny_base) -> None:
    method = {"name": "co_training", "rounds": 2, "share": 1.0, "start": "domain_fusion"}
    recipe = tiny_recipe(tiny_base("bert"), method=method)
    material, engine = prepare(recipe, Listener())
    outcome = follow("co_training", recipe.method, material.corpus.targets[0], material, engine)
    assert [stage.stage.name for stage in outcome.stages] == ["fuse", "task", "round1", "round2"]
    for trained in outcome.stages[2:]:
        assert trained.stage.train == {"task": "domain"}
        assert list(trained.stage.losses) == ["task", "agreed"]
    assert len(outcome.notes) == 2
    assert "round 2: class shares of the labels" in outcome.notes[1]


def test_agreed_labels_are_in_the_key_of_the_round(tiny_base, monkeypatch) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "co_training", "rounds": 1, "share": 1.0})
    material, engine = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], 0, None)
    keys = set()
    for answer in ([0, 1] * 3, [1, 0] * 3):
        said = np.eye(2)[answer], np.array([0.5, 0.5])
        monkeypatch.setattr(CoTraining, "_agreed", lambda *_, said=said: said)
        keys.add(engine.key(list(recipe.method.plan(run))[-1], {}))
    assert len(keys) == 2


def test_planning_counts_no_words(tiny_base, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("words were counted while planning")

    monkeypatch.setattr(co_training, "Words", refuse)
    recipe = tiny_recipe(tiny_base("bert"), method="co_training")
    material, _ = prepare(recipe, Listener())
    stages = list(recipe.method.plan(Run(material, material.corpus.targets[0], 0, None)))
    assert [stage.name for stage in stages] == ["task", "round1", "round2"]


@pytest.mark.parametrize(("rows", "share"), [(1, 0.5), (2, 0.1), (3, 0.05)])
def test_too_few_rows_to_learn_from_are_refused_before_training(rows, share, tiny_base) -> None:
    target = [gb.Domain("kitchen", [f"a pan {number}" for number in range(rows)])]
    with pytest.raises(InputError, match=f"a share of {share} of {rows} is less than one row"):
        estimate(tiny_recipe(tiny_base("bert"), targets=target, method={"name": "co_training", "share": share}))


def test_it_says_that_it_assumes_the_sources_shares() -> None:
    method = Recipe(source="a.csv", targets=["b.csv"], method="co_training").method
    assert method.assumes_equal_priors
    assert not CoTraining(shares={"0": 0.2, "1": 0.8}).assumes_equal_priors


@pytest.mark.parametrize("wrong", [{"0": 1.0}, {"0": 0.5, "2": 0.5}, {"0": 0.5, "1": 0.6}, {"0": 0.0, "1": 1.0}])
def test_shares_that_are_none_are_refused_before_any_training(wrong, tiny_base) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "co_training", "shares": wrong})
    with pytest.raises(InputError, match="expected a share above 0 for each of 0, 1"):
        estimate(recipe)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"share": 0.0}, {"pull": -1.0}, {"weight": 0.0}])
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(InputError, match="expected 1 round or more"):
        CoTraining(**wrong)
