"""What is said of a source's classes before training."""

from __future__ import annotations

import pytest

from guidebook.data.classes import class_notes
from guidebook.data.corpus import read_corpus
from guidebook.data.domains import Domain, load_sources


def notes(labels: list[object], declared: list[object] | None = None) -> list[str]:
    texts = [f"text {row}" for row in range(len(labels))]
    return class_notes(load_sources([Domain("d", texts, labels=labels)], declared)[0])


def test_every_class_is_shown_with_its_rows() -> None:
    assert notes(["neg", "pos", "unsup"] * 8) == ["classes: neg 8, pos 8, unsup 8"]
    assert notes(["a", "b"], ["a", "b", "c"]) == ["classes: a 1, b 1, c 0", "no row has the label c"]
    many = notes([f"class {n:02}" for n in range(30)] * 3)
    assert many[0].endswith("class 19 3 and 10 more")


@pytest.mark.parametrize("sign", ["|", ";", ", ", "/"])
def test_labels_that_look_like_lists_are_said(sign: str) -> None:
    found = notes(["clean", f"clean{sign}food", f"food{sign}price", "price"] * 3)
    assert any("look like several labels" in line for line in found)
    assert len(notes(["Portland, OR", "Washington, DC"] * 3)) == 1


def test_numbers_that_are_kept_apart_are_said() -> None:
    assert any("1.1, 1.10 are classes of their own" in line for line in notes(["1.1", "1.10", "1.2"] * 3))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["B-x", "I-x", "O"], "as IOB does"),
        (["B-x", "E-x", "S-x"], "as IOBES does"),
        (["noun", "verb", "O"], "every word with a tag but O is scored by itself"),
        (["B-x", "I-x", "MISC"], "scored one by one: MISC"),
    ],
)
def test_how_tags_are_read_is_said(tags: list[str], said: str) -> None:
    populations, _ = load_sources([Domain("d", [["a"] * len(tags)], labels=[tags])], words=True)
    found = class_notes(populations)
    assert len(found) == 2
    assert found[0].startswith("tags (words): ")
    assert said in found[1]


@pytest.mark.parametrize("words", [True, False])
def test_a_source_with_too_few_texts_holds_none_out(words: bool) -> None:
    texts = [["a", "b"]] * 6 if words else ["a b", "c d"] * 3
    labels = [["O", "B-x"]] * 6 if words else ["x", "y"] * 3
    corpus = read_corpus([Domain("s", texts, labels=labels)], [Domain("t", texts)], words=words)
    assert corpus.dev == ()
    assert len(corpus.sources[0].texts) == 6
