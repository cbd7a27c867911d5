"""Entities of tags, their F1 and its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from guidebook.evaluation.entities import entities, entity_counts, entity_difference, entity_scores, f1_of

TAGS = ["O", "B-a", "I-a", "B-b", "I-b"]


def slow(tags: list[str]) -> set[tuple[int, int, str]]:
    """Every span, tried one by one: it begins an entity, goes on inside it, and ends there."""
    found = set()
    for start in range(len(tags)):
        for stop in range(start + 1, len(tags) + 1):
            kind = tags[start][2:]
            begins = tags[start][0] == "B" or (tags[start][0] == "I" and (start == 0 or tags[start - 1][2:] != kind))
            inside = all(tag == f"I-{kind}" for tag in tags[start + 1 : stop])
            ends = stop == len(tags) or tags[stop] != f"I-{kind}"
            if kind and begins and inside and ends:
                found.add((start, stop, kind))
    return found


def test_entities_against_every_span() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        tags = [TAGS[i] for i in random.integers(0, 5, random.integers(1, 9))]
        assert entities(tags) == slow(tags), tags


def test_plain_classes_of_words_are_entities_of_one_word() -> None:
    assert entities(["noun", "O", "verb"]) == {(0, 1, "noun"), (2, 3, "verb")}


def test_scores_of_a_worked_example() -> None:
    gold = [["B-a", "I-a", "O"], ["B-b", "O", "B-a"]]
    guess = [["B-a", "I-a", "B-b"], ["B-b", "I-b", "O"]]
    found = entity_scores(guess, gold)
    assert found["entity_precision"] == pytest.approx(1 / 3)
    assert found["entity_recall"] == pytest.approx(1 / 3)
    assert found["entity_f1"] == pytest.approx(1 / 3)
    assert found["entities"] == 3
    assert found["per_type"]["a"] == {"f1": pytest.approx(2 / 3), "entities": 2}
    assert found["per_type"]["b"]["f1"] == 0
    assert found["entity_f1_low"] <= found["entity_f1"] <= found["entity_f1_high"]
    assert f1_of(np.zeros((2, 3), np.int64)) == 0


def test_the_paired_difference_of_a_prediction_with_itself_is_zero() -> None:
    gold = [["B-a", "O"], ["B-b", "I-b"]]
    guess = [["B-a", "O"], ["O", "B-b"]]
    same = entity_difference(guess, guess, gold)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    better = entity_difference(gold, guess, gold)
    assert better.estimate == pytest.approx(1 - f1_of(entity_counts(guess, gold)))
