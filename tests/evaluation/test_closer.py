"""Calibration bins, projection and alignment of rows, changed words."""

from __future__ import annotations

import numpy as np
import pytest

from guidebook.evaluation.closer import SEEN, align, calibration_bins, changed_words, project
from guidebook.evaluation.metrics import calibration_error
from tiny import build_tokenizer


@pytest.mark.parametrize("seed", range(5))
def test_bins_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet([0.7, 0.7, 0.7], size=200)
    chances[0] = [0.8, 0.1, 0.1]  # an edge belongs to the bin below it
    labels = rng.integers(3, size=200)
    expected: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(chances, labels, strict=True):
        place = next(m for m in range(1, 11) if row.max() <= m / 10)
        expected.setdefault(place, []).append((row.max(), row.argmax() == label))
    found = calibration_bins(chances, labels)
    assert [b["rows"] for b in found] == [len(expected[place]) for place in sorted(expected)]
    for bin_, place in zip(found, sorted(expected), strict=True):
        assert bin_["confidence"] == pytest.approx(np.mean([sure for sure, _ in expected[place]]), abs=1e-4)
        assert bin_["accuracy"] == pytest.approx(np.mean([right for _, right in expected[place]]), abs=1e-4)
    error = sum(b["rows"] * abs(b["confidence"] - b["accuracy"]) for b in found) / 200
    assert error == pytest.approx(calibration_error(chances.max(1), chances.argmax(1) == labels, 10), abs=2e-4)


def test_projection_keeps_what_spreads_most() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(80, 2)) * [5.0, 2.0]
    turn, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    rows = plane @ turn[:2] + 0.01 * rng.normal(size=(80, 10)) + 7
    flat, share = project(rows)
    assert share > 0.999
    assert np.sqrt((flat**2).sum(1).mean()) == pytest.approx(1)
    apart = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    shown = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert np.corrcoef(apart.ravel(), shown.ravel())[0, 1] > 0.9999  # distances up to one factor


def test_projection_of_what_cannot_be_spread() -> None:
    flat, share = project(np.ones((4, 3)))
    assert flat.tolist() == [[0.0, 0.0]] * 4
    assert share == 0.0
    flat, share = project([[1.0], [2.0], [4.0]])
    assert np.abs(flat[:, 1]).max() < 1e-12
    assert share == pytest.approx(1)


def test_alignment_undoes_turns_and_mirrors_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    fixed = rng.normal(size=(30, 2))
    for angle in (0.3, 2.0, 4.5):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for mirror in (1, -1):
            np.testing.assert_allclose(align(fixed @ turn * [1, mirror], fixed), fixed, atol=1e-9)
    stretched = align(3 * fixed, fixed)
    np.testing.assert_allclose(stretched, 3 * fixed, atol=1e-9)
    other = rng.normal(size=(30, 2))
    best = min(
        ((other @ [[np.cos(a), -np.sin(a) * m], [np.sin(a), np.cos(a) * m]] - fixed) ** 2).sum()
        for a in np.linspace(0, 2 * np.pi, 4000)
        for m in (1, -1)
    )
    assert ((align(other, fixed) - fixed) ** 2).sum() == pytest.approx(best, rel=1e-4)


def test_words_against_a_loop() -> None:
    tokenizer = build_tokenizer("bert")
    ids = tokenizer("the plot was a slow burn but the ending paid off and i cried")["input_ids"]
    rng = np.random.default_rng(0)
    place = rng.integers(1, len(ids) - 1, size=400)
    tokens, followers = np.array(ids)[place], np.array([*ids, -1])[place + 1]
    change = rng.normal(size=400)
    names = tokenizer.convert_ids_to_tokens(ids)
    found = changed_words(tokens, followers, change, tokenizer)
    expected: dict[str, list[float]] = {}
    for where, value in zip(place, change, strict=True):
        follows = names[where + 1] if where + 1 < len(names) else ""
        if names[where].isalpha() and not follows.startswith("##"):
            expected.setdefault(names[where], []).append(value)
    expected = {word: values for word, values in expected.items() if len(values) >= SEEN}
    order = sorted(expected, key=lambda word: -sum(expected[word]))
    gained = [word for word in order if sum(expected[word]) > 0]
    lost = [word for word in reversed(order) if sum(expected[word]) < 0]
    assert [line["word"] for line in found["gained"]] == gained[:15]
    assert [line["word"] for line in found["lost"]] == lost[:15]
    assert gained
    assert lost
    for line in (*found["gained"], *found["lost"]):
        assert line["times"] == len(expected[line["word"]])
        assert line["change"] == pytest.approx(np.mean(expected[line["word"]]), abs=1e-3)
    assert not {line["word"] for line in (*found["gained"], *found["lost"])} & {"PAD", "CLS", "SEP"}


def test_parts_of_words_and_rare_words_are_not_shown() -> None:
    tokenizer = build_tokenizer("bert")
    part = next(token for token in tokenizer.get_vocab() if token.startswith("##"))
    inside, word = tokenizer.convert_tokens_to_ids([part, "the"])
    tokens, followers = [word] * 3 + [inside] * 9 + [word] * 9, [word] * 3 + [word] * 9 + [inside] * 9
    found = changed_words(tokens, followers, np.ones(21), tokenizer)
    assert found == {"gained": [{"word": "the", "times": 3, "change": 1.0}], "lost": []}
    assert changed_words([word] * 2, [-1] * 2, [1.0, 1.0], tokenizer) == {"gained": [], "lost": []}


def test_words_of_tokenizers_that_mark_their_start() -> None:
    tokenizer = build_tokenizer("gpt2")
    whole, other = (tokenizer.encode(f" {word}")[0] for word in ("the", "a"))
    part = next(token for name, token in tokenizer.get_vocab().items() if name == "s")
    tokens, followers = [whole] * 8, [other] * 4 + [part] * 4
    found = changed_words(tokens, followers, np.ones(8), tokenizer)
    assert found["gained"] == [{"word": "the", "times": 4, "change": 1.0}]
