"""What is compared, as data: names, jobs, keys, draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guidebook as gb
from compare.conftest import write_comparison, write_rows
from guidebook.compare.draw import draw_rows, drawn_source
from guidebook.compare.grid import load_comparison
from guidebook.compare.work import Share
from guidebook.errors import InputError
from guidebook.recipe import load_recipe


def keys(path: Path, *changes: str) -> set[str]:
    return {job.key for job in load_comparison(path, changes).jobs()}


def test_jobs_are_methods_by_directions_by_draws(recipe_file: Path) -> None:
    found = load_comparison(recipe_file)
    jobs = found.jobs()
    assert len(jobs) == len({job.key for job in jobs}) == 3 * 2 * 2
    assert {(job.group.source.name, job.target) for job in jobs} == {("books", "kitchen"), ("kitchen", "books")}
    assert {(job.group.draw, job.group.seed) for job in jobs} == {(0, 0), (1, 1)}
    (group, *_) = found.groups()
    assert [domain.name for domain in group.unlabelled] == ["books pool"]  # a target with the source's name
    assert [domain.name for domain in group.targets] == ["kitchen"]
    assert found.flagship == "domain_fusion"


def test_seeds_and_rows_multiply(recipe_file: Path) -> None:
    found = load_comparison(recipe_file, ["compare.rows=[8, null]", "compare.seeds=[3, 4, 5]"])
    drawn = {(group.rows, group.draw, group.seed) for group in found.groups()}
    assert len(drawn) == 2 * 2 * 3
    assert (None, 1, 5) in drawn


def test_a_grid_makes_candidates(tmp_path: Path, tiny_base: Callable[[str], Path]) -> None:
    path = write_comparison(
        tmp_path,
        tiny_base("bert"),
        methods=["source_only", {"name": "domain_fusion", "scope": "pair"}],
        grid={"train.task.learning_rate": [0.001, 0.01], "adapter.reduction": [2, 4]},
    )
    found = {candidate.name: candidate.recipe for candidate in load_comparison(path).candidates}
    assert len(found) == 8
    chosen = found["domain_fusion scope=pair, learning_rate 0.001, reduction 2"]
    assert (chosen.train.task.learning_rate, chosen.adapter.reduction, chosen.method.scope) == (0.001, 2, "pair")
    assert len({repr(recipe) for recipe in found.values()}) == 8


def test_the_recipe_alone_is_compared_with_the_baselines() -> None:
    example = Path(__file__).parents[2] / "examples" / "quickstart-offline.yaml"
    found = load_comparison(example)
    assert [candidate.name for candidate in found.candidates] == [
        *("tfidf", "linear_probe", "source_only", "domain_fusion"),
    ]
    assert {job.target for job in found.jobs()} == {"kitchen", "hotels", "apps"}


def test_keys_follow_what_decides_a_result_and_nothing_else(recipe_file: Path, tmp_path: Path) -> None:
    before = keys(recipe_file)
    assert keys(recipe_file) == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for item in tmp_path.glob("*.*"):
        (moved / item.name).write_bytes(item.read_bytes())
    assert keys(moved / "recipe.yaml") == before  # content, not paths
    assert not keys(recipe_file, "train.task.epochs=2") & before
    assert not keys(recipe_file, "compare.rows=[13]") & before
    assert keys(recipe_file, "compare.draws=3") > before
    assert keys(recipe_file, "compare.methods=[source_only]") < before
    write_rows(tmp_path / "kitchen-pool.csv", ["one text", "two texts"], [0, 1])
    assert not keys(recipe_file) & before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["compare.draw=2"], "unknown key 'compare.draw'.*Did you mean 'draws'"),
        (["compare.draws=0"], "compare.draws is 0"),
        (["compare.rows=[1]"], "compare.rows"),
        (["compare.methods=[dan]"], "unknown name 'dan'"),
        (["compare.methods=[tfidf, tfidf]"], "'tfidf' is there twice"),
        (["compare.methods=[{scope: all}]"], "has no name"),
        (["compare.targets=[]"], "no targets"),
        (["compare.sources=[]"], "no sources"),
        (["compare.targets=[books.csv]"], "books has no target but itself"),
        (["compare.sources=[a.csv, b/a.csv]"], "two domains are named 'a'"),
        (["adaptor.kind=lora"], "Did you mean 'adapter'"),
    ],
)
def test_what_is_wrong_is_said(recipe_file: Path, changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_comparison(recipe_file, changes)


def test_a_missing_file_and_a_recipe_for_many_runs_are_said(recipe_file: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_comparison(recipe_file, ["compare.targets=[nowhere.csv]"]).jobs()
    with pytest.raises(InputError, match="guidebook compare"):
        load_recipe(recipe_file)


# --- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_draws_keep_the_shares_of_the_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=rng.integers(30, 200), p=[0.6, 0.3, 0.08, 0.02])
    labels = np.concatenate([labels, np.arange(4)])
    for count in (4, 7, 20, len(labels)):
        rows = draw_rows(labels, count, draw=seed)
        assert len(set(rows.tolist())) == count
        assert rows.tolist() == sorted(rows)
        for label in range(4):
            exact = (labels == label).sum() * count / len(labels)
            drawn = (labels[rows] == label).sum()
            assert drawn >= 1
            assert drawn == 1 or abs(drawn - exact) < 4  # lifting rare classes to one row takes from the others
    assert draw_rows(labels, 20, 0).tolist() != draw_rows(labels, 20, 1).tolist()


def test_balanced_classes_are_halved() -> None:
    labels = np.arange(100) % 2
    for draw in range(5):
        rows = draw_rows(labels, 20, draw)
        assert (labels[rows] == 1).sum() == 10


def test_every_row_is_drawn_about_as_often() -> None:
    labels = np.arange(40) % 2
    counts = np.bincount(np.concatenate([draw_rows(labels, 10, draw) for draw in range(800)]), minlength=40)
    assert counts.min() > 140  # 200 expected, standard deviation 12
    assert counts.max() < 260


@pytest.mark.parametrize("count", [1, 101])
def test_draws_that_cannot_be_made(count: int) -> None:
    with pytest.raises(InputError, match="cannot be drawn"):
        draw_rows(np.arange(100) % 2, count, 0)


def test_held_out_rows_are_the_same_for_all_draws_and_never_trained_on(recipe_file: Path) -> None:
    found = load_comparison(recipe_file)
    made = [drawn_source(found.sources[0], rows, draw, found.recipe) for rows, draw in ((12, 0), (12, 1), (None, 0))]
    tests: list[Any] = [source.test for source in made]
    assert tests[0].texts == tests[1].texts == tests[2].texts
    assert len(tests[0].texts) == 6  # a quarter of 24
    assert [len(source.texts or ()) for source in made] == [12, 12, 18]
    assert made[0].texts != made[1].texts
    for source in made:
        assert not set(source.texts or ()) & set(tests[0].texts)
        assert set(source.labels or ()) == {"0", "1"}


def test_rows_of_words_keep_their_tags() -> None:
    texts, tags = [["the", "pan", f"no{n}"] for n in range(12)], [["O", "B-tool", "O"]] * 12
    recipe = gb.Recipe(task={"kind": "token_classification", "dev": 0.25})
    found = drawn_source(gb.Domain("books", texts, labels=tags), 4, 0, recipe)
    assert len(found.texts or ()) == 4
    assert list(found.labels or ()) == [["O", "B-tool", "O"]] * 4
    assert found.test is not None
    assert len(found.test.texts or ()) == 3


def test_shares() -> None:
    assert Share.of("2/3") == Share(2, 3)
    for wrong in ("0/2", "3/2", "2", "a/b", ""):
        with pytest.raises(InputError, match="such as 2/3"):
            Share.of(wrong)
