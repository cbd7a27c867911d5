"""Words, their tags and their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidebook.data.domains import Domain, load_sources, load_target, load_text
from guidebook.data.gold import reveal_gold
from guidebook.data.tags import UNTAGGED, TagSet, flat, words_of
from guidebook.data.tokens import read_specials, tokenise
from guidebook.data.words import first_tokens, word_rows
from guidebook.errors import InputError
from tiny import TEXTS, build_tokenizer

FAMILIES = ("bert", "roberta", "gpt2")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [6, 9, 64])
def test_every_word_is_read_at_its_first_token_in_one_window(family: str, length: int) -> None:
    tokenizer = build_tokenizer(family)
    specials = read_specials(tokenizer)
    made = word_rows(TEXTS, tokenizer, length, specials)
    assert made.tokens.lengths.max() <= length
    plain = tokenise(TEXTS, tokenizer)
    framed = slice(len(specials.before), None if not specials.after else -len(specials.after))
    for row, text in enumerate(TEXTS):  # windows cover the text once, in order
        pieces = [made.tokens[int(window)][framed] for window in np.flatnonzero(made.owner == row)]
        assert np.concatenate(pieces).tolist() == plain[row].tolist()
        words = text.split(" ")
        places = made.places[made.words[row] : made.words[row + 1]]
        assert len(places) == len(words)
        for index, (word, (window, position)) in enumerate(zip(words, places, strict=True)):
            alone = tokenizer(word if index == 0 or family != "gpt2" else f" {word}", add_special_tokens=False)
            assert made.tokens[int(window)][position] == alone["input_ids"][0]
            assert made.owner[window] == row


def test_first_tokens_against_a_slow_loop() -> None:
    text, spans = "ab c defg", [(0, 1), (1, 2), (2, 4), (5, 7), (7, 9)]
    slow = []
    start = 0
    for word in text.split(" "):
        inside = [i for i, (_, stop) in enumerate(spans) if start < stop <= start + len(word)]
        slow.append(inside[0])
        start += len(word) + 1
    assert first_tokens(text, spans).tolist() == slow == [0, 2, 3]
    assert first_tokens("a b c", [(0, 1), (4, 5)]).tolist() == [0, 1, 1]  # nothing is left of b


def test_tags_stand_at_the_first_tokens() -> None:
    tokenizer = build_tokenizer("bert")
    made = word_rows(TEXTS, tokenizer, 8, read_specials(tokenizer))
    tags = np.arange(len(made.places))
    spread = made.per_token(tags)
    assert sorted(spread[spread >= 0].tolist()) == tags.tolist()
    for tag, (window, position) in zip(tags, made.places, strict=True):
        assert spread[made.tokens.offsets[window] + position] == tag


def test_files_of_lists_and_of_texts_are_one(tmp_path: Path) -> None:
    rows = [(["Anna", "reads", "here"], ["B-person", "O", "O"]), (["Rome", "burns"], ["B-place", "O"])]
    lists, texts = tmp_path / "lists.jsonl", tmp_path / "texts.jsonl"
    lists.write_text("".join(json.dumps({"tokens": w, "tags": t, "tags4": t}) + "\n" for w, t in rows))
    texts.write_text("".join(json.dumps({"text": " ".join(w), "tags": " ".join(t)}) + "\n" for w, t in rows))
    found = [load_sources([Domain("d", path=str(path))], words=True) for path in (lists, texts)]
    memory = load_sources([Domain("d", [w for w, _ in rows], labels=[t for _, t in rows])], words=True)
    for populations, tags in (*found, memory):
        assert populations[0].texts == ["Anna reads here", "Rome burns"]
        assert tags.names == ("O", "B-person", "B-place")
        assert flat(populations[0].labels).tolist() == [1, 0, 0, 2, 0]
    assert load_target(Domain("d", path=str(lists)), words=True).texts == ["Anna reads here", "Rome burns"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "line 2: 1 tags for 2 words"),
        ({"tokens": ["a b"], "tags": ["O"]}, "'a b' is not a word"),
        ({"tokens": ["a"], "tags": 3}, "3 is not a list"),
    ],
)
def test_wrong_rows_are_named(row: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"tokens": ["x", "y"], "tags": ["O", "B-z"]}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        load_sources([Domain("d", path=str(path))], words=True)


def test_tag_sets() -> None:
    tags = TagSet.from_raw([["O", "B-b", "I-b"], "B-a O"], None, "x")
    assert tags.names == ("O", "B-a", "B-b", "I-b")
    assert tags.encode(["B-a B-c", None]).tolist() == [(1, -1), ()]
    assert tags.unknown(["B-a B-c", ["B-c"]]) == {"B-c": 2}
    with pytest.raises(InputError, match="at least two"):
        TagSet.from_raw([["O", "O"]], None, "x")
    with pytest.raises(InputError, match="line 7: tag 'B-c' is not one of"):
        TagSet.from_raw([["O", "B-c"]], ["O", "B-b"], "x", lines=[7])
    with pytest.raises(InputError, match="not a word"):
        words_of(["a", ""])


def test_conll_files(tmp_path: Path) -> None:
    path = tmp_path / "news.conll"
    path.write_text("-DOCSTART- -X- O O\n\nAnna NNP I-NP B-person\nreads VB B-VP O\n\n\nRome NNP I-NP B-place\n")
    populations, tags = load_sources([Domain("news", path=str(path))], words=True)
    assert populations[0].texts == ["Anna reads", "Rome"]
    assert list(populations[0].lines) == [3, 7]
    assert tags.names == ("O", "B-person", "B-place")
    bare = tmp_path / "bare.conll"
    bare.write_text("Anna\nreads\n")
    assert load_target(Domain("bare", path=str(bare)), words=True).hidden is None
    path.write_text("Anna\tO\nreads\n")
    with pytest.raises(InputError, match="line 2: 1 columns"):
        load_target(Domain("news", path=str(path)), words=True)


# --- tags of targets


def tagged_file(path: Path, rows: list[tuple[list[str], object]]) -> Domain:
    path.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in rows))
    return Domain("d", path=str(path))


@pytest.mark.parametrize("none", [None, [], ""])
@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_of_a_target_without_tags_are_left_out_and_counted(none: object, in_memory: bool, tmp_path: Path) -> None:
    rows = [(["a", "b", "c"], ["O", "B-x", "I-x"]), (["d", "e"], none), (["f"], ["B-y"])]
    domain = tagged_file(tmp_path / "d.jsonl", rows)
    if in_memory:
        domain = Domain("d", [words for words, _ in rows], labels=[tags for _, tags in rows])
    gold = reveal_gold(load_target(domain, words=True), TagSet(("O", "B-x", "I-x")))
    assert gold is not None
    assert gold.items.tolist() == [0, 1, 2, UNTAGGED, UNTAGGED, -1]
    assert (gold.without, gold.unknown) == (1, {"B-y": 1})
    assert gold.labelled.tolist() == [True, False, True]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("load", [load_target, lambda domain, words: load_sources([domain], words=words)])
@pytest.mark.parametrize("tags", [["O"], ["O", "O", "O"], "O O O"])
def test_tags_that_do_not_fit_their_words_are_refused_with_the_line(
    tags: object, load: Any, in_memory: bool, tmp_path: Path
) -> None:
    rows = [(["a", "b"], ["O", "B-x"]), (["a", "b"], tags), (["a", "b", "c"], ["O", "O"])]
    domain = tagged_file(tmp_path / "d.jsonl", rows)
    if in_memory:
        domain = Domain("d", [words for words, _ in rows], labels=[tags for _, tags in rows])
    with pytest.raises(InputError) as found:
        load(domain, words=True)
    place = "domain 'd' row" if in_memory else "d.jsonl line"
    assert f"{place} 2: {1 if tags == ['O'] else 3} tags for 2 words" in str(found.value)
    assert f"{place} 3: 2 tags for 3 words" in str(found.value)


def test_text_that_is_only_read_needs_no_tags(tmp_path: Path) -> None:
    domain = tagged_file(tmp_path / "d.jsonl", [(["a", "b"], ["O"])])
    assert load_text(domain, "unlabelled", words=True).texts == ["a b"]


def test_tags_that_are_numbers_take_declared_names(tmp_path: Path) -> None:
    rows: list[tuple[list[str], object]] = [(["a", "b"], [0, 1]), (["c"], [2])]
    domain = tagged_file(tmp_path / "d.jsonl", rows)
    populations, tags = load_sources([domain], ["O", "B-x", "I-x"], words=True)
    assert flat(populations[0].labels).tolist() == [0, 1, 2]
    gold = reveal_gold(load_target(domain, words=True), tags)
    assert gold is not None
    assert gold.items.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"the tags are numbers, 0 to 2.*task\.labels"):
        load_sources([domain], words=True)
    with pytest.raises(InputError, match="line 2: tag '2' is not one of"):
        load_sources([domain], ["O", "B-x"], words=True)


def test_missing_texts_of_words_are_dropped_and_counted() -> None:
    population = load_text(Domain("d", [["a"], None, float("nan")]), "target", words=True)  # type: ignore[list-item]
    assert population.texts == ["a"]
    assert population.dropped == {"empty text": 2}


@pytest.mark.parametrize(
    ("content", "words", "tags"),
    [
        ("Invoice O\n# O\n4711 B-NUM\n", "Invoice # 4711", "O O B-NUM"),
        ("# O\nAda B-PER\n", "# Ada", "O B-PER"),
        ("# B-SIGN\nAda O\n", "# Ada", "B-SIGN O"),
        ("# sent_id 1\n# text = Ada reads\nAda B-PER\nreads O\n", "Ada reads", "B-PER O"),
        ("# newdoc\nAda B-PER\n", "Ada", "B-PER"),
        ("# O\n", "#", "O"),
        ("Ada NNP B-PER\n# SYM O\n", "Ada #", "B-PER O"),
        ("#\tO\nAda\tB-PER\n", "# Ada", "O B-PER"),
    ],
)
def test_a_hash_may_be_a_word(content: str, words: str, tags: str, tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text(f"The O\npan B-y\n\n{content}")
    names = ["O", "B-y", "B-NUM", "B-PER", "B-SIGN"]
    populations, found = load_sources([Domain("d", path=str(path))], names, words=True)
    assert populations[0].texts[-1] == words
    assert [found.names[tag] for tag in populations[0].labels[-1]] == tags.split()


def test_comments_divide_sentences_as_empty_lines_do(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("# sent 1 of 2\nA O\nb B-x\n# sent 2 of 2\nC O\n")
    assert load_text(Domain("d", path=str(path)), "unlabelled", words=True).texts == ["A b", "C"]
