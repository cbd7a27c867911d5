import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.memorisation import (
    choose_prompts,
    copied,
    copied_characters,
    copied_share,
    longest_copied_span,
    memorisation,
    reproduced,
    spans_in,
    window_keys,
    word_ids,
)


def as_ids(values) -> np.ndarray:
    return np.asarray(values, dtype=np.uint64)


def slow_spans(text, training, length):
    """Every window compared with every window of every training text."""
    return [
        any(
            list(text[start : start + length]) == list(one[place : place + length])
            for one in training
            for place in range(len(one) - length + 1)
        )
        for start in range(len(text) - length + 1)
    ]


def slow_longest(text, training):
    best = 0
    for one in training:
        for i in range(len(text)):
            for j in range(len(one)):
                run = 0
                while i + run < len(text) and j + run < len(one) and text[i + run] == one[j + run]:
                    run += 1
                best = max(best, run)
    return best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
def test_spans_equal_the_slow_loop(seed, length):
    rng = np.random.default_rng(seed)
    text, training = as_ids(rng.integers(0, 4, 30)), [as_ids(rng.integers(0, 4, size)) for size in (25, 3, 0, 12)]
    expected = slow_spans(text, training, length)
    assert spans_in(text, training, length).tolist() == expected
    inside = [any(expected[max(0, i - length + 1) : i + 1]) for i in range(len(text))]
    assert copied(text, training, length).tolist() == inside
    assert copied_share([text, training[1]], training, length) == pytest.approx(
        np.mean(expected + slow_spans(training[1], training, length))
    )
    assert longest_copied_span(text, training) == slow_longest(text, training)


def test_keys_tell_windows_apart():
    rng = np.random.default_rng(0)
    ids = as_ids(rng.integers(0, 3, 3000))
    for length in (1, 6, 7, 13):
        windows = [tuple(ids[i : i + length].tolist()) for i in range(len(ids) - length + 1)]
        assert len(np.unique(window_keys(ids, length))) == len(set(windows))
    assert len(window_keys(ids[:3], 4)) == 0
    with pytest.raises(InputError, match="at least 1"):
        window_keys(ids, 0)


def test_spans_do_not_cross_documents():
    assert longest_copied_span(as_ids([1, 2, 3, 4]), [as_ids([1, 2]), as_ids([3, 4])]) == 2
    assert longest_copied_span(as_ids([1, 2]), []) == 0


def test_characters_of_copied_words():
    training = [word_ids("so the cat sat on a mat")]
    text = "Now  The cat\nsat on the rug"
    marked = "".join(c if mark else "." for c, mark in zip(text, copied_characters(text, training, 3), strict=True))
    assert marked == "...  The cat\nsat on........"
    assert not copied_characters(text, training, 13).any()


def test_prompts_do_not_overlap_and_are_followed_by_their_answers():
    documents = [list(range(100, 135)), list(range(5)), list(range(200, 230))]
    prompts, answers = choose_prompts(documents, 99, seed=0, prompt=6, answer=4)
    assert len(prompts) == 6  # three places of ten tokens in each of the long ones
    assert all(
        answer == list(range(prompt[-1] + 1, prompt[-1] + 5)) for prompt, answer in zip(prompts, answers, strict=True)
    )
    every = [token for part in (*prompts, *answers) for token in part]
    assert len(set(every)) == len(every)
    assert choose_prompts(documents, 2, seed=0, prompt=6, answer=4)[0] == prompts[:2]


def test_reproduction_is_exact_and_whole():
    assert reproduced([[1, 2, 3], [1, 2], [9]], [[1, 2], [1, 2, 3], [8]]).tolist() == [True, False, False]


def test_a_parrot_is_told_from_a_stranger():
    rng = np.random.default_rng(0)
    training, control = ([rng.integers(0, 9000, 300).tolist() for _ in range(3)] for _ in range(2))

    def parrot(prompts):
        known = {tuple(one[i : i + 50]): one[i + 50 :] for one in training for i in range(len(one) - 50)}
        return [known.get(tuple(prompt), [7] * 60) for prompt in prompts]

    found = memorisation(parrot, training, control, count=5, answer=20)
    assert found["training"] == {
        "prompts": 5, "reproduced": 1.0, "tokens_matched": 20.0, "copied_share": 1.0, "longest_span": 20,
    }  # fmt: skip
    assert found["control"]["reproduced"] == found["control"]["copied_share"] == 0.0
    assert found["control"]["longest_span"] <= 1
    with pytest.raises(InputError, match="longer texts"):
        memorisation(parrot, [[1, 2, 3]], control)
    assert memorisation(parrot, training, [], count=2)["control"]["reproduced"] is None
