"""What differs in a stage differs in its key, and what a stage does not read is not in it; nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook import preparation
from guidebook.adaptation import prepare
from guidebook.adapters.host import Host
from guidebook.adapters.presets import KINDS
from guidebook.errors import InputError, RunError
from guidebook.losses import LOSSES
from guidebook.methods import METHODS
from guidebook.methods.stage import Stage
from guidebook.tasks import TASKS
from guidebook.training import keys
from guidebook.training.engine import Trained
from guidebook.training.estimate import moved
from guidebook.training.keys import Recorded, described, library_versions, recorded
from guidebook.training.listener import Listener
from guidebook.training.model import StageModel
from guidebook.training.run import Run
from guidebook.training.settings import FuseTraining, TaskTraining, Training
from guidebook.training.trainer import arguments_from
from tiny import COMPARING, LABELS, TEXTS, given, small_adapter

SOURCES = [
    gb.Domain(name, [f"{text} {name} {n}" for n in range(5) for text in TEXTS], labels=LABELS * 5)
    for name in ("books", "films")
]
TARGETS = [
    gb.Domain(name, [f"the {text} {name} {n}" for n in range(5) for text in TEXTS], labels=LABELS * 5)
    for name in ("pans", "inns")
]
GENERAL = gb.Domain("general", [f"it is said that {text}" for text in TEXTS])
TAGGED = gb.Domain("tagged", TEXTS, labels=[["O", "B-X"] + ["O"] * (len(text.split()) - 2) for text in TEXTS])

PLAIN: dict[str, Any] = {  # every setting of every stage takes part, and has another value below
    "tokens_per_batch": 96,
    "max_length": 16,
    "dtype": "float32",
    "fuse": {"tokens": 1200, "learning_rate": 1e-2, "held_out": 0.2},
    "task": {"epochs": 1, "rows_per_batch": 6, "learning_rate": 1e-2, "held_out": 0.2},
}
STOPPING = {**PLAIN, "fuse": {**PLAIN["fuse"], "patience": 3}, "task": {**PLAIN["task"], "patience": 3}}
OTHER: dict[str, Any] = {
    "tokens_per_batch": 48,
    "max_length": 12,
    "packing": False,
    "micro_batches": 2,
    "dtype": "bfloat16",
    "base_dropout": True,
    "gradient_checkpointing": True,
    "compile": True,
    "checkpoint_seconds": 1.0,
    "max_grad_norm": 0.5,
    "fuse.tokens": 2400,
    "fuse.epochs": 2.0,
    "task.epochs": 2.0,
    "task.rows_per_batch": 4,
    **{f"{part}.learning_rate": 5e-3 for part in ("fuse", "task")},
    **{f"{part}.warmup": 0.5 for part in ("fuse", "task")},
    **{f"{part}.weight_decay": 0.1 for part in ("fuse", "task")},
    "fuse.mask_rate": 0.4,
    **{f"{part}.patience": 2 for part in ("fuse", "task")},
    **{f"{part}.held_out": 0.4 for part in ("fuse", "task")},
}
STAGED = [name for name in METHODS if name not in ("tfidf", "zero_shot", "linear_probe")]
"""The methods that have stages; the others hand in predictions."""
QUICK = ("mean_teacher", "sentence_fusion", "joint")
"""Methods that the quick tests are run with: masks read by rows, a head of its own, equal rows of two domains."""
EVERY_METHOD = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STAGED]
)


@pytest.fixture(autouse=True)
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and one base in memory for all recipes that load it in the same way."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    load, hosts = Host.load, {}

    def once(*asked: Any, **named: Any) -> Host:
        place = repr((asked, named))
        if place not in hosts:
            hosts[place] = load(*asked, **named)
        return hosts[place]

    monkeypatch.setattr(preparation.Host, "load", once)
    monkeypatch.setattr(preparation, "check_arguments", lambda extra: None)
    monkeypatch.setattr(preparation, "check_layers", lambda host, train: None)


def recipe_of(base: Path, method: Any, **changes: Any) -> Any:
    settings = {"source": SOURCES, "targets": TARGETS, "general": GENERAL, "train": PLAIN, **changes}
    task = {"max_length": 16, **settings.pop("task", {})}
    if task.get("kind") == "causal_lm":
        del task["max_length"]
    return gb.Recipe(
        base=str(base), **{"method": method, "adapter": {"kind": "houlsby", "reduction": 4}, "task": task, **settings}
    )


Built = dict[str, tuple[str, Any]]
"""Stage -> its key, and all that was built for it and for the stages that it goes on from."""


def built(recipe: Any, losses: set[str] | None = None) -> Built:
    """Plan a recipe for its first target and build every stage, with new adapters in the place of trained ones."""
    material, engine = prepare(recipe, Listener())
    found: Built = {}
    made: dict[str, Trained] = {}
    earlier: dict[str, Any] = {}
    for number, stage in enumerate(recipe.method.plan(Run(material, material.corpus.targets[0], engine.seed, None))):
        if losses is not None:
            losses |= {type(loss).__name__ for loss in stage.losses.values()}
        key = engine.key(stage, made)
        parts = [name for of in stage.combine.values() for name in of]
        before = [earlier[name] for name in (*stage.train.values(), *stage.below, *parts) if name]
        traced = [trace(engine, stage) if stage.losses else described(dict(stage.combine)), before]
        found[f"{number} {stage.name}"] = key, traced
        made |= dict.fromkeys(stage.makes, Trained(key, Path(), stage, (), {}, {}, cached=False))
        earlier |= dict.fromkeys(stage.makes, traced)
    return found


def trace(engine: Any, stage: Stage) -> Any:
    """All batches, the heads, the initial adapters, what the loop is told, and the gradient of the first step."""
    host, setup = engine.host, engine.setup
    engine.clear()
    for name in (*stage.below, *stage.train):
        host.add(name, engine.adapter, engine.seed)
    host.activate((*stage.below, *stage.train), train=tuple(stage.train))
    plan, heads = engine.plan(stage), engine.new_heads(stage)
    settings, rate = setup.settings(stage), setup.rate(stage)
    held_out = setup.only(setup.reads(stage)).held_out(stage)
    model = StageModel(host, stage, heads, plan.steps).train()
    start = {name: value.clone() for name, value in model.trainable().items()}
    torch.manual_seed(0)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=engine.train.dtype == "bfloat16"):
            loss = model(moved(plan.batch(0), torch.device("cpu")))["loss"]
        loss.backward()
        slope = {name: value.grad for name, value in model.trainable().items() if value.grad is not None}
    except (InputError, RunError) as error:  # a step that may not be cut into parts, rows that count as collapsed
        slope = {"refused": str(error)}
    model.zero_grad(set_to_none=True)
    return [
        described([plan[item] for item in range(len(plan))]),
        described([held_out.batch(step) for step in range(held_out.steps)] if held_out else settings.patience),
        described([start, slope, arguments_from(engine.train, settings, steps=plan.steps, rate=rate)]),
        [model.rates(), repr(stage.teacher), engine.train.compile, settings.patience],
        {name: [weight(share / 7) for share in range(8)] for name, weight in stage.weights.items()},
    ]


def fields_of(settings: type) -> Iterator[str]:
    for item in dataclasses.fields(settings):
        inner = {"fuse": FuseTraining, "task": TaskTraining}.get(item.name) if settings is Training else None
        yield from (f"{item.name}.{name}" for name in fields_of(inner)) if inner else (item.name,)


def changed(plain: dict[str, Any], name: str) -> dict[str, Any]:
    part, _, last = name.rpartition(".")
    if not part:
        return {**plain, name: OTHER[name]}
    inner = {**plain[part], last: OTHER[name]}
    return {**plain, part: {**inner, "tokens": None} if name == "fuse.epochs" else inner}


def assert_keys_follow(plain: Built, other: Built, what: str, *, exactly: bool = True) -> None:
    """Keys differ where what was built differs, stage by stage; with `exactly`, only there."""
    for name in plain.keys() & other.keys():
        (key, made), (other_key, other_made) = plain[name], other[name]
        if made != other_made:
            assert key != other_key, f"{what} changes the stage {name!r}, and not its key"
        elif exactly:
            assert key == other_key, f"{what} changes nothing in the stage {name!r}, and yet its key"


@EVERY_METHOD
def test_a_setting_of_training_is_in_the_key_exactly_where_it_changes_the_stage(
    method: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    base, chosen = tiny_base("bert"), given_for(method, tmp_path)
    plain = built(recipe_of(base, chosen))
    assert built(recipe_of(base, chosen)) == plain
    for name in fields_of(Training):
        if method in COMPARING and name.endswith("patience"):
            continue
        assert_keys_follow(plain, built(recipe_of(base, chosen, train=changed(PLAIN, name))), f"train.{name}")
    if method in COMPARING:
        return  # a share of their few rows is less than a step compares
    stopping = built(recipe_of(base, chosen, train=STOPPING))
    for name in ("fuse.patience", "task.patience", "fuse.held_out", "task.held_out", "fuse.mask_rate"):
        assert_keys_follow(stopping, built(recipe_of(base, chosen, train=changed(STOPPING, name))), f"train.{name}")


def given_for(method: str, folder: Path) -> Any:
    """The method's name, with the files that it wants of its user."""
    if method == "teacher":
        for target in TARGETS:
            rows = [f'{{"0": {0.02 * row:.2f}, "1": {1 - 0.02 * row:.2f}}}\n' for row in range(len(target.texts))]
            (folder / f"taught-{target.name}.jsonl").write_text("".join(rows))
        return {"name": method, "path": str(folder / "taught-{target}.jsonl")}
    return given(method, folder)


@EVERY_METHOD
def test_a_field_of_a_method_that_changes_a_stage_changes_its_key(
    method: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    base, chosen = tiny_base("bert"), given_for(method, tmp_path)
    settings = chosen if isinstance(chosen, dict) else {"name": method}
    plain = built(recipe_of(base, settings))
    for name, values in others(type(recipe_of(base, settings).method)).items():
        tried = 0
        for value in values if name != "path" else ():
            try:
                other = built(recipe_of(base, {**settings, name: value}))
            except InputError:
                continue
            tried += 1
            assert_keys_follow(plain, other, f"method.{name}={value!r}", exactly=False)
        assert tried or name in ("path", "label"), f"no other value of {method}.{name} was accepted"


def others(kind: type) -> dict[str, list[Any]]:
    """Other values of every field of a settings class, some of which it may refuse."""
    hints, found = get_type_hints(kind), {}
    for item in dataclasses.fields(kind):
        default = item.default
        literal = [value for value in get_args(hints[item.name]) if isinstance(value, str)]
        special = {"mixture": ["equal"], "layers": ["top 1", "bottom 1"], "shares": [{"0": 0.3, "1": 0.7}]}
        if item.name in special or literal:
            found[item.name] = [value for value in special.get(item.name, literal) if value != default]
        elif isinstance(default, bool):
            found[item.name] = [not default]
        elif isinstance(default, int | float):
            found[item.name] = [default + 1, default - 1, default * 2, default * 0.7, 0.3]
        else:
            found[item.name] = [2, 0.25]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_an_adapter_is_in_the_key_exactly_where_it_changes_the_stage(
    kind: str, tiny_base: Callable[[str], Path]
) -> None:
    base, small = tiny_base("bert"), small_adapter(kind)
    plain = built(recipe_of(base, "domain_fusion", adapter=small))
    for name, values in others(type(small)).items():
        tried = []
        for value in values:
            try:
                other = recipe_of(base, "domain_fusion", adapter=dataclasses.replace(small, **{name: value}))
                tried.append(built(other))
            except (InputError, TypeError, ValueError, AttributeError):
                continue
            rounds = name in ("reduction", "width", "products", "scaling")  # read, and perhaps the same in the end
            assert_keys_follow(plain, tried[-1], f"{kind}.{name}={value!r}", exactly=not rounds)
        assert tried or name in ("kind", "modules"), f"no other value of {kind}.{name} was accepted"
    assert plain.keys() == {"0 fuse", "1 task"}


TASK_VALUES: dict[str, Any] = {
    "labels": ("1", "0"),
    "max_length": 12,
    "pooling": "cls",
    "head": {"classification": "linear", "token_classification": "two_layer"},
    "dropout": 0.4,
    "dev": 0.3,
    "validation_split_ratio": 0.4,
    "split_seed": 1,
    "max_train_documents": 3,
    "max_validation_documents": 1,
    "prompts": ("the plot",),
    "template": "{text} so it is",
}


@pytest.mark.parametrize(("kind", "method"), [(kind, "domain_fusion") for kind in TASKS] + [("classification", "dann")])
def test_a_field_of_a_task_is_in_the_key_exactly_where_it_changes_the_stage(
    kind: str, method: str, tiny_base: Callable[[str], Path]
) -> None:
    base = tiny_base("gpt2" if kind == "causal_lm" else "bert")
    data: dict[str, Any] = {"targets": TARGETS}
    if kind == "causal_lm":
        data |= {"source": (), "general": ()}
    if kind == "token_classification":
        untagged = [gb.Domain(target.name, texts=target.texts) for target in TARGETS]
        data |= {"source": TAGGED, "targets": untagged}
    module, _, name = TASKS[kind].partition(":")
    plain = built(recipe_of(base, method, task={"kind": kind}, **data))
    for item in dataclasses.fields(getattr(import_module(module), name)):
        value = TASK_VALUES.get(item.name)
        value = value.get(kind) if isinstance(value, dict) else value
        if kind == "token_classification" and item.name == "labels":
            value = ("B-X", "O")
        if item.name in ("kind", "group"):
            continue
        assert value is not None, f"another value of task.{item.name}"
        other = built(recipe_of(base, method, task={"kind": kind, item.name: value}, **data))
        assert_keys_follow(plain, other, f"task.{item.name}")


@pytest.mark.slow
def test_every_loss_takes_part_in_what_is_tried_here(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    losses: set[str] = set()
    for method in STAGED:
        built(recipe_of(tiny_base("bert"), given_for(method, tmp_path)), losses)
    assert losses == {place.partition(":")[2] for place in LOSSES.values()}


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "opt", "t5"])
def test_packing_and_masks_are_in_the_key_where_an_architecture_has_them(
    family: str, packing: bool, tiny_base: Callable[[str], Path]
) -> None:
    train = {**PLAIN, "packing": packing}
    plain = built(recipe_of(tiny_base(family), "domain_fusion", train=train))
    for change in ({"packing": not packing}, {"fuse": {**PLAIN["fuse"], "mask_rate": 0.4}}, {"max_length": 12}):
        other = built(recipe_of(tiny_base(family), "domain_fusion", train={**train, **change}))
        assert_keys_follow(plain, other, f"{family}: {change}")


def test_another_version_of_a_library_makes_another_key(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_base("bert"), "source_only")
    plain = [key for key, _ in built(recipe).values()]
    for name in ("torch", "transformers", "peft", "tokenizers"):
        assert name in library_versions()
        monkeypatch.setattr(keys, "library_versions", lambda name=name: {**library_versions(), name: "99"})
        assert [key for key, _ in built(recipe).values()] != plain


def test_settings_note_what_is_read_and_refuse_the_rest() -> None:
    read: dict[str, Any] = {}
    noting = recorded(Training(), read, "train")
    assert (noting.packing, noting.fuse.mask_rate, noting.checkpoint_seconds) == (True, 0.15, 60.0)
    assert read == {"train.packing": True, "train.fuse.mask_rate": 0.15}
    sealed = recorded(Training(), read, "train", sealed=True)
    assert (sealed.packing, sealed.fuse.mask_rate, sealed.checkpoint_seconds) == (True, 0.15, 60.0)
    with pytest.raises(RuntimeError, match="max_length is read while a stage is trained"):
        _ = sealed.max_length
    with pytest.raises(RuntimeError, match="rows_per_batch"):
        _ = sealed.task.rows_per_batch
    assert isinstance(sealed, Recorded)


def test_the_description_of_a_value_holds_all_of_it() -> None:
    long = np.arange(5000.0)
    other = long.copy()
    other[2500] = -1  # repr leaves the middle out
    assert described(long) != described(other)
    assert described(torch.from_numpy(long)) == described(long)
    assert described({"a": {3, 1}}) == described({"a": {1, 3}})
    assert described(FuseTraining()) != described(TaskTraining())
    assert described(FuseTraining()) != described(FuseTraining(mask_rate=0.2))


def test_adapters_that_one_stage_made_are_told_apart() -> None:
    """Both have the key of that stage; which one is copied is in the key of the next."""
    made = {"domain": "k", "other": "k"}
    start = [keys.stage_key(Stage("s", {}, train={"task": name}), made, {}, {}) for name in made]
    below = [keys.stage_key(Stage("s", {}, train={}, below=(name,)), made, {}, {}) for name in made]
    assert len({*start, *below}) == 4
