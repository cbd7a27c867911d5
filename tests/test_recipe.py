"""A recipe is strict: what is wrong is named with its place and the nearest known name, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import guidebook as gb
from guidebook.data.labels import LabelSet
from guidebook.errors import InputError
from guidebook.recipe import load_recipe, name_of

ENDS = {"source": "books.csv", "targets": ["kitchen.csv"]}


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": {"kind": "housby"}}, "adapter: unknown kind 'housby'. Did you mean 'houlsby'?"),
        ({"adapter": {"kind": "lora", "rnk": 4}}, "unknown key 'adapter.rnk'. Did you mean 'rank'?"),
        ({"adapter": 5}, "adapter: expected a kind, or a mapping with one, found 5."),
        ({"adapter": gb.Classification()}, "adapter: expected a kind"),
        ({"method": "domain_fuson"}, "method: unknown name 'domain_fuson'. Did you mean 'domain_fusion'?"),
        ({"method": {"name": "domain_fusion", "scop": "all"}}, "unknown key 'method.scop'. Did you mean 'scope'?"),
        ({"method": {"name": "domain_fusion", "scope": "al"}}, "method.scope: Input should be 'all' or 'pair'"),
        ({"method": ["domain_fusion"]}, "method: expected a name, or a mapping with one"),
        ({"task": "clasification"}, "task: unknown kind 'clasification'. Did you mean 'classification'?"),
        ({"task": {"pooling": "men"}}, "men"),
        ({"task": {"labels": [True, False]}}, "quote it"),
        ({"train": {"tsk": {}}}, "unknown key 'train.tsk'. Did you mean 'task'?"),
        ({"train": {"task": {"epoch": 3}}}, "unknown key 'train.task.epoch'. Did you mean 'epochs'?"),
        ({"train": {"task": {"epochs": "many"}}}, "train.task.epochs: Input should be a valid number"),
        ({"train": {"task": {"epochs": 0}}}, "train.task.epochs is 0.0, expected more than 0"),
        ({"train": {"task": {"rows_per_batch": 0}}}, "train.task.rows_per_batch is 0, expected at least 1"),
        ({"train": {"fuse": {"tokens": 0}}}, "train.fuse.tokens is 0"),
        ({"train": {"fuse": {"warmup": 200}}}, "train.fuse.warmup is 200.0, expected a share"),
        ({"train": {"dtype": "fp16"}}, "train.dtype: Input should be 'auto', 'float32' or 'bfloat16'"),
        ({"train": {"micro_batches": 0}}, "train.micro_batches is 0"),
        ({"train": [1]}, "train: expected `key: value` settings"),
        ({"train": gb.Houlsby()}, "train: expected `key: value` settings"),
        ({"trainer": [1]}, "trainer: expected `key: value` settings"),
        ({"seed": "one"}, "seed: expected a whole number"),
        ({"seed": True}, "seed: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"base": None}, "base: expected a name (guidebook bases), a folder"),
        ({"targets": 5}, "5 is neither a domain nor a list of domains"),
        ({"source": {"path": "books.csv", "colums": {}}}, "unknown key 'colums' in a domain. Did you mean 'columns'?"),
        ({"targets": ["a/books.csv"]}, "Two domains are named 'books'"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(gb.InputError) as caught:
        gb.Recipe(**{**ENDS, **changes})
    assert message in str(caught.value)


OWNED = """output_dir seed max_steps num_train_epochs learning_rate bf16 gradient_accumulation_steps warmup_ratio
weight_decay max_grad_norm save_only_model save_total_limit ignore_data_skip label_smoothing_factor eval_strategy"""


@pytest.mark.parametrize("name", OWNED.split())
def test_trainer_arguments_that_guidebook_owns_are_refused_by_name(name: str) -> None:
    with pytest.raises(gb.InputError, match=rf"trainer\.{name} is set by guidebook"):
        gb.Recipe(**ENDS, trainer={name: 1})


def test_an_unknown_key_of_a_file_names_file_key_and_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "sorce: books.csv\n")
    with pytest.raises(gb.InputError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "unknown key 'sorce' in the recipe. Did you mean 'source'?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "expected `key: value` lines"),
        ("a: [\n", "not a YAML file"),
        ("", "expected `key: value` lines"),
        ("targets: kitchen.csv\n", "the recipe has no source"),
        ("source: books.csv\nadapter: {kind: housby}\n", "recipe.yaml: adapter: unknown kind"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(gb.InputError) as caught:
        load_recipe(written(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    written(tmp_path, "source: books.csv\n")
    with pytest.raises(gb.InputError, match=r"no such recipe\. Did you mean 'recipe\.yaml'"):
        load_recipe(tmp_path / "recipes.yaml")


def test_paths_are_relative_to_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    path = written(
        tmp_path,
        "base: models/tiny\nsource: books.csv\nunlabelled: data/more.txt\n"
        "targets:\n  - data/kitchen.csv\n  - {name: hotels, path: h.csv, test: {path: t.csv}}\n  - /abs/apps.csv\n",
    )
    recipe = load_recipe(path)
    assert recipe.source[0].path == str(tmp_path / "books.csv")
    assert [domain.path for domain in recipe.targets] == [
        str(tmp_path / "data/kitchen.csv"),
        str(tmp_path / "h.csv"),
        "/abs/apps.csv",
    ]
    assert recipe.targets[1].test is not None
    assert recipe.targets[1].test.path == str(tmp_path / "t.csv")
    assert recipe.unlabelled[0].path == str(tmp_path / "data/more.txt")
    assert recipe.base == str(tmp_path / "models" / "tiny")
    assert load_recipe(written(tmp_path, "source: b.csv\nbase: owner/model\n")).base == "owner/model"


def test_flags_and_overrides_change_a_file_and_overrides_win(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "source: books.csv\ntargets: [kitchen.csv]\nmethod: {name: domain_fusion, scope: pair}\n"
        "adapter: lora\nseed: 3\n",
    )
    overrides = [
        "seed=5",
        "adapter.rank=2",
        "train.task.learning_rate=5e-4",
        "method.mixture=equal",
        "train.fuse.tokens=2e6",
    ]
    recipe = load_recipe(path, overrides, {"seed": 4, "targets": ["hotels.csv"]})
    assert (recipe.seed, recipe.adapter.kind, recipe.adapter.rank) == (5, "lora", 2)
    assert recipe.targets[0].path == "hotels.csv"
    assert recipe.train.task.learning_rate == 5e-4
    assert recipe.train.fuse.tokens == 2_000_000
    assert (recipe.method.scope, recipe.method.mixture) == ("pair", "equal")
    assert name_of(load_recipe(path, ["method=source_only"]).method) == "source_only"
    assert name_of(load_recipe(path, [], {"method": "target_mlm"}).method) == "target_mlm"


@pytest.mark.parametrize("source", ["books.csv", ["books.csv"], {"path": "books.csv"}, [{"path": "books.csv"}]])
def test_an_override_reaches_the_settings_of_a_single_domain(source: object) -> None:
    recipe = load_recipe(None, ["source.columns.label=stars", "source.columns.text=words"], {"source": source})
    assert [(domain.path, domain.columns.label, domain.columns.text) for domain in recipe.source] == [
        ("books.csv", "stars", "words")
    ]
    with pytest.raises(gb.InputError, match="Change it as a whole"):
        load_recipe(None, ["source.columns.label=stars"], {"source": ["books.csv", "dvd.csv"]})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "is not an override"),
        ("=1", "is not an override"),
        ("train.task.epochs=[", "is not a YAML value"),
        ("source.name=x", "source is"),  # of two, neither is meant: nothing is dropped without a word
        ("seed.x=1", "seed is 3"),
        ("adapter.rducton=8", "Did you mean 'reduction'?"),
        ("trian.task.epochs=1", "Did you mean 'train'?"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "source: [books.csv, dvd.csv]\ntargets: [kitchen.csv]\nseed: 3\n")
    with pytest.raises(gb.InputError) as caught:
        load_recipe(path, [override])
    assert message in str(caught.value)


def test_exponents_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    text = "source: b.csv\ntrain: {fuse: {learning_rate: 5e-4, tokens: 3e5}}\n"
    text += "trainer: {adam_epsilon: 1e-8, run_name: 5e}\n"
    recipe = load_recipe(written(tmp_path, text))
    assert recipe.train.fuse.learning_rate == 0.0005
    assert recipe.train.fuse.tokens == 300_000
    assert recipe.trainer == {"adam_epsilon": 1e-8, "run_name": "5e"}


def test_a_name_that_looks_like_no_number_stays_a_name(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "source: b.csv\n"), ["base=nan"]).base == "nan"


def test_numeric_labels_are_names(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "source: b.csv\ntask: {labels: [1, 0]}\n"))
    assert recipe.task.labels == ("1", "0")
    assert LabelSet.from_raw([0, 1, 1.0, "0"], recipe.task.labels, "b.csv").encode([1, "0"]).tolist() == [0, 1]


def test_resolved_is_plain_json_and_gives_the_same_recipe_again(tmp_path: Path) -> None:
    test = gb.Domain("kitchen test", ["x", "y"], labels=[0, 1])
    recipe = gb.Recipe(
        source=[{"path": "books.csv", "where": {"split": ["train", 1]}, "columns": {"text": "body"}}],
        targets=[gb.Domain("kitchen", ["a", "b"], labels=["secret", "other"], test=test)],
        task={"labels": [0, 1]},
        adapter=gb.LoRA(rank=4),
        method={"name": "domain_fusion", "scope": "pair"},
        train={"fuse": {"tokens": 1000}},
        trainer={"adam_beta2": 0.9},
        seed=7,
    )
    plain = recipe.resolved()
    text = json.dumps(plain)
    assert json.loads(text) == plain
    assert "secret" not in text
    assert plain["targets"][0]["texts"] == "2 rows given in memory"
    assert plain["targets"][0]["test"]["texts"] == "2 rows given in memory"
    expected = {"name": "domain_fusion", "scope": "pair", "mixture": "proportional", "general": 0.0}
    assert plain["method"] == expected
    plain.pop("targets")
    assert gb.Recipe(**plain, targets=recipe.targets) == recipe


def test_defaults_are_those_of_the_documents() -> None:
    recipe = gb.Recipe(**ENDS)
    assert (recipe.base, recipe.adapter.kind, name_of(recipe.method), recipe.seed) == (
        "mini",
        "houlsby",
        "domain_fusion",
        0,
    )
    assert recipe.base_saw == ("wikipedia-en",)
    assert gb.Recipe(**ENDS, base="other").base_saw == ()


def test_a_mixture_may_name_shares() -> None:
    shares = {"books": 1, "kitchen": 3}
    recipe = gb.Recipe(source="books.csv", targets=["kitchen.csv"], method={"name": "domain_fusion", "mixture": shares})
    assert recipe.method.mixture == shares
    assert recipe.resolved()["method"]["mixture"] == shares


def test_a_list_of_kinds_is_a_union():
    from guidebook.adapters.union import Union

    first = gb.Recipe(source="a.csv", adapter=["invertible", {"kind": "houlsby", "reduction": 4}])
    assert isinstance(first.adapter, Union)
    assert (first.adapter.kind, first.adapter.learning_rate) == ("houlsby+invertible", 3e-4)
    assert [part["kind"] for part in first.resolved()["adapter"]] == ["invertible", "houlsby"]
    assert gb.Recipe(source="a.csv", adapter=first.resolved()["adapter"]).adapter == first.adapter
    assert first.replace(seed=1).adapter == first.adapter
    assert gb.Recipe(source="a.csv", adapter="invertible+lora").adapter.kind == "invertible+lora"
    assert gb.Recipe(source="a.csv", adapter=["lora"]).adapter == gb.LoRA()
    for wrong, message in (
        (["invertible", "lorra"], "unknown kind 'lorra'. Did you mean 'lora'"),
        (["full", "lora"], "is no union"),
        (["lora", "lora"], "is no union"),
        ([], "is no union"),
    ):
        with pytest.raises(gb.InputError, match=message):
            gb.Recipe(source="a.csv", adapter=wrong)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b", "a/" * 3000])
def test_names_that_no_file_system_has_are_refused_as_missing(tmp_path, name) -> None:
    from guidebook.adapters.bases import resolve_base
    from guidebook.data.documents import Split, split_documents
    from guidebook.data.domains import Domain, load_text

    path = written(tmp_path, "source: b.csv\n")
    load_recipe(path, [f"base={name}"] if "\0" not in name else [])
    for use in (
        lambda: resolve_base(f"/{name}"),
        lambda: load_text(Domain("a", path=f"{name}.csv"), "general"),
        lambda: split_documents(Domain("a", path=f"{name}.txt.gz"), "target", Split()),
        lambda: load_recipe(tmp_path / f"{name}.yaml"),
    ):
        with pytest.raises(InputError):
            use()
