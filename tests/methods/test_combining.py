"""Stages that add adapters: planned, keyed, stored, announced and refused like any other."""

from __future__ import annotations

import dataclasses
import json

import pytest

import guidebook as gb
from guidebook.adaptation import adapt, estimate, follow, prepare
from guidebook.data.similarity import text_similarity
from guidebook.errors import InputError
from guidebook.methods.stage import Stage
from guidebook.training.combination import lineage_of
from guidebook.training.listener import Listener
from tiny import LABELS, TEXTS, tiny_recipe


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_a_dry_run_announces_the_sum_and_the_run_does_it(tiny_base, cache) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method="soup")
    plan = estimate(recipe)
    assert not list(cache.glob("*/stage.json"))
    book = adapt(recipe)
    for key in ("arm", "name", "targets", "tokens", "steps"):
        assert [stage[key] for stage in plan["stages"]] == [stage[key] for stage in book.meta["stages"]]
    sums = [stage for stage in book.meta["stages"] if stage["name"] == "soup"]
    assert len(sums) == 2  # one per target: its own weights
    assert all(sum(stage["combines"]["domain"].values()) == pytest.approx(1) for stage in sums)
    assert all(stage["cached"] for stage in estimate(recipe)["stages"])
    assert "soup for kitchen" in book.meta["notes"]


@pytest.mark.slow
def test_weights_are_in_the_key(tiny_base, cache) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method="task_arithmetic")
    material, engine = prepare(recipe, Listener())
    outcome = follow("a", recipe.method, material.corpus.targets[0], material, engine)
    made = {name: trained for trained in outcome.stages for name in trained.stage.makes}
    stages = [Stage("s", {}, {}, combine={"adapted": {"task": 1 - w, "target_domain": w}}) for w in (0.1, 0.2)]
    assert len({engine.key(stage, made) for stage in stages}) == 2


def test_adapters_that_were_initialised_apart_are_refused_before_training(tiny_base, cache) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method="task_arithmetic")
    material, engine = prepare(recipe, Listener())
    outcome = follow("a", recipe.method, material.corpus.targets[0], material, engine)
    made = {name: trained for trained in outcome.stages for name in trained.stage.makes}
    together = Stage("s", {}, {}, combine={"adapted": {"task": 0.5, "target_domain": 0.5}})
    assert engine.planned(together, made).lineage["adapted"]
    stranger = dataclasses.replace(made["task"], lineage={"task": ("another seed", made["task"].key)})
    with pytest.raises(InputError, match="no common ancestor"):
        engine.planned(together, {**made, "task": stranger})
    with pytest.raises(InputError, match="expected 1"):
        engine.planned(Stage("s", {}, {}, combine={"adapted": {"task": 1.0, "target_domain": 1.0}}), made)


def test_a_copy_descends_from_what_it_copies_and_a_sum_from_what_its_parts_share() -> None:
    first = Stage("a", {}, {"domain": None})
    one = lineage_of(first, {}, "key a", "root")
    assert one == {"domain": ("root", "key a")}


@pytest.mark.slow
def test_a_second_soup_descends_from_the_first(tiny_base, cache) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method="soup")
    material, engine = prepare(recipe, Listener())
    outcome = follow("soup", recipe.method, material.corpus.targets[0], material, engine)
    soup, task = outcome.stages[-2:]
    assert task.stage.train == {"task": "domain"}
    assert task.lineage["task"] == (*soup.lineage["domain"], task.key)
    assert len(soup.lineage["domain"]) == 2  # the common initialisation, then the sum


@pytest.mark.slow
def test_sources_are_averaged_with_their_heads(tiny_base, cache) -> None:
    sources = [
        gb.Domain(name, [f"{t} {name} {n}" for n in range(2) for t in TEXTS], labels=LABELS * 2) for name in "ab"
    ]
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "soup", "of": "sources"}, source=sources)
    book = adapt(recipe)
    assert book.predict_proba(TEXTS, domain="kitchen").shape == (8, 2)
    alone = tiny_recipe(tiny_base("bert"), method={"name": "soup", "of": "sources"})
    with pytest.raises(InputError, match="there is one source"):
        estimate(alone)


@pytest.mark.parametrize("kind", ["dora", "compacter"])
def test_kinds_without_a_sum(kind, tiny_base, cache) -> None:
    with pytest.raises(InputError, match="have no sum"):
        adapt(tiny_recipe(tiny_base("bert"), method="task_arithmetic", adapter=kind))
    assert not list(cache.glob("*/stage.json")), "refused before any training"


def test_likeness_is_of_words() -> None:
    found = text_similarity(
        {"same": ["a pan", "a pot"], "near": ["a pan", "a novel"], "far": ["my novel"]}, ["a pan", "a pot"]
    )
    assert found["same"] == pytest.approx(1)
    assert found["same"] > found["near"] > found["far"]


@pytest.mark.slow
def test_a_combining_stage_leaves_plain_figures(tiny_base, cache) -> None:
    book = adapt(tiny_recipe(tiny_base("bert"), method="task_arithmetic"))
    (total,) = {
        stage["key"] for stage in book.meta["stages"] if stage["name"] == "sum" and "kitchen" in stage["targets"]
    }
    figures = json.loads((cache / total / "stage.json").read_text())
    assert figures["tokens"] == figures["steps"] == 0
    assert figures["trainable_parameters"] > 0
