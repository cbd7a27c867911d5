"""What the keys of a method's stages share between methods and targets, and how a critic learns; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_aligning import HOTELS, built, recipe_of, stages_of

import guidebook as gb
from guidebook.adaptation import adapt, prepare
from guidebook.losses.schedules import ramp
from guidebook.training.engine import Trained
from guidebook.training.listener import Listener
from guidebook.training.run import Run
from guidebook.training.trainer import StageTrainer, training_arguments
from tiny import TEXTS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keys_of(base: Path, method: Any, target: int = 0, **changes: Any) -> dict[str, str]:
    """Stage -> key, without training anything: a stage knows others by their keys alone."""
    recipe = recipe_of(base, method, **changes)
    material, engine = prepare(recipe, Listener())
    found: dict[str, str] = {}
    made: dict[str, Trained] = {}
    for stage in recipe.method.plan(Run(material, material.corpus.targets[target], engine.seed, None)):
        found[stage.name] = engine.key(stage, made)
        made |= dict.fromkeys(stage.train, Trained(found[stage.name], Path(), stage, (), {}, {}, cached=False))
    return found


def test_mixed_after_fusion_starts_from_the_very_stage_of_domain_fusion(tiny_base: Callable[[str], Path]) -> None:
    fusion = keys_of(tiny_base("bert"), "domain_fusion")
    mixed = keys_of(tiny_base("bert"), {"name": "mixed", "start": "fusion"})
    assert mixed["fuse"] == fusion["fuse"]
    assert mixed["task"] != fusion["task"]
    assert list(keys_of(tiny_base("bert"), "mixed")) == ["task"]
    hotels = keys_of(tiny_base("bert"), {"name": "mixed", "start": "fusion"}, target=1)
    assert hotels["fuse"] == mixed["fuse"]
    assert hotels["task"] != mixed["task"]  # it reads the target


def test_madx_has_no_target_in_the_key_of_its_task(tiny_base: Callable[[str], Path]) -> None:
    kitchen, hotels = (keys_of(tiny_base("bert"), "madx", target) for target in (0, 1))
    other = gb.Domain("kitchen", [f"{text} elsewhere" for text in TEXTS])
    changed = keys_of(tiny_base("bert"), "madx", targets=[other])
    for keys in (hotels, changed):
        assert keys["read_source"] == kitchen["read_source"]
        assert keys["task"] == kitchen["task"]
        assert keys["read_target"] != kitchen["read_target"]
        assert keys["exchange"] != kitchen["exchange"]


def test_madx_reads_the_source_in_the_key_of_its_task(tiny_base: Callable[[str], Path]) -> None:
    """The task adapter stands on the source's domain adapter: another one below is another task adapter."""
    plain = keys_of(tiny_base("bert"), "madx")
    longer = keys_of(tiny_base("bert"), "madx", train={"fuse": {"tokens": 400, "learning_rate": 1e-2}})
    assert plain["read_source"] != longer["read_source"]
    assert plain["task"] != longer["task"]


@pytest.mark.parametrize(
    "pair",
    [
        ("udapter_joint", {"name": "udapter_joint", "schedule": "as_released"}),
        ("joint", {"name": "joint", "weight": 0.5}),
        ("joint", {"name": "joint", "divergence": "energy", "weight": 1.0}),
        ("joint", {"name": "joint", "layers": "all"}),
        ("dann", {"name": "dann", "gamma": 5.0}),
        ("dann", {"name": "dann", "critic_rate": 1.0}),
        ("mixed", {"name": "mixed", "task_weight": 0.9}),
    ],
)
def test_a_hyper_parameter_of_a_method_makes_another_stage(pair: Any, tiny_base: Callable[[str], Path]) -> None:
    one, two = (keys_of(tiny_base("bert"), method) for method in pair)
    assert one["task"] != two["task"]


def test_two_steps_key_of_the_task_holds_the_aligned_adapter(tiny_base: Callable[[str], Path]) -> None:
    kitchen, hotels = (keys_of(tiny_base("bert"), "udapter_two_step", target) for target in (0, 1))
    assert kitchen["align"] != hotels["align"]
    assert kitchen["task"] != hotels["task"]


def test_only_the_task_adapter_of_two_steps_has_a_gradient(tiny_base: Callable[[str], Path]) -> None:
    engine, stages = stages_of(tiny_base("bert"), "udapter_two_step")
    model, plan = built(engine, stages[-1])
    model(plan.batch(0))["loss"].backward()
    own = engine.host._parameters("domain")
    assert own
    assert not any(value.requires_grad or value.grad is not None for value in own.values())
    assert all(value.grad is not None for value in engine.host._parameters("task").values())


@pytest.mark.parametrize("rate", [1.0, 25.0])
def test_the_critic_has_a_learning_rate_group_of_its_own(rate: float, tiny_base: Callable[[str], Path]) -> None:
    engine, (stage,) = stages_of(tiny_base("bert"), {"name": "dann", "critic_rate": rate})
    model, plan = built(engine, stage)
    settings = engine.train.task
    folder = engine.store.work("critic")
    arguments = training_arguments(folder, engine.train, settings, steps=plan.steps, rate=2e-3, extra={})
    optimiser = StageTrainer(model, arguments, plan, Listener()).create_optimizer()
    critic = {id(value) for value in model.heads["critic"].parameters()}
    found = {id(value): group["lr"] for group in optimiser.param_groups for value in group["params"]}
    assert [found[key] for key in critic] == pytest.approx([2e-3 * rate] * len(critic))
    assert len(critic) == 4  # two layers
    assert {lr for key, lr in found.items() if key not in critic} == {2e-3}
    assert found.keys() == {id(value) for value in model.trainable().values()}


@pytest.mark.parametrize("epochs", [2, 6])
def test_the_reversal_grows_with_the_share_of_steps_whatever_their_number(
    epochs: int, tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"task": {"epochs": epochs, "rows_per_batch": 4}}
    engine, (stage,) = stages_of(tiny_base("bert"), {"name": "dann", "gamma": 4.0}, train=train)
    model, plan = built(engine, stage)
    seen: list[float] = []
    monkeypatch.setattr(
        "guidebook.losses.adversarial.reverse_gradient", lambda rows, strength: (seen.append(float(strength)), rows)[1]
    )
    monkeypatch.setattr("guidebook.losses.adversarial.GUESSING", float("inf"))  # the reversal never rests
    assert plan.steps == 10 * epochs
    for step in (0, plan.steps // 2, plan.steps - 1):
        model(plan.batch(step))
    assert seen == pytest.approx([0.0, ramp(0.5, 4.0), ramp(1 - 1 / plan.steps, 4.0)])


@pytest.mark.slow
def test_dann_logs_how_often_the_critic_is_right(tiny_base: Callable[[str], Path]) -> None:
    book = adapt(recipe_of(tiny_base("bert"), "dann", targets=[HOTELS]))
    stage = next(stage for stage in book.meta["stages"] if stage["arm"] == "dann")
    assert 0 <= stage["losses"]["critic/accuracy"]["last"] <= 1
    assert set(stage["gradient_shares"]) == {"task", "critic"}
