import math

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.likelihood import likelihood_change, likelihood_scores


def slow_bootstrap(values, weights, draws, seed):
    """Documents drawn one by one with replacement."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = [int(rng.integers(len(values))) for _ in values]
        found.append(sum(values[row] for row in rows) / sum(weights[row] for row in rows))
    return np.quantile(found, [0.025, 0.975])


def test_scores_equal_their_definitions():
    nats, tokens, sizes = [10.0, 30.0, 5.0], [5, 20, 4], [20, 90, 11]
    scores = likelihood_scores(nats, tokens, sizes)
    assert scores["bits_per_byte"] == pytest.approx(sum(n / math.log(2) for n in nats) / sum(sizes))
    assert scores["perplexity"] == pytest.approx(math.exp(sum(nats) / sum(tokens)))
    assert (scores["documents"], scores["tokens"], scores["bytes"]) == (3, 29, 121)


def test_intervals_equal_the_slow_loop():
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 400, 40).astype(float)
    before = sizes * rng.uniform(0.8, 1.2, 40)
    after = before - 0.1 * sizes * rng.uniform(0, 1, 40)
    scores = likelihood_scores(before, sizes / 4, sizes)
    slow = slow_bootstrap(before / math.log(2), sizes, 4000, 1)
    assert [scores["bits_per_byte_low"], scores["bits_per_byte_high"]] == pytest.approx(slow, rel=0.01)
    change = likelihood_change(before, after, sizes)
    slow = slow_bootstrap((after - before) / math.log(2), sizes, 4000, 1)
    assert [change["low"], change["high"]] == pytest.approx(slow, rel=0.05)
    assert change["low"] < change["estimate"] < change["high"] < 0
    assert not change["within_noise"]


def test_one_document_has_no_interval():
    scores = likelihood_scores([3.0], [2], [8])
    assert scores["bits_per_byte_low"] is None
    assert scores["perplexity_high"] is None
    assert likelihood_change([3.0], [2.0], [8])["within_noise"]


@pytest.mark.parametrize(
    ("columns", "found"), [(([], [], []), "at least one"), (([1.0], [1], [1, 2]), "same"), (([1.0], [1], [0]), "bytes")]
)
def test_what_cannot_be_scored(columns, found):
    with pytest.raises(InputError, match=found):
        likelihood_scores(*columns)
