"""Domains, classes, hidden labels, splits and descriptions."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from guidebook.data.describe import describe
from guidebook.data.domains import (
    Domain,
    HiddenLabels,
    LabelSet,
    Population,
    domain_from,
    load_source,
    load_sources,
    load_target,
    load_text,
    select_rows,
    split_rows,
)
from guidebook.data.fingerprints import hash_texts, text_keys
from guidebook.data.labels import normalise, normalise_column
from guidebook.data.read import Columns
from guidebook.data.tokens import Specials, Tokens
from guidebook.errors import GuidebookError, InputError, RunError

SECRET = "secret-label"


class Poison:
    """A label that may not be looked at."""

    def _refuse(self, *_: object) -> None:
        raise AssertionError("a target label was read")

    __eq__ = __str__ = __repr__ = __hash__ = __bool__ = __float__ = _refuse  # type: ignore[assignment]


def csv_of(folder: Path, name: str, rows: list[tuple[str, object]]) -> str:
    path = folder / name
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


def source(labels: list[object], texts: list[str] | None = None) -> Population:
    texts = texts or [f"text {row}" for row in range(len(labels))]
    return load_source(Domain("books", texts, labels=labels))[0]


# --- domains


def test_a_path_is_a_domain_named_by_its_stem() -> None:
    assert domain_from("data/books.csv.gz") == Domain("books", path="data/books.csv.gz")
    assert domain_from(Path("a/kitchen.jsonl")).name == "kitchen"
    same = Domain("x", ["a"])
    assert domain_from(same) is same


def test_a_mapping_has_strict_keys() -> None:
    given = {"path": Path("a.csv"), "where": {"split": "train"}, "columns": {"text": "body"}}
    assert domain_from(given) == Domain("a", path="a.csv", where={"split": "train"}, columns=Columns("body"))
    assert domain_from({"texts": ["a"]}, default_name="source").name == "source"
    with pytest.raises(InputError, match="Did you mean 'columns'"):
        domain_from({"path": "a.csv", "colums": {}})
    with pytest.raises(InputError, match=r"unknown key 'txt' in columns.*Did you mean 'text'"):
        domain_from({"path": "a.csv", "columns": {"txt": "body"}})


def test_test_rows_inherit_what_they_do_not_say() -> None:
    given = {"name": "books", "path": "all.csv", "where": {"domain": "books", "split": "train"}}
    test = domain_from({**given, "test": {"where": {"split": "test"}}}).test
    assert test == Domain("books test", path="all.csv", where={"domain": "books", "split": "test"})
    apart = domain_from({**given, "columns": {"text": "body"}, "test": "held.csv"}).test
    assert apart == Domain("books test", path="held.csv", columns=Columns("body"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "neither texts nor a path"),
        ({"texts": ["a"], "path": "a.csv"}, "both texts and a path"),
        ({"texts": "one string"}, "expected a list of texts"),
        ({"texts": ["a", "b"], "labels": [1]}, "1 labels for 2 texts"),
        ({"texts": ["a"], "text_pairs": ["b", "c"]}, "2 text_pairs for 1 texts"),
        ({"texts": ["a"], "where": {"x": 1}}, "the texts are in memory"),
        ({"path": "a.csv", "labels": [1]}, "labels or text_pairs in memory beside a path"),
        ({"path": "a.csv", "where": "train"}, "are mappings"),
    ],
)
def test_contradicting_fields_are_refused(fields: dict[str, object], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        domain_from({"name": "books", **fields})
    with pytest.raises(InputError, match="domain 'books'"):
        load_target(Domain("books", **fields))


def test_texts_that_are_not_strings_are_refused_and_missing_ones_dropped() -> None:
    with pytest.raises(InputError, match="domain 'x' row 3: 7 is not a string"):
        load_text(Domain("x", ["a", "b", 7]), "general")
    population = load_target(Domain("x", ["a", None, float("nan"), " ", "b"], labels=[1, 2, 3, 4, 5]))
    assert population.texts == ["a", "b"]
    assert population.lines == [1, 5]
    assert population.dropped == {"empty text": 3}
    assert population.hidden is not None
    assert population.hidden.reveal("oracle") == [1, 5]


def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine \\ud83d\\ude00"}\n{"text": "cut \\ud83d"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl line 2: the text holds half of a surrogate pair"):
        load_target(domain_from(path))


# --- hidden labels


def test_hidden_labels_are_read_by_reveal_only() -> None:
    hidden = HiddenLabels([SECRET, SECRET])
    assert SECRET not in repr(hidden) + str(hidden) + format(hidden) + repr(dir(hidden))
    for read in (iter, len, list, lambda x: x[0], lambda x: SECRET in x, vars, dict, json.dumps, sorted, sum):
        with pytest.raises(TypeError):
            read(hidden)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(GuidebookError, match="hidden"):
            copied(hidden)
    assert not {"__iter__", "__getitem__", "__len__", "__array__", "__dict__"} & set(dir(hidden))
    assert np.asarray(hidden).dtype == object
    assert np.asarray(hidden).shape == ()
    with pytest.raises(RunError, match=r"'training'.*final evaluation"):
        hidden.reveal("training")
    assert hidden.reveals == []
    assert hidden.reveal("final evaluation") == [SECRET, SECRET]
    hidden.take([0]).reveal("oracle")
    assert hidden.reveals == ["final evaluation", "oracle"]


def test_a_population_does_not_give_hidden_labels_away(tmp_path: Path) -> None:
    population = load_target(domain_from(csv_of(tmp_path, "a.csv", [("one", SECRET), ("two", SECRET)])))
    assert population.labels is None
    assert SECRET not in repr(population)
    with pytest.raises(GuidebookError):
        dataclasses.asdict(population)


def test_labels_of_a_target_are_not_looked_at_before_they_are_revealed() -> None:
    poison = [Poison(), Poison(), Poison()]
    population = load_target(Domain("kitchen", ["a", "", "b"], labels=poison))
    first, second = split_rows(population, 0.5, seed=0)
    described = describe([population], {"kitchen": tokens_of([1, 1])}, 8)
    assert described[0]["classes"] is None
    revealed = [population.hidden.reveal("oracle")[row] for row in (0, 1)]
    assert revealed[0] is poison[0]
    assert revealed[1] is poison[2]
    assert first.hidden.reveal("oracle") + second.hidden.reveal("oracle") != []


def test_labels_do_not_change_what_a_target_is(tmp_path: Path) -> None:
    rows = [("one", 0), ("two", 1)]
    plain = load_target(Domain("x", ["one", "two"]))
    labelled = load_target(domain_from(csv_of(tmp_path, "x.csv", rows)))
    assert plain.hidden is None
    assert labelled.hidden is not None
    assert plain.fingerprint == labelled.fingerprint == hash_texts(["one", "two"], None)
    assert plain.labels_fingerprint is labelled.labels_fingerprint is None
    assert load_text(domain_from(csv_of(tmp_path, "x.csv", rows)), "unlabelled").hidden is None


def test_text_roles_do_not_look_for_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label,rating\na,1,2\n")
    assert load_text(domain_from(path), "general").texts == ["a"]
    with pytest.raises(InputError, match="several columns could be the label"):
        load_source(domain_from(path))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"text": "a", "label": "x", "rating": 2}\n', "several columns could be the label: label, rating"),
        ('{"text": "a", "label": {"old": 1}}\n', "line 1: label holds a nested object"),
        ('{"text": "a", "label": ["x", "y"]}\n', "line 1: label holds a list"),
    ],
)
def test_a_target_whose_labels_cannot_be_read_has_none_and_says_so(content: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    population = load_target(domain_from(path))
    assert population.texts == ["a"]
    assert population.hidden is None
    assert why in population.note
    assert "nothing is scored" in population.note
    with pytest.raises(InputError, match=why):
        load_target(domain_from(path), labels_needed=True)
    if "several" not in why:
        with pytest.raises(InputError, match=why):
            load_target(domain_from({"path": str(path), "columns": {"label": "label"}}))


def test_an_empty_list_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": []}\n{"text": "b", "label": []}\n')
    assert load_target(domain_from(path)).hidden is None
    path.write_text(path.read_text() + '{"text": "c", "label": "x"}\n{"text": "d", "label": "y"}\n')
    population, labels = load_source(domain_from(path))
    assert (population.texts, labels.names, population.dropped) == (["c", "d"], ("x", "y"), {"no label": 2})


# --- labels


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ((1, "1", 1.0, True, " 1 ", "1.0", "+1", np.int64(1), np.float32(1), np.True_, np.str_("1")), "1"),
        ((None, "", "  ", float("nan"), np.nan), None),
        ((-1, "-1", -1.0, "-1.0", np.int64(-1)), "-1"),
        ((2.5, "2.5", np.float32(2.5)), "2.5"),
        ((1.1, "1.1", np.float32(1.1)), "1.1"),
        (("1.10",), "1.10"),
        (("caf\u00e9", "cafe\u0301"), "caf\u00e9"),
        (("007",), "007"),
        (("positive", " positive\t"), "positive"),
        ((10**20, str(10**20)), str(10**20)),
        (("none",), "none"),
    ],
)
def test_equal_labels_are_normalised_alike(values: tuple[object, ...], label: str | None) -> None:
    assert [normalise(value) for value in values] == [label] * len(values)
    assert normalise_column(values) == [label] * len(values)


def test_words_for_true_and_false_need_a_column_of_their_own() -> None:
    assert normalise_column(["True", "false", None]) == ["1", "0", None]
    assert normalise_column([True, "FALSE", 1]) == ["1", "0", "1"]
    assert normalise_column(["true", "false", "maybe"]) == ["true", "false", "maybe"]
    with pytest.raises(InputError, match="a list"):
        normalise_column([["a"]])


def test_classes_are_ordered_by_number_or_alphabet_or_as_declared() -> None:
    assert LabelSet.from_raw(["10", 9, "2", 2.0], None, "a").names == ("2", "9", "10")
    assert LabelSet.from_raw(["10", "b", "a"], None, "a").names == ("10", "a", "b")
    assert LabelSet.from_raw(["a", "b"], ["b", "a", "c"], "a").names == ("b", "a", "c")
    labels = LabelSet(("b", "a"))
    assert labels.encode(["a", " b ", None, "?", float("nan")]).tolist() == [1, 0, -1, -1, -1]
    assert labels.encode([]).dtype == np.int64
    assert labels.unknown(["?", "a", None, "x", "?"]) == {"?": 2, "x": 1}


def test_encode_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    values = [1, "1", 2.0, "2", None, "x", "3.0", -1, True, float("nan")]
    raw = [values[index] for index in rng.integers(0, len(values), 500)]
    names = ("1", "2", "3")
    slow = [names.index(label) if (label := normalise(value)) in names else -1 for value in raw]
    assert LabelSet(names).encode(raw).tolist() == slow


def test_undeclared_labels_are_refused_with_file_line_and_the_nearest(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "reviews.csv", [("a", "positive"), ("b", "positve"), ("c", "negative")])
    with pytest.raises(InputError) as caught:
        load_source(domain_from(path), ["negative", "positive"])
    message = str(caught.value)
    assert "reviews.csv line 3: label 'positve' is not one of ['negative', 'positive']." in message
    assert "Did you mean 'positive'?" in message
    assert "Fix the rows, or list the labels under task.labels." in message
    with pytest.raises(InputError, match="7 rows carry such labels; the first 5 are shown"):
        LabelSet.from_raw(["x"] * 7 + ["a", "b"], ["a", "b"], "books.csv")
    with pytest.raises(InputError, match="YAML reads a bare yes or no"):
        LabelSet.from_raw(["yes", "no"], [True, False], "books.csv")
    with pytest.raises(InputError, match=r"task\.labels"):
        LabelSet.from_raw(["a", "b"], ["a", "a"], "books.csv")


def test_columns_that_hold_no_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"books: only the label 'good' in 2 rows, expected at least two"):
        LabelSet.from_raw(["good", "good"], None, "books")
    with pytest.raises(InputError, match="no labels in 2 rows"):
        LabelSet.from_raw([None, ""], None, "books")
    with pytest.raises(InputError, match=r"20 different labels in 20 rows .*columns\.label"):
        LabelSet.from_raw([f"id {row}" for row in range(20)], None, "books")


def test_a_source_without_labels_says_how_to_name_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,opinion\na,1\n")
    with pytest.raises(InputError, match=r"a\.csv: a source needs labels.*text, opinion.*columns: \{label: NAME\}"):
        load_source(domain_from(path))
    with pytest.raises(InputError, match="label column 'label' holds no value"):
        load_source(domain_from(csv_of(tmp_path, "b.csv", [("a", ""), ("b", "")])))
    with pytest.raises(InputError, match="a source needs labels"):
        load_source(Domain("x", ["a"]))


def test_a_source_drops_and_counts_rows_without_labels() -> None:
    population = source([1, None, "0", -1, 1.0], ["a", "b", "c", "d", "e"])
    assert population.texts == ["a", "c", "e"]
    assert population.labels.tolist() == [1, 0, 1]
    assert population.lines == [1, 3, 5]
    assert population.dropped == {
        "no label": 1,
        "the label -1 is read as none; task.labels: [-1, 0, 1] makes it a class": 1,
    }
    assert population.label_names == ("0", "1")
    assert population.fingerprint == hash_texts(["a", "c", "e"], None)


def test_sources_share_their_classes() -> None:
    first, second = Domain("a", ["1", "2"], labels=["x", "y"]), Domain("b", ["3", "4"], labels=["z", "y"])
    populations, labels = load_sources([first, second])
    assert labels.names == ("x", "y", "z")
    assert [population.labels.tolist() for population in populations] == [[0, 1], [2, 1]]
    with pytest.raises(InputError, match=r"domain 'b' row 1: label 'z' is not one of"):
        load_sources([first, second], ["x", "y"])


def test_fingerprints_change_with_texts_pairs_order_and_labels_apart() -> None:
    base = source([0, 1], ["ab", "c"])
    assert source([0, 1], ["a", "bc"]).fingerprint != base.fingerprint
    assert source([0, 1], ["c", "ab"]).fingerprint != base.fingerprint
    assert source([1, 0], ["ab", "c"]).fingerprint == base.fingerprint
    assert source([1, 0], ["ab", "c"]).labels_fingerprint != base.labels_fingerprint
    assert hash_texts(["ab"], ["c"]) != hash_texts(["ab", "c"], None) != hash_texts(["ab", "c"], [])


# --- splits


def test_a_split_is_stratified_exact_and_repeatable() -> None:
    population = source([0] * 150 + [1] * 37 + [2] * 13)
    rest, held = split_rows(population, 0.2, seed=3)
    assert len(held.texts) == 40
    assert np.bincount(held.labels).tolist() == [30, 7, 3]
    assert sorted(rest.lines + held.lines) == population.lines
    assert rest.lines == sorted(rest.lines)
    assert held.texts == [population.texts[line - 1] for line in held.lines]
    assert held.fingerprint == hash_texts(held.texts, None)
    again, other = split_rows(population, 0.2, seed=3)[1], split_rows(population, 0.2, seed=4)[1]
    assert again.lines == held.lines != other.lines


def test_rows_of_the_same_text_stand_on_the_same_side() -> None:
    texts = [f"Text {row % 40}" if row % 2 else f"text  {row % 40} " for row in range(200)]
    rest, held = split_rows(source([row % 40 % 3 for row in range(200)], texts), 0.3, seed=0)
    assert not set(text_keys(rest.texts).tolist()) & set(text_keys(held.texts).tolist())
    assert len(held.texts) == 60


def test_every_class_keeps_a_row_to_train_on() -> None:
    rest, _ = split_rows(source([0, 0, 1]), 0.9, seed=0)
    assert sorted(rest.labels.tolist()) == [0, 1]
    assert split_rows(source([0, 1]), 0.0, seed=0)[1].texts == []
    with pytest.raises(InputError, match=r"share of 1"):
        split_rows(source([0, 1]), 1.0, seed=0)


def test_selected_rows_keep_everything_in_step() -> None:
    population = load_target(Domain("x", ["a", "b", "c"], ["d", "e", "f"], labels=[7, 8, 9]))
    some = select_rows(population, np.array([2, 0]))
    assert (some.texts, some.text_pairs, some.lines) == (["c", "a"], ["f", "d"], [3, 1])
    assert select_rows(some, [1]).hidden.reveal("oracle") == [7]


# --- descriptions


def tokens_of(lengths: list[int]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokens(np.zeros(offsets[-1], np.int32), offsets, "")


def test_a_description_counts_what_a_loop_counts(tmp_path: Path) -> None:
    books = csv_of(tmp_path, "books.csv", [("A fine day", 1), ("a  FINE day ", 1), ("dull", 0), ("", 0), ("lost", "")])
    first = load_source(domain_from(books))[0]
    second = load_target(Domain("kitchen", ["a fine day", "a fine day", "warped pan", "dull"]))
    found = describe([first, second], {"books": tokens_of([5, 3, 1]), "kitchen": tokens_of([9, 1, 2, 6])}, 4)
    assert found[0] == {
        "name": "books",
        "role": "source",
        "path": books,
        "rows": 3,
        "duplicates": 1,
        "overlap": {"kitchen": 3},
        "texts_cut": 1,
        "tokens_cut": 1,
        "tokens": 9,
        "fertility": 9 / 7,
        "classes": {"0": 1, "1": 2},
        "dropped": {"empty text": 1, "no label": 1},
        "columns": {"text": "text", "label": "label"},
        "fingerprint": first.fingerprint,
    }
    assert found[1]["overlap"] == {"books": 3}
    assert (found[1]["texts_cut"], found[1]["tokens_cut"], found[1]["classes"]) == (2, 7, None)
    json.dumps(found)


def test_a_description_of_pairs_counts_both_texts_and_special_tokens() -> None:
    pairs = load_target(Domain("x", ["a b", "c"], ["d", "e"]))
    specials = Specials((1,), (2,), (2,), None, 0, frozenset({1, 2}), 2, 10)
    found = describe([pairs], [tokens_of([3, 1])], 6, pairs=[tokens_of([2, 1])], specials=specials)[0]
    assert (found["tokens"], found["tokens_cut"], found["texts_cut"], found["fertility"]) == (7, 2, 1, 7 / 5)
    with pytest.raises(RunError, match="1 token rows for 2 texts"):
        describe([pairs], [tokens_of([3])], 6)


def test_keys_ignore_case_and_white_space_and_keep_pairs_apart() -> None:
    keys = text_keys(["Straße  1", "STRASSE 1", "strasse 2"])
    assert keys[0] == keys[1] != keys[2]
    pairs = text_keys(["a b", "a", "A  b"], ["c", "b c", "C"])
    assert pairs[0] == pairs[2] != pairs[1]


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ([-1, 1], ("-1", "1")),  # as in files of support vector machines
        (["-1.0", "1.0"], ("-1", "1")),
        ([-2, -1, 0, 1, 2], ("-2", "-1", "0", "1", "2")),
        ([-1, 0, 2], ("-1", "0", "2")),
        (["-1", "good"], ("-1", "good")),
        ([-1, 0, 1], ("0", "1")),  # what data sets of numbered classes write for a missing label
        ([-1.0, 0.0, 1.0], ("0", "1")),
        (["nan", "a", "b"], ("a", "b")),
        (["N/A", "None", "b"], ("N/A", "None", "b")),
    ],
)
def test_labels_that_stand_for_none(raw: list[object], names: tuple[str, ...]) -> None:
    assert LabelSet.from_raw(raw * 4, None, "x").names == names
    assert load_source(Domain("x", [f"{n}" for n in range(len(raw) * 4)], labels=raw * 4))[1].names == names


@pytest.mark.parametrize("raw", [[-1, 0, 1], [-1.0, 0.0, 1.0], ["-1", "0", "1"]])
def test_a_declared_label_is_a_class_whatever_it_is(raw: list[object]) -> None:
    labels = LabelSet.from_raw(raw, [-1, 0, 1], "x")
    assert labels.names == ("-1", "0", "1")
    assert labels.encode(raw).tolist() == [0, 1, 2]
    assert LabelSet.from_raw(["nan", "a"], ["nan", "a"], "x").encode(["nan", float("nan")]).tolist() == [0, -1]


def test_a_label_read_as_none_is_said_and_counted() -> None:
    population = source([1, 0, -1, None])
    assert population.dropped["no label"] == 1
    assert [why for why in population.dropped if "task.labels: [-1, 0, 1] makes it a class" in why]
    assert LabelSet(("0", "1")).unknown([-1, "nan", 1, None]) == {"-1": 1, "nan": 1}


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (["1.1", "1.10", "1.2"], ("1.1", "1.10", "1.2")),
        (["2.50", "3.50"], ("2.50", "3.50")),
        (["2.50", 2.5, "3.50"], ("2.50", "3.50")),  # a number takes the spelling that the texts have
        (["1.1", "1.10", 1.1], ("1.1", "1.10")),
        (["1", "1.0", 1, 2], ("1", "2")),
        (["01.10", "1.10"], ("01.10", "1.10")),
    ],
)
def test_numbers_with_several_spellings_are_several_classes(raw: list[object], names: tuple[str, ...]) -> None:
    labels = LabelSet.from_raw(raw, None, "x")
    assert labels.names == names
    assert (labels.encode(raw) >= 0).all()
    assert LabelSet.from_raw(raw, names, "x").names == names
    assert labels.encode(list(names)).tolist() == list(range(len(names)))


def test_names_that_yaml_reads_as_one_number_ask_for_quotes() -> None:
    with pytest.raises(InputError, match=r"Quote names such as '1\.10'"):
        LabelSet.from_raw(["1.1", "1.10"], [1.1, 1.10], "x")
    with pytest.raises(InputError, match=r"label '2\.50' is not one of .*quote such names"):
        LabelSet.from_raw(["2.50", "3.5"], ["2.5", "3.5"], "x")


def test_where_keeps_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,part\na,-1\nb,\nc,nan\nd,1.1\ne,1.10\nf,1.0\n")

    def kept(part: object) -> object:
        return load_text(domain_from({"path": str(path), "where": {"part": part}}), "general").texts

    assert kept(-1) == ["a"]
    assert kept(None) == ["b"]
    assert kept("1.10") == ["e"]
    assert kept("1.1") == ["d"]
    assert kept([1, "1.1"]) == ["d", "f"]
    with pytest.raises(InputError, match=r"several ways: 1\.1, 1\.10\. Quote the one you mean"):
        kept(1.1)


def test_labels_in_two_forms_of_unicode_are_one() -> None:
    labels = LabelSet.from_raw(["caf\u00e9", "bar"], None, "x")
    assert labels.encode(["cafe\u0301", "bar", "caf\u00e9"]).tolist() == [1, 0, 1]
