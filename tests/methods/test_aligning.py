"""Methods that align domains, mix losses or stack adapters: the traps of each, on a tiny base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook import adaptation
from guidebook.adaptation import adapt, estimate, prepare
from guidebook.errors import InputError, RunError
from guidebook.methods.joint import WEIGHTS
from guidebook.methods.mixed import Mixed
from guidebook.training.listener import Listener
from guidebook.training.model import StageModel
from guidebook.training.run import Run
from tiny import LABELS, TEXTS, tiny_recipe

SOURCE = gb.Domain("books", [f"{text} {number}" for number in range(5) for text in TEXTS], labels=LABELS * 5)
KITCHEN = gb.Domain("kitchen", [f"the {text} {number}" for number in range(7) for text in TEXTS])
HOTELS = gb.Domain("hotels", [f"{text} indeed {number}" for number in range(4) for text in TEXTS])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe_of(base: Path, method: Any, **changes: Any) -> Any:
    settings = {"source": SOURCE, "targets": [KITCHEN, HOTELS], "task": {"dev": 0.0}, **changes}
    return tiny_recipe(base, method=method, **settings)


def stages_of(base: Path, method: Any, **changes: Any) -> tuple[Any, list[Any]]:
    recipe = recipe_of(base, method, **changes)
    material, engine = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], engine.seed, None)
    return engine, list(recipe.method.plan(run))


def built(engine: Any, stage: Any) -> tuple[StageModel, Any]:
    plan = engine.plan(stage)
    engine.clear()
    for name in (*stage.below, *stage.train):
        engine.host.add(name, engine.adapter, 0)
    engine.host.activate((*stage.below, *stage.train), train=tuple(stage.train))
    return StageModel(engine.host, stage, engine.new_heads(stage), plan.steps), plan


@pytest.mark.parametrize("method", ["joint", "udapter_joint", "dann"])
def test_pools_of_unequal_sizes_give_equal_rows_and_neither_repeat_nor_drop_any(method, tiny_base):
    engine, stages = stages_of(tiny_base("bert"), method, train={"task": {"epochs": 4, "rows_per_batch": 4}})
    plan = engine.plan(stages[-1])
    for name, rows in (("pool of source", 40), ("pool of target", 56)):
        drawn = plan.rows[name]
        assert {len(step) for step in drawn} == {32}
        assert all(len(set(step.tolist())) == 32 for step in drawn)
        counts = np.bincount(np.concatenate(drawn), minlength=rows)
        assert counts.max() - counts.min() <= 1


def test_alignment_compares_pool_with_pool_not_labelled_rows(tiny_base):
    more = gb.Domain("more", [f"a book: {text} {number}" for number in range(5) for text in TEXTS])
    for method in ("joint", "udapter_joint", "dann", "udapter_two_step"):
        _, stages = stages_of(tiny_base("bert"), method, unlabelled=more)
        aligning = next(loss for stage in stages for name, loss in stage.losses.items() if name != "task")
        assert aligning.source.domains == ("more",)
        assert aligning.source.labels is None
        assert aligning.target.labels is None


def test_a_joint_stage_is_the_sum_of_its_parts(tiny_base):
    """Against a slow way: pooled layers of two forwards of their own."""
    engine, (stage,) = stages_of(tiny_base("bert"), {"name": "joint", "layers": "top 1"}, task={"dropout": 0.0})
    model, plan = built(engine, stage)
    batch = plan.batch(0)
    out = model(batch)
    pools = []
    for name in ("pool of source", "pool of target"):
        rows = []
        for row in plan.rows[name][0]:
            ids = torch.tensor(plan.streams[name].tokens[int(row)].astype(np.int64))[None]
            states = engine.host.model(input_ids=ids, output_hidden_states=True).hidden_states
            rows.append(states[-1][0].mean(0))
        pools.append(torch.stack(rows))
    both = torch.cat(pools)
    distance = (both[:, None] - both[None]).pow(2).sum(-1)
    kernel = sum(torch.exp(-distance / (2 * factor * distance.mean())) for factor in (0.5, 1.0, 2.0))
    others = ~torch.eye(32, dtype=torch.bool)  # no row is compared with itself
    slow = kernel[:32, :32][others].mean() + kernel[32:, 32:][others].mean() - 2 * kernel[:32, 32:].mean()
    torch.testing.assert_close(out["parts"]["divergence"], slow.detach(), rtol=1e-4, atol=1e-6)
    total = out["parts"]["task"] + WEIGHTS["mmd"] * slow
    torch.testing.assert_close(out["loss"].detach(), total.detach(), rtol=1e-4, atol=1e-6)


def test_udapters_weights_add_up_and_only_the_released_ones_forget_the_divergence(tiny_base):
    for schedule, left in (("paper", 1 - (2 / (1 + math.exp(-0.8)) - 1)), ("as_released", 0.0)):
        _, (stage,) = stages_of(tiny_base("bert"), {"name": "udapter_joint", "schedule": schedule})
        task, divergence = stage.weights["task"], stage.weights["divergence"]
        assert all(task(p / 20) + divergence(p / 20) == pytest.approx(1) for p in range(21))
        assert task(0) == 0
        assert divergence(0.08) == pytest.approx(left, abs=1e-6)


def test_a_divergence_alone_that_collapses_fails_the_run(tiny_base):
    settings = {"name": "udapter_two_step", "least_rank": 15.0}
    with pytest.raises(RunError, match="have collapsed: their effective rank"):
        adapt(recipe_of(tiny_base("bert"), settings))


@pytest.mark.slow
def test_rows_that_became_one_point_beside_the_task_are_told(tiny_base, monkeypatch):
    monkeypatch.setattr(adaptation, "collapse", lambda losses: "one point" if "divergence" in losses else "")
    book = adapt(recipe_of(tiny_base("bert"), "joint"))
    assert book.meta["notes"]["joint for hotels"][0] == "task: one point"
    assert not any(name.startswith("source_only") for name in book.meta["notes"])


@pytest.mark.slow
def test_two_step_stacks_the_task_on_the_frozen_domain_adapter(tiny_base):
    train = {"fuse": {"tokens": 2000, "learning_rate": 1e-2}}
    book = adapt(recipe_of(tiny_base("bert"), "udapter_two_step", targets=[HOTELS], train=train))
    assert book.meta["variants"]["udapter_two_step"]["stack"] == ["domain", "task"]
    align, task = (stage for stage in book.meta["stages"] if stage["arm"] == "udapter_two_step")
    assert (align["train"], task["train"]) == (["domain"], ["task"])
    assert align["steps"] > 1
    assert align["losses"]["divergence/effective_rank"]["last"] > 2
    sizes = {item["name"]: item["megabytes"] for item in book.meta["adapters"] if item["variant"] != "source_only"}
    assert book.meta["size"]["megabytes_per_domain"] == pytest.approx(sizes["domain"] + sizes["task"])


def test_the_order_of_a_stack_is_what_was_declared(tiny_base):
    engine, stages = stages_of(tiny_base("bert"), "udapter_two_step")
    host = engine.host
    built(engine, stages[-1])
    with torch.no_grad():
        for name in ("domain", "task"):
            for key, value in host._parameters(name).items():
                seed = len(key) + (name == "task")
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)) * 0.5)
    layer = next(module for module in host.model.modules() if hasattr(module, "guidebook_bottleneck_down"))
    rows = torch.randn(2, 3, layer.base_layer.in_features)

    def through(name: str, hidden: torch.Tensor) -> torch.Tensor:
        down, up = layer.guidebook_bottleneck_down[name], layer.guidebook_bottleneck_up[name]
        return hidden + up(torch.nn.functional.gelu(down(hidden)))

    slow = through("task", through("domain", layer.base_layer(rows)))
    torch.testing.assert_close(layer(rows), slow)
    host.activate(("task", "domain"))
    assert not torch.allclose(layer(rows), slow)


def test_mixed_reads_source_rows_as_they_are_and_target_rows_masked_in_one_forward(tiny_base):
    engine, (stage,) = stages_of(tiny_base("bert"), "mixed")
    model, plan = built(engine, stage)
    batch = plan.batch(0)
    first, _ = batch["rows"]["source plain 0"]
    for place, row in enumerate(plan.rows["source"][0]):
        ids = plan.streams["source"].tokens[int(row)]
        assert batch["inputs"]["input_ids"][first + place][: len(ids)].tolist() == ids.tolist()
    start, stop = batch["rows"]["text masked 0"]
    width = batch["inputs"]["input_ids"].shape[1]
    assert len(batch["positions"]) > 0
    assert all(start * width <= position < stop * width for position in batch["positions"].tolist())
    calls = []
    engine.host.model.register_forward_pre_hook(lambda *_: calls.append(1))
    out = model(batch)
    assert len(calls) == 1
    weight = 40 / (40 + 56)
    total = weight * out["parts"]["task"] + (1 - weight) * out["parts"]["lm"]
    torch.testing.assert_close(out["loss"].detach(), total)


@pytest.mark.slow
def test_mixed_after_fusion_starts_from_the_adapter_that_domain_fusion_made(tiny_base):
    fusion = adapt(recipe_of(tiny_base("bert"), "domain_fusion"))
    book = adapt(recipe_of(tiny_base("bert"), {"name": "mixed", "start": "fusion"}))
    own = [stage for stage in book.meta["stages"] if stage["arm"] == "mixed"]
    assert own[0]["key"] in {stage["key"] for stage in fusion.meta["stages"]}
    assert own[0]["cached"]
    assert own[1]["starts_from"] == {"task": "domain"}
    assert set(own[1]["gradient_shares"]) == {"task", "lm"}
    assert len(own) == 3  # one fusion, one mixed stage per target
    with pytest.raises(InputError, match="task_weight is 1, expected more than 0 and less than 1"):
        Mixed(task_weight=1)


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["all", "all but last"])
def test_madx_trains_the_task_once_and_exchanges_the_domain_adapter(layers, tiny_base):
    adapter = {"kind": "houlsby", "reduction": 4, "layers": layers}
    book = adapt(recipe_of(tiny_base("bert"), "madx", adapter=adapter))
    names = [stage["name"] for stage in book.meta["stages"] if stage["arm"] == "madx"]
    assert sorted(names) == ["read_source", "read_target", "read_target", "task"]
    stacks = {name: book.meta["variants"][f"madx:{name}"]["stack"] for name in ("kitchen", "hotels")}
    assert stacks == {name: [f"target_domain-{name}", f"task-{name}"] for name in stacks}
    kitchen, hotels = (book.predict_proba(TEXTS, domain=name) for name in ("kitchen", "hotels"))
    assert not np.allclose(kitchen, hotels)
    file = "adapters/{}/adapter_model.safetensors"
    same = [(book.path / file.format(f"task-{name}")).read_bytes() for name in ("kitchen", "hotels")]
    assert same[0] == same[1]
    domains = [(book.path / file.format(f"target_domain-{name}")).read_bytes() for name in ("kitchen", "hotels")]
    assert domains[0] != domains[1]
    again = gb.load(book.path)
    assert np.array_equal(again.predict_proba(TEXTS, domain="kitchen"), kitchen)
    planned = [stage["name"] for stage in estimate(recipe_of(tiny_base("bert"), "madx", adapter=adapter))["stages"]]
    assert sorted(planned) == sorted([*names, "task"])  # the twin's task stage too; putting together takes no time


@pytest.mark.parametrize("method", ["madx", "udapter_two_step"])
def test_what_stacks_refuses_whole_models_before_anything_is_trained(method, tiny_base, cache):
    with pytest.raises(InputError, match=r"stacks adapters \(.*domain, task\), and kind full is a whole model"):
        adapt(recipe_of(tiny_base("bert"), method, adapter="full"))
    assert not list(cache.glob("*/stage.json"))


@pytest.mark.parametrize("method", ["joint", "dann", "udapter_joint", "udapter_two_step"])
def test_too_little_text_is_refused_before_anything_is_trained(method, tiny_base, cache):
    few = gb.Domain("kitchen", TEXTS)
    with pytest.raises(InputError, match=r"The pool of target \(kitchen\) has 8 texts"):
        adapt(recipe_of(tiny_base("bert"), method, targets=[few]))
    assert not list(cache.glob("*/stage.json"))


@pytest.mark.parametrize("method", ["joint", "dann"])
def test_what_is_decided_by_all_rows_of_a_step_is_not_cut_into_parts(method, tiny_base):
    """A divergence of half the rows is another number, and half the rows may deceive the critic while all do not."""
    with pytest.raises(InputError, match=r"train\.micro_batches cuts the 32 rows"):
        estimate(recipe_of(tiny_base("bert"), method, train={"micro_batches": 2}))


def test_methods_that_align_say_that_they_assume_equal_priors():
    from importlib import import_module

    from guidebook.methods import METHODS

    assuming = set()
    for name, place in METHODS.items():
        module, _, kind = place.partition(":")
        if getattr(getattr(import_module(module), kind), "assumes_equal_priors", False):
            assuming.add(name)
    assert {"joint", "dann", "udapter_two_step", "udapter_joint"} <= assuming
    assert not {"source_only", "domain_fusion", "target_mlm", "mixed", "madx"} & assuming


def test_every_divergence_has_a_weight_beside_the_cross_entropy():
    from guidebook.losses.divergences import DIVERGENCES

    assert WEIGHTS.keys() == DIVERGENCES.keys()
    assert all(weight > 0 and math.isfinite(weight) for weight in WEIGHTS.values())


@pytest.mark.parametrize("layers", ["top 9", "nothing"])
def test_layers_that_the_base_does_not_have_are_refused(layers, tiny_base):
    with pytest.raises(InputError, match="the divergence's layers is"):
        estimate(recipe_of(tiny_base("bert"), {"name": "joint", "layers": layers}))


@pytest.mark.parametrize("method", ["joint", "dann"])
def test_methods_that_compare_rows_can_stop_early_with_few_of_them(method, tiny_base):
    """Only the task's loss is measured: the held-out rows need not be as many as a step compares."""
    train = {"task": {"epochs": 2, "rows_per_batch": 6, "learning_rate": 1e-2, "patience": 1}}
    engine, stages = stages_of(tiny_base("bert"), method, train=train)
    trained = engine.train_or_reuse(stages[-1], {})
    assert trained.figures["held_out_losses"]
    few = {**train, "task": {**train["task"], "held_out": 0.3}}
    with pytest.raises(InputError, match=r"leaves 28 of the 40 rows of 'pool of source' .* reads 32 .*Lower held_out"):
        estimate(recipe_of(tiny_base("bert"), method, train=few, unlabelled=()))  # the source's rows are its pool


def test_a_stage_that_only_compares_rows_says_that_it_needs_as_many_held_out(tiny_base):
    with pytest.raises(InputError, match=r"holds 2 of the 40 rows of 'pool of source' out, .* compares 32 .*patience"):
        estimate(recipe_of(tiny_base("bert"), "udapter_two_step", train={"fuse": {"tokens": 2500, "patience": 1}}))
