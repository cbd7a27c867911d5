"""What a user brings for a target: checked, refused where it would spoil the evaluation, and named in every record."""

from __future__ import annotations

import json

import numpy as np
import pytest

import guidebook as gb
from guidebook.adaptation import adapt, estimate
from guidebook.data.probabilities import read_probabilities
from guidebook.errors import InputError
from guidebook.methods import METHODS
from guidebook.recipe import Recipe, load_recipe
from tiny import LABELS, TEXTS, given, tiny_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_methods_that_take_labels_of_the_target_say_so(tmp_path) -> None:
    taking = {"few_target_labels", "teacher", "target_oracle"}
    for name in METHODS:
        method = Recipe(source="a.csv", targets=["b.csv"], method=given(name, tmp_path)).method
        assert getattr(method, "label_free", True) == (name not in taking), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["few_target_labels", "teacher"])
def test_records_carry_it_and_the_baselines_beside_it_stay_label_free(method, tiny_base, tmp_path) -> None:
    recipe = tiny_recipe(tiny_base("bert"), method={**given(method, tmp_path), "start": "source_only"})
    book = adapt(recipe)
    assert book.meta["label_free"] is False
    found = [json.loads(line) for line in (book.path / "records.jsonl").read_text().splitlines()]
    assert {record["arm"] for record in found if not record["label_free"]} == {method}
    assert {record["arm"] for record in found if record["label_free"]} == {"tfidf", "linear_probe", "source_only"}


def test_rows_that_are_tested_on_are_refused_before_training(tiny_base, tmp_path, cache) -> None:
    path = tmp_path / "few.csv"
    path.write_text(f"label,text\n1,the  {TEXTS[0].upper()}\n0,something else\n")
    method = {"name": "few_target_labels", "path": str(path)}
    with pytest.raises(InputError, match="1 of 2 rows are also rows of the final evaluation"):
        estimate(tiny_recipe(tiny_base("bert"), method=method))
    blind = [gb.Domain("kitchen", [f"the {text}" for text in TEXTS])]
    assert estimate(tiny_recipe(tiny_base("bert"), method=method, targets=blind))["stages"]


def test_a_label_that_the_source_does_not_know_is_refused(tiny_base, tmp_path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("sentiment,verdict,text\n9,1,a new text\n9,maybe,another\n")
    method = {"name": "few_target_labels", "path": str(path), "label": "verdict"}
    with pytest.raises(InputError, match="'maybe' is not one of"):
        estimate(tiny_recipe(tiny_base("bert"), method=method))


def test_the_path_of_a_methods_file_is_relative_to_the_recipe(tmp_path) -> None:
    place = tmp_path / "recipe.yaml"
    place.write_text("source: a.csv\ntargets: [b.csv]\nmethod: {name: teacher, path: taught.jsonl}\n")
    assert load_recipe(place).method.path == str(tmp_path / "taught.jsonl")


def test_probabilities_come_in_three_forms(tmp_path) -> None:
    place = tmp_path / "p.jsonl"
    place.write_text('{"good": 0.25, "bad": 0.75}\n[0.5, 0.5]\n{"label": "good", "probabilities": {"good": 1}}\n')
    found = read_probabilities(str(place), ["bad", "good"], 3)
    assert np.allclose(found, [[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x1e"])
def test_a_text_beside_the_probabilities_may_hold_what_python_ends_lines_with(mark, tmp_path) -> None:
    place = tmp_path / "p.jsonl"
    text = json.dumps({"text": f"one{mark}two", "probabilities": [1, 0]}, ensure_ascii=ord(mark) < 32)
    place.write_bytes(f"\ufeff{text}\r\n\r\n[0, 1]\n[0, 2]\n".encode())
    with pytest.raises(InputError, match="line 4"):
        read_probabilities(str(place), ["bad", "good"], 3)
    place.write_bytes(f"{text}\n[0, 1]\n".encode())
    assert read_probabilities(str(place), ["bad", "good"], 2).tolist() == [[1, 0], [0, 1]]
    place.write_bytes(b"[1, 0]\n\xff\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_probabilities(str(place), ["bad", "good"], 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"good": 0.25}', r"sum to 0\.25"),
        ('{"goood": 1}', "Did you mean 'good'"),
        ("[0.5]", "expected 2 probabilities"),
        ("[2, -1]", "expected 2 probabilities"),
        ("{good}", "not JSON"),
    ],
)
def test_wrong_probabilities_are_named_with_their_line(line, said, tmp_path) -> None:
    place = tmp_path / "p.jsonl"
    place.write_text(f"[1, 0]\n{line}\n")
    with pytest.raises(InputError, match=said) as error:
        read_probabilities(str(place), ["bad", "good"], 2)
    assert "line 2" in str(error.value)


def test_there_is_one_line_per_row(tmp_path) -> None:
    place = tmp_path / "p.jsonl"
    place.write_text("[1, 0]\n")
    with pytest.raises(InputError, match="1 lines, but the target has 2 rows"):
        read_probabilities(str(place), ["bad", "good"], 2)
    with pytest.raises(InputError, match="no such file"):
        read_probabilities(str(tmp_path / "q.jsonl"), ["bad", "good"], 2)


@pytest.mark.slow
def test_what_the_teacher_says_is_what_is_learned(tiny_base, tmp_path) -> None:
    """A teacher that says the opposite gives another key and, learned long enough, the opposite answers."""
    texts = [f"{TEXTS[0]} {row}" if row % 2 else f"{TEXTS[1]} {row}" for row in range(12)]
    target = [gb.Domain("kitchen", texts)]
    answers = []
    for sure in (0.99, 0.01):
        place = tmp_path / f"{sure}.jsonl"
        place.write_text(
            "\n".join(json.dumps([1 - p, p]) for p in (sure if row % 2 else 1 - sure for row in range(12)))
        )
        method = {"name": "teacher", "path": str(place), "start": "source_only", "weight": 100.0}
        train = {"task": {"epochs": 100, "rows_per_batch": 8, "learning_rate": 1e-2}}
        source = gb.Domain("books", [f"{TEXTS[5]} {n}" for n in range(10)], labels=[*LABELS, 0, 1])
        recipe = tiny_recipe(tiny_base("bert"), method=method, targets=target, source=source, train=train)
        answers.append(adapt(recipe).predict_proba(texts, domain="kitchen")[:, 1])
    taught, opposite = (found[1::2].mean() - found[::2].mean() for found in answers)
    assert taught > 0.2
    assert opposite < -0.2
