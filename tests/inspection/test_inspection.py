"""Domains before training: what is found where something differs, and nothing where nothing does."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import guidebook as gb
from guidebook.cli.main import main
from guidebook.errors import InputError
from guidebook.inspection.content import content_difference
from guidebook.inspection.form import TRAITS, form_differences
from guidebook.inspection.look import inspect
from guidebook.inspection.map import draw, places
from guidebook.inspection.overlap import same_rows, similar_rows, vocabulary_overlap

COMMON = ["the", "a", "of", "and", "was", "it", "to", "is", "in", "very", "good", "bad", "not", "my", "but", "all"]
BOOKS = ["plot", "page", "chapter", "novel", "author", "read", "story", "character", "ending", "prose"]
KITCHEN = ["pan", "kettle", "lid", "oven", "handle", "boil", "steel", "coating", "stir", "fry"]


def texts(rows: int, own: list[str], seed: int, share: float = 0.25) -> list[str]:
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        count = int(generator.integers(8, 30))
        words = [str(generator.choice(own if generator.random() < share else COMMON)) for _ in range(count)]
        found.append(" ".join(words).capitalize() + ".")
    return found


@pytest.mark.parametrize("seed", range(4))
def test_two_halves_of_one_domain_show_no_difference(seed):
    every = texts(320, BOOKS, seed)
    halves = every[:160], every[160:]
    assert form_differences(*halves) == []
    found = content_difference(*halves, seed=seed)
    assert found.verdict == "no shift"
    assert (found.source_words, found.target_words) == ((), ())
    assert abs(found.distance) < 0.5


def test_other_words_are_a_shift_and_are_named():
    found = content_difference(texts(150, BOOKS, 0), texts(150, KITCHEN, 1))
    assert found.verdict == "shift"
    assert found.error < 0.1 < found.null_low
    assert found.p_value == pytest.approx(1 / 21)
    assert set(found.source_words[:8]) <= set(BOOKS)
    assert set(found.target_words[:8]) <= set(KITCHEN)
    assert found.distance == pytest.approx(2 * (1 - 2 * found.error))


def test_differences_of_form_alone_are_form_and_not_content():
    every = texts(320, BOOKS, 3)
    plain, odd = every[:160], [text.lower().replace(".", " .") + "\n" for text in every[160:]]
    found = {difference.what: difference for difference in form_differences(plain, odd)}
    assert {"rows: no capital letters", "rows: space before punctuation", "rows: line breaks"} <= set(found)
    assert found["rows: no capital letters"].target == 1.0
    assert "lower-case" in found["rows: no capital letters"].advice
    assert content_difference(plain, odd).verdict == "no shift"


def test_every_trait_sees_what_it_is_named_for():
    samples = {
        "no capital letters": "all small",
        "begins with a small letter": "small First",
        "only capital letters": "LOUD WORDS",
        "space before punctuation": "Well , no",
        "no mark at the end": "It ends",
        "no punctuation at all": "Nothing here",
        "double spaces": "Two  spaces",
        "line breaks": "One\ntwo.",
        "tabs": "One\ttwo.",
        "spaces at the ends": " Padded.",
        "HTML": "A<br />b &amp; c.",
        "escaped characters": r"It\'s.",
        "broken encoding": "Itâ€™s cafÃ©.",
        "curly quotes": "It’s.",
        "non-ASCII characters": "Café.",
        "decomposed accents": "Cafe\u0301.",
        "links": "See www.example.com.",
        "digits": "Four is 4.",
    }
    assert set(samples) == set(TRAITS)
    for name, text in samples.items():
        assert TRAITS[name].has(text), name
        assert not TRAITS[name].has("A plain sentence, with nothing odd."), name


def test_lengths_and_limits_are_differences_of_form():
    short, long = (
        texts(100, BOOKS, 5),
        [f"{a} {b} {c}" for a, b, c in zip(*[texts(100, BOOKS, s) for s in (6, 7, 8)], strict=True)],
    )
    found = {difference.what: difference for difference in form_differences(short, [text[:150] for text in long])}
    assert found["words in a row, median"].target > found["words in a row, median"].source
    limit = found["characters at which rows are cut (0: nowhere)"]
    assert (limit.source, limit.target) == (0, 150)


def test_few_rows_give_no_verdict():
    found = content_difference(["a b"] * 10, ["c d"] * 10)
    assert found.verdict == "too few rows"
    assert math.isnan(found.error)


def test_similar_rows_are_those_of_the_slow_way():
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    source = [" ".join(words), "something else that nobody has ever written before at all", "short"]
    target = [" ".join([*words[:-1], "dozen"]), "Short", " ".join(words[::-1])]

    def shingles(text: str) -> set[str]:
        found = text.casefold().split()
        return {" ".join(found[i : i + 5]) for i in range(max(1, len(found) - 4))}

    slow = []
    for i, a in enumerate(source):
        for j, b in enumerate(target):
            index = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
            if index >= 0.6:
                slow.append((i, j, pytest.approx(index)))
    assert similar_rows(source, target) == slow
    assert [pair[:2] for pair in slow] == [(0, 0), (2, 1)]
    assert similar_rows([*source, target[0]]) == [(0, 3, pytest.approx(7 / 9))]
    assert same_rows(source, ["SHORT ", "new"]) == 1


def test_vocabulary_overlap_is_its_loop():
    source, target = ["a b c", "a d"], ["a b x", "y a a"]
    shared, known = vocabulary_overlap(source, target)
    assert shared == pytest.approx(2 / 4)  # {a b c d}, {a b x y}
    assert known == pytest.approx(4 / 6)
    assert vocabulary_overlap(source, source) == (1, 1)
    assert vocabulary_overlap(["1 2"], ["3"]) == (0, 0)


def test_a_map_is_the_principal_components():
    rows = {"a": np.random.default_rng(0).normal(size=(20, 5)), "b": np.random.default_rng(1).normal(size=(9, 5)) + 3}
    found = places(rows)
    every = np.concatenate(list(rows.values()))
    values, axes = np.linalg.eigh(np.cov(every.T))
    slow = (every - every.mean(0)) @ axes[:, np.argsort(values)[::-1][:2]]
    fast = np.array([*found["a"], *found["b"]])
    assert np.abs(fast) == pytest.approx(np.abs(slow), abs=1e-3)


@pytest.fixture
def files(tmp_path):
    def write(name: str, rows: list[str], labels: bool = True) -> str:
        path = tmp_path / f"{name}.csv"
        lines = [f'"{text}",{row % 2}' for row, text in enumerate(rows)]
        path.write_text("\n".join(["text,label" if labels else "text,other", *lines]) + "\n")
        return str(path)

    shared = texts(3, BOOKS, 9)
    return [
        write("books", texts(90, BOOKS, 0) + shared),
        write("kitchen", texts(90, KITCHEN, 1) + shared),
        write("more", texts(90, BOOKS, 2), labels=False),
    ]


def test_the_command_says_form_content_and_leaks(files, tmp_path, capsys):
    records = tmp_path / "known.jsonl"
    records.write_text('{"source": "a", "target": "b", "error": 0.31, "gain": 0.02, "why": "x"}\n')
    picture = tmp_path / "new" / "map.svg"
    words = ["inspect", *files, "--records", str(records), "--map", str(picture)]
    assert main([*words, "-q", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [pair["content"]["verdict"] for pair in found["pairs"]] == ["shift", "no shift"]
    assert found["pairs"][0]["same_rows"] == 3
    assert found["pairs"][0]["similar_rows"] == 3
    assert found["domains"][0]["classes"] == {"0": 47, "1": 46}
    assert "classes" not in found["domains"][1], "target labels are not even looked for"
    assert found["directions"] == [{"source": "a", "target": "b", "error": 0.31, "gain": 0.02}]
    assert {name: len(points) for name, points in found["map"].items()} == {"books": 93, "kitchen": 93, "more": 90}
    assert picture.read_text().count("<svg") == 1
    assert main([*words, "-q"]) == 0
    said = capsys.readouterr().out
    assert "Content: no shift" in said
    assert "(yours)" in said


def test_a_base_adds_fertility_loss_and_distance(tiny_base):
    domains = [gb.Domain("books", texts(120, BOOKS, 0)), gb.Domain("kitchen", texts(125, KITCHEN, 1))]
    found = inspect(domains, base=str(tiny_base("bert")))
    assert found["domains"][0]["fertility"] > 1
    assert found["domains"][0]["lm_loss"] > 0
    assert found["pairs"][0]["mmd"]["p_value"] < 0.05
    assert found["map_of"] == "pooled rows of the base"


def test_mistakes_are_named(files, tmp_path):
    books = gb.Domain("books", texts(40, BOOKS, 0))
    with pytest.raises(InputError, match="at least one other file"):
        inspect([books])
    with pytest.raises(InputError, match="named 'books'"):
        inspect([books, books])
    with pytest.raises(InputError, match="no such file of recorded"):
        inspect([books, gb.Domain("b", texts(40, BOOKS, 1))], records=tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"another name, such as map\.png"):
        draw({"map": {"a": [[0, 0]]}, "pairs": [], "directions": []}, tmp_path / "map.nonsense")
