"""Columns of data frames, arrays and generators are lists; tables, mappings and half an emoji are refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import guidebook as gb
from guidebook.artifact import Guidebook
from guidebook.data.columns import Columns
from guidebook.data.domains import Domain, domain_from, load_source, load_target, load_text
from guidebook.data.in_memory import is_missing, texts_of
from guidebook.data.read import read_table
from guidebook.errors import InputError
from guidebook.recipe import recipe_from

TEXTS = ["the pan warped", "it boils fast", "a dull knife", "a fine pot"]
LABELS = ["bad", "good", "bad", "good"]
CUT = "\ud83d"


class NAType:
    """As pandas.NA: a comparison with it is neither true nor false."""

    def __eq__(self, other: object) -> Any:
        return self

    def __ne__(self, other: object) -> Any:
        return self

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class Series:
    """As a column of a data frame whose index does not begin at zero."""

    ndim = 1

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return iter(self.values)

    def __getitem__(self, key: int) -> Any:
        raise KeyError(key)

    def tolist(self) -> list[Any]:
        return list(self.values)


class Frame:
    """As a data frame: iterating it gives the names of its columns."""

    ndim, shape = 2, (4, 1)

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Any:
        return iter(["text"])


COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": lambda values: np.array(values, dtype=object),
    "series": Series,
    "generator": lambda values: (value for value in values),
    "map": lambda values: map(str, values),
    "keys": lambda values: dict.fromkeys(values).keys() if len(set(values)) == len(values) else values,
}
NO_COLUMNS: dict[str, Any] = {
    "string": "the pan warped",
    "bytes": b"the pan warped",
    "frame": Frame(),
    "table": np.array([TEXTS, TEXTS]),
    "scalar": np.array("the pan warped"),
    "mapping": {"text": TEXTS},
    "set": set(TEXTS),
    "number": 5,
}
MISSING = {"None": None, "nan": float("nan"), "numpy": np.float64("nan"), "NaT": np.datetime64("NaT"), "NA": NAType()}


def book(domains: tuple[str, ...] = ("kitchen", "hotels")) -> Guidebook:
    """A guidebook whose base calls everything good with a probability of 0.75."""
    meta = {
        "task": {"labels": ["bad", "good"], "pooling": "mean", "pairs": False, "max_length": 16},
        "recipe": {"train": {"dtype": "float32"}},
        "serves": dict.fromkeys(domains, "all"),
        "variants": {"all": {}},
    }
    host: Any = SimpleNamespace(tokenizer=None)
    made = Guidebook(host, {"book": (Path("book"), meta)})
    made._activate = lambda *place: (None, meta)  # type: ignore[assignment, return-value, method-assign]
    return made


@pytest.fixture(autouse=True)
def predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidebook.artifact.make_rows", lambda texts, *rest, **more: texts)
    monkeypatch.setattr(
        "guidebook.artifact.predict_probabilities",
        lambda host, head, texts, *rest, **more: np.array([[0.25, 0.75]] * len(texts)),
    )


@pytest.mark.parametrize("kind", COLUMNS)
def test_whatever_is_a_column_gives_the_same_rows(kind: str) -> None:
    column = COLUMNS[kind]
    population, labels = load_source(Domain("books", column(TEXTS), labels=column(LABELS)))
    assert (list(population.texts), labels.names) == (TEXTS, ("bad", "good"))
    assert population.labels is not None
    assert population.labels.tolist() == [0, 1, 0, 1]
    pairs = load_text(Domain("pairs", column(TEXTS), column(TEXTS[::-1])), "general")
    assert pairs.text_pairs == TEXTS[::-1]
    assert texts_of(column(TEXTS), "X") == TEXTS
    found = book().predict(column(TEXTS), domain=column(["kitchen", "hotels", "all", "kitchen"][: len(TEXTS)]))
    assert found.tolist() == ["good"] * 4


@pytest.mark.parametrize("value", NO_COLUMNS)
def test_whatever_is_no_column_is_refused(value: str) -> None:
    wrong = NO_COLUMNS[value]
    for fields in ({"texts": wrong}, {"texts": TEXTS, "labels": wrong}, {"texts": TEXTS, "text_pairs": wrong}):
        with pytest.raises(InputError, match=r"domain 'b': \w+ (is|has)"):
            Domain("b", **fields)
        with pytest.raises(InputError, match=r"domain 'b': \w+ (is|has)"):
            domain_from({"name": "b", **fields})
    for call in (book().predict, lambda texts: texts_of(texts, "X"), lambda texts: book().generate(texts)):
        with pytest.raises(InputError, match="expected"):
            call(wrong)
    if value != "string":
        with pytest.raises(InputError, match="domain"):
            book().predict(TEXTS, domain=wrong)
        with pytest.raises(InputError):
            gb.Recipe(source=TEXTS[0], targets=wrong)


@pytest.mark.parametrize("name", MISSING)
def test_missing_texts_and_labels_are_dropped_and_counted(name: str) -> None:
    value = MISSING[name]
    assert is_missing(value)
    texts, labels = [*TEXTS, value, "left over"], [*LABELS, "good", value]
    population, _ = load_source(Domain("books", Series(texts), labels=Series(labels)))
    assert list(population.texts) == TEXTS
    assert population.dropped == {"empty text": 1, "no label": 1}
    assert len(load_target(Domain("kitchen", [*TEXTS, value])).texts) == 4
    rows = [text.split() for text in TEXTS]
    assert len(load_text(Domain("kitchen", [*rows, value]), "target", words=True).texts) == 4
    with pytest.raises(InputError, match="texts row 5 is missing"):
        book().predict([*TEXTS, value])


def test_domains_that_are_no_names_are_refused() -> None:
    for wrong in ([["kitchen"], "hotels", "all", "all"], [1, 2, 3, 4], [NAType()] * 4):
        with pytest.raises(InputError, match="expected a name"):
            book().predict(TEXTS, domain=wrong)


def test_words_in_arrays_are_words() -> None:
    rows = [np.array(text.split(), dtype=object) for text in TEXTS]
    assert list(load_text(Domain("kitchen", rows), "target", words=True).texts) == TEXTS


@pytest.mark.parametrize("text", ["The kettle boils fast.", "Great!", "x" * 300, "nice\noven", "锅很好。"])
def test_texts_in_the_place_of_a_path_are_refused(text: str) -> None:
    for fields in ({"targets": [text, f"{text} again."]}, {"source": text}, {"general": Series([text])}):
        with pytest.raises(InputError, match="texts in memory are a domain"):
            gb.Recipe(**fields)


def test_names_with_spaces_are_paths(tmp_path: Path) -> None:
    (tmp_path / "my reviews").mkdir()
    assert domain_from(str(tmp_path / "my reviews")).name == "my reviews"
    assert domain_from("all my reviews.csv.gz").name == "all my reviews"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz"])
@pytest.mark.parametrize("column", ["text", "text_pair", "label"])
def test_half_an_emoji_in_a_file_is_refused_with_its_line(tmp_path: Path, suffix: str, column: str) -> None:

    rows = [{"text": f"fine {n}", "text_pair": "\ud83d\ude00", "label": f"{n}"} for n in range(4)]
    rows[2][column] = f"cut {CUT}"
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    with pytest.raises(InputError, match=rf"line 3: the {column} holds half of a surrogate pair"):
        read_table(path, Columns(), {})
    if column == "label":
        assert len(read_table(path, Columns(), {}, labels=False).texts) == 4


@pytest.mark.parametrize(
    "row", [{"tokens": ["a", CUT], "tags": ["O", "O"]}, {"tokens": ["a", "b"], "tags": ["O", CUT]}]
)
def test_half_an_emoji_in_words_and_tags_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:

    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": ["a"], "tags": ["O"]}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"line 2: the t[a-z]+ holds half of a surrogate pair"):
        read_table(path, Columns(), {}, words=True)


@pytest.mark.parametrize(
    "use",
    [
        lambda: load_text(Domain("b", [*TEXTS, CUT]), "general"),
        lambda: load_text(Domain("b", TEXTS, [*TEXTS[1:], CUT]), "general"),
        lambda: load_source(Domain("b", TEXTS, labels=["a", "b", CUT, "a"])),
        lambda: book().predict([*TEXTS, CUT]),
        lambda: book().generate([CUT]),
        lambda: recipe_from({"source": "b.csv", "task": {"labels": ["a", CUT]}}),
        lambda: recipe_from({"targets": [{"name": f"b{CUT}", "path": "b.csv"}]}),
    ],
)
def test_half_an_emoji_is_refused_wherever_text_enters(use: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"half of a surrogate pair|not valid Unicode"):
        use()
