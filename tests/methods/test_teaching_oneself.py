"""Methods that learn from their own predictions: what they trust, under which class shares, and what they warn of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.adaptation import adapt, follow, prepare
from guidebook.errors import InputError
from guidebook.label_free import broken_assumptions
from guidebook.methods.mean_teacher import ramp_up
from guidebook.methods.priors import balanced_choice, estimated_prior, tilt_towards
from guidebook.methods.self_training import SelfTraining
from guidebook.recipe import Recipe
from guidebook.training.listener import Listener
from guidebook.training.run import Run
from tiny import TEXTS, tiny_recipe


def shifted(rows: int, share: float, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """A run whose model is right in 80 % and calibrated, source half and half, target with another share of class 1."""
    random = np.random.default_rng(seed)

    def draw(part: float) -> tuple[np.ndarray, np.ndarray]:
        labels = (random.random(rows) < part).astype(np.int64)
        logits = random.normal(np.where(labels == 1, 0.85, -0.85), 1.0) * 1.7  # log-odds of two unit normals
        return np.stack([1 / (1 + np.exp(logits)), 1 / (1 + np.exp(-logits))], 1), labels

    source, gold = draw(0.5)
    target, truth = draw(share)
    run = SimpleNamespace(
        planned=False,
        classes=2,
        predicted=lambda: target,
        predicted_source=lambda: (source, gold),
        note=print,
    )
    return run, target, truth


def test_the_choice_is_a_slow_loop() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 40)
    prior = np.array([0.5, 0.3, 0.2])
    rows, labels = balanced_choice(probabilities, prior, 0.5, 0.6)
    slow = []
    for label in range(3):
        mine = [row for row in range(40) if probabilities[row].argmax() == label and probabilities[row].max() >= 0.6]
        mine.sort(key=lambda row: -probabilities[row].max())
        slow += mine[: round(0.5 * prior[label] * 40)]
    assert rows.tolist() == sorted(slow)
    assert all(probabilities[row].argmax() == label for row, label in zip(rows, labels, strict=True))


def test_on_a_target_of_85_to_15_the_trusted_rows_have_nearly_those_shares_and_not_the_sources() -> None:
    run, target, truth = shifted(4000, 0.85)
    source, estimate, pool = estimated_prior(run)
    assert source == pytest.approx([0.5, 0.5], abs=0.02)
    assert 0.75 < estimate[1] < 0.85  # drawn to the source's
    assert target.mean(0)[1] < 0.75  # what is seen before the correction is not the share
    rows, labels = balanced_choice(pool, estimate, 0.5, 0.5)
    assert labels.mean() == pytest.approx(estimate[1], abs=0.02)
    equal_rows, equal = balanced_choice(pool, source, 0.5, 0.5)
    wrong, right = (labels != truth[rows]).mean(), (equal != truth[equal_rows]).mean()
    assert right > wrong + 0.05  # equal shares trust rows of the rare class that are not of it


def test_where_shares_are_the_sources_the_estimate_says_so() -> None:
    run, _, _ = shifted(4000, 0.5)
    _, estimate, _ = estimated_prior(run)
    assert estimate[1] == pytest.approx(0.5, abs=0.04)


def test_a_class_without_a_held_out_row_is_said() -> None:
    run, target, _ = shifted(60, 0.85)
    said: list[str] = []
    held, _ = run.predicted_source()
    run.predicted_source = lambda: (held, np.ones(len(held), np.int64))
    run.labels, run.note = ["bad", "good"], said.append
    source, estimate, pool = estimated_prior(run)
    assert source.tolist() == estimate.tolist() == [0, 1]
    assert pool is target
    (note,) = said
    assert "no held-out source row of bad" in note
    assert "nothing is calibrated" in note


def test_a_tilt_gives_the_mean_the_estimated_shares() -> None:
    _, target, _ = shifted(500, 0.85)
    tilted = target * tilt_towards(target, np.array([0.2, 0.8]))
    assert (tilted / tilted.sum(1, keepdims=True)).mean(0) == pytest.approx([0.2, 0.8], abs=1e-3)


def test_the_ramp_is_the_papers() -> None:
    assert ramp_up(0.0, 0.5) == pytest.approx(np.exp(-5))
    assert ramp_up(0.25, 0.5) == pytest.approx(np.exp(-5 * 0.25))
    assert ramp_up(0.5, 0.5) == ramp_up(0.9, 0.5) == 1.0


@pytest.mark.parametrize(("balance", "assumes"), [("estimated", False), ("source", True), ("equal", True)])
def test_balancing_by_anything_but_the_estimate_is_an_assumption(balance: Any, assumes: bool) -> None:
    assert SelfTraining(balance=balance).assumes_equal_priors == assumes


def test_a_broken_assumption_is_told_and_an_unbroken_one_is_not() -> None:
    def scores(is_shifted: bool) -> dict[str, Any]:
        prior = {"shifted": is_shifted, "em": {"0": {"estimate": 0.15}, "1": {"estimate": 0.85}}}
        return {"source_prior": {"0": 0.5, "1": 0.5}, "targets": [{"name": "kitchen", "prior": prior}]}

    for name in ("joint", "dann", "udapter_joint", "udapter_two_step", "co_training"):
        method = Recipe(source="a.csv", targets=["b.csv"], method=name).method
        assert "1 0.85" in broken_assumptions(method, scores(True))["kitchen"][0]
        assert broken_assumptions(method, scores(False)) == {}
    for name in ("mean_teacher", "self_training", "ssd", "mixed"):
        method = Recipe(source="a.csv", targets=["b.csv"], method=name).method
        assert broken_assumptions(method, scores(True)) == {}


@pytest.mark.slow
def test_every_round_trusts_more_rows_and_starts_from_the_same_adapter(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    method = {"name": "self_training", "rounds": 2, "share": 1.0, "threshold": 0.0, "start": "domain_fusion"}
    recipe = tiny_recipe(tiny_base("bert"), method=method)
    material, engine = prepare(recipe, Listener())
    outcome = follow("self_training", recipe.method, material.corpus.targets[0], material, engine)
    assert [stage.stage.name for stage in outcome.stages][:2] == ["fuse", "task"]
    assert len(outcome.notes) == 2
    for number, trained in enumerate(outcome.stages[2:], 1):
        assert trained.stage.train == {"task": "domain"}
        pseudo: Any = trained.stage.losses["pseudo"]
        assert len(pseudo.stream.tokens) <= round(6 * number / 2) + 1
        assert set(pseudo.stream.labels.tolist()) <= {0, 1}


def test_pseudo_labels_are_in_the_key_of_the_round(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = tiny_recipe(
        tiny_base("bert"), method={"name": "self_training", "threshold": 0.0, "share": 1.0, "rounds": 1}
    )
    material, engine = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], 0, None)
    keys = set()
    for answer in ([0, 1] * 3, [1, 0] * 3):
        monkeypatch.setattr(Run, "predicted", lambda self, answer=answer: np.eye(2)[answer])
        keys.add(engine.key(list(recipe.method.plan(run))[-1], {}))
    assert len(keys) == 2


def test_no_round_without_a_row_to_trust(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "self_training", "threshold": 1.0})
    material, engine = prepare(recipe, Listener())
    outcome = follow("self_training", recipe.method, material.corpus.targets[0], material, engine)
    assert [stage.stage.name for stage in outcome.stages] == ["task"]
    assert "trusts 0 of 6 rows" in outcome.notes[0]


def test_ssd_is_for_bases_that_mask(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="does not mask single tokens"):
        adapt(tiny_recipe(tiny_base("gpt2"), method="ssd"))
    assert not list(tmp_path.glob("*/stage.json"))


@pytest.mark.parametrize("method", ["mean_teacher", "co_training", "self_training"])
def test_decoders_learn_by_dropout_alone(method, tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = tiny_recipe(tiny_base("gpt2"), method=method)
    material, _ = prepare(recipe, Listener())
    last = list(recipe.method.plan(Run(material, material.corpus.targets[0], 0, None)))[-1]
    hows = {read.how for loss in last.losses.values() for read in loss.reads}
    assert "masked" not in hows
    assert ("teacher" in hows) == (method == "mean_teacher")


def test_the_teacher_reads_whole_texts_and_one_masked_view_serves_both_losses(tiny_base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "ssd", "lm_weight": 0.2})
    material, engine = prepare(recipe, Listener())
    *_, last = recipe.method.plan(Run(material, material.corpus.targets[0], 0, None))
    plan = engine.plan(last)
    assert set(plan.views) == {"source plain 0", "pool of target masked 0", "pool of target teacher 0"}
    batch = plan.batch(0)
    start, stop = batch["teacher"]["rows"]["pool of target teacher 0"]
    ids = batch["teacher"]["inputs"]["input_ids"][start:stop]
    assert not (ids == material.specials.mask).any()
    first, end = batch["rows"]["pool of target masked 0"]
    assert end - first == stop - start
    assert (batch["inputs"]["input_ids"][first:end] == material.specials.mask).any()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["self_training", "mean_teacher", "ssd", "co_training", "mixed", "joint", "dann"])
def test_methods_run_on_a_target_of_85_to_15(method, tiny_base, tmp_path, monkeypatch) -> None:
    """What a run says of the class shares stands in the artifact, whichever way the tiny model guesses."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    texts = [f"{TEXTS[row % 2]} {row}" for row in range(40)]
    target = gb.Domain("kitchen", [texts[2 * (row % 20) + (row >= 34)] for row in range(40)], labels=[1] * 34 + [0] * 6)
    source = gb.Domain(
        "books", [f"{text} {row}" for row in range(6) for text in TEXTS], labels=[1, 0, 1, 0, 0, 1, 0, 1] * 6
    )
    pool = gb.Domain("more", [f"{text} or so {row}" for row in range(5) for text in TEXTS])
    recipe = tiny_recipe(tiny_base("bert"), method=method, source=source, targets=[target], unlabelled=[pool])
    book = adapt(recipe)
    prior = book.meta["scores"]["targets"][0]["prior"]
    assumes = getattr(recipe.method, "assumes_equal_priors", False)
    said = [note for notes in book.meta["notes"].values() for note in notes if "assumes that the classes" in note]
    assert bool(said) == bool(assumes and prior["shifted"])
    assert torch.isfinite(torch.tensor(book.meta["evaluation"]["targets"][0]["scores"][method]["accuracy"]))
