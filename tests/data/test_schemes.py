"""Schemes of tags: whatever spells them, the entities are the same."""

from __future__ import annotations

import numpy as np
import pytest

from guidebook.data.schemes import scheme_of, spans, translated
from guidebook.data.tags import TagSet
from guidebook.evaluation.entities import entities, entity_scores

Spans = list[tuple[int, int, str]]
MARKS = {
    "IOB2": ["B", "I", "I", "B"],
    "IOBES": ["B", "I", "E", "S"],
    "BILOU": ["B", "I", "L", "U"],
    "BMES": ["B", "M", "E", "S"],
    "IOB1": ["I", "I", "I", "I"],
}
"""Begin, inside, end and a whole entity in each scheme."""


def spelled(length: int, found: Spans, name: str, form: str = "{mark}-{kind}", outside: str = "O") -> list[str]:
    begin, inside, end, single = MARKS[name]
    tags = [outside] * length
    for index, (start, stop, kind) in enumerate(found):
        marks = [single] if stop - start == 1 else [begin, *[inside] * (stop - start - 2), end]
        if name == "IOB1" and index and found[index - 1][1:] == (start, kind):
            marks[0] = "B"
        tags[start:stop] = [form.format(mark=mark, kind=kind) for mark in marks]
    return tags


def drawn(seed: int, kinds: list[str]) -> tuple[int, Spans]:
    random = np.random.default_rng(seed)
    found, place = [], 0
    while place < 20:
        place += int(random.integers(0, 3))
        stop = place + int(random.integers(1, 4))
        found.append((place, stop, str(random.choice(kinds))))
        place = stop
    return place, found


FORMS = ["{mark}-{kind}", "{mark}_{kind}", "{kind}-{mark}", "{kind}_{mark}", "{mark}:{kind}"]
KINDS = ["PER", "LOC", "work-of-art", "a_b"]


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lower", [False, True])
def test_every_scheme_spells_the_same_entities(name: str, form: str, lower: bool) -> None:
    rows = [drawn(seed, KINDS) for seed in range(5)]
    tags = [[_lowered(tag, form) if lower else tag for tag in spelled(*row, name, form)] for row in rows]
    scheme = scheme_of({tag for row in tags for tag in row}, tags)
    assert scheme.name == name
    for (_, found), row in zip(rows, tags, strict=True):
        assert list(spans(row, scheme)) == found


def _lowered(tag: str, form: str) -> str:
    if tag == "O":
        return tag
    return tag[0].lower() + tag[1:] if form.startswith("{mark") else tag[:-1] + tag[-1].lower()


@pytest.mark.parametrize("there", MARKS)
@pytest.mark.parametrize("here", MARKS)
@pytest.mark.parametrize("form", FORMS)
def test_tags_of_a_target_in_another_scheme_are_those_of_the_source(there: str, here: str, form: str) -> None:
    rows = [drawn(seed, ["PER", "LOC"]) for seed in range(30)]
    source = TagSet.from_raw([spelled(*row, here) for row in rows], None, "x")
    target = [spelled(*row, there, form) for row in rows]
    assert source.unknown(target) == {}
    assert source.encode(target).tolist() == source.encode([spelled(*row, here) for row in rows]).tolist()


@pytest.mark.parametrize("name", MARKS)
def test_a_row_in_its_own_scheme_stays_as_it_is(name: str) -> None:
    rows = [spelled(*drawn(seed, ["PER", "LOC"]), name) for seed in range(10)]
    scheme = scheme_of({tag for row in rows for tag in row}, rows)
    assert [list(translated(row, scheme, scheme)) for row in rows] == rows


@pytest.mark.parametrize(
    "tags",
    [
        ["O", "NOUN_M", "NOUN_S", "VERB_S"],  # grammar, not a scheme
        ["noun", "verb", "O"],
        ["PER", "LOC", "O"],
        ["E-MAIL", "PHONE", "O"],
        ["S", "U", "O"],
        ["0", "1", "2"],
    ],
)
def test_tags_without_marks_are_scored_word_by_word(tags: list[str]) -> None:
    assert scheme_of(tags).name == ""
    assert entities(tags) == {(place, place + 1, tag) for place, tag in enumerate(tags) if tag != "O"}
    assert scheme_of(tags).plain == tuple(sorted(set(tags) - {"O"}))


def test_a_stray_tag_does_not_hide_the_scheme() -> None:
    scheme = scheme_of(["O", "B-PER", "I-PER", "MISC", "X"])
    assert (scheme.name, scheme.plain) == ("IOB2", ("MISC", "X"))
    assert list(spans(["B-PER", "I-PER", "MISC", "MISC"], scheme)) == [(0, 2, "PER"), (2, 3, "MISC"), (3, 4, "MISC")]


def test_marks_without_types() -> None:
    scheme = scheme_of(["B", "I", "O"])
    assert list(spans(["B", "I", "O", "B", "B"], scheme)) == [(0, 2, ""), (3, 4, ""), (4, 5, "")]


def test_part_of_an_entity_is_wrong_in_every_scheme() -> None:
    for name in ("IOB2", "IOBES", "BILOU"):
        gold, part = spelled(3, [(0, 2, "PER")], name), spelled(3, [(0, 1, "PER")], name)
        found = entity_scores([part], [gold])
        assert (found["entity_f1"], found["entities"], list(found["per_type"])) == (0, 1, ["PER"])
        assert entity_scores([gold], [gold])["entity_f1"] == 1


def test_a_word_that_ends_an_entity_ends_it() -> None:
    scheme = scheme_of(["B-a", "I-a", "E-a", "S-a", "O"])
    assert list(spans(["B-a", "E-a", "I-a", "S-a", "I-a"], scheme)) == [
        (0, 2, "a"),
        (2, 3, "a"),
        (3, 4, "a"),
        (4, 5, "a"),
    ]
