"""Rules of choice against slow loops, and the oracle against the optimism that it avoids."""

from __future__ import annotations

import numpy as np
import pytest

from guidebook.errors import InputError
from guidebook.evaluation.picks import FLAGSHIP, ORACLE, RANDOM, SOURCE, Candidate, oracle_accuracy, oriented, picks


def candidates(seed: int, count: int = 5, rows: int = 41) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [
        Candidate(
            f"m{index}",
            rng.random(rows) < rng.uniform(0.3, 0.9),
            float(rng.integers(5) / 4),
            {"entropy": float(rng.integers(4)), "bnm": float(rng.random())},
        )
        for index in range(count)
    ]


def slow_pick(found: list[Candidate], score) -> float:
    best, total, ties = None, 0.0, 0
    for candidate in found:
        if best is None or score(candidate) > best:
            best, total, ties = score(candidate), 0.0, 0
        if score(candidate) == best:
            total, ties = total + sum(candidate.correct) / len(candidate.correct), ties + 1
    return total / ties


@pytest.mark.parametrize("seed", range(8))
def test_every_rule_against_a_loop(seed: int) -> None:
    found = candidates(seed)
    made = picks(found, "m3")
    assert set(made) == {"entropy", "bnm", SOURCE, FLAGSHIP, RANDOM, ORACLE}
    for name in ("entropy", "bnm"):
        assert made[name].accuracy == pytest.approx(slow_pick(found, lambda c, n=name: c.scores[n]))
    assert made[SOURCE].accuracy == pytest.approx(slow_pick(found, lambda c: c.source_accuracy))
    assert made[FLAGSHIP].accuracy == pytest.approx(found[3].correct.mean())
    assert made[RANDOM].accuracy == pytest.approx(slow_pick(found, lambda c: 0))
    assert made[FLAGSHIP].names == ("m3",)
    for pick in made.values():
        assert pick.regret == pytest.approx(made[ORACLE].accuracy - pick.accuracy)


@pytest.mark.parametrize("rows", [40, 41])
def test_the_oracle_is_scored_on_the_rows_that_did_not_choose_it(rows: int) -> None:
    right = np.random.default_rng(rows).random((6, rows)) < 0.6
    order = np.random.default_rng(0).permutation(rows).tolist()
    cut = (rows + 1) // 2
    total, hits = 0, 0.0
    for choose, score in ((order[:cut], order[cut:]), (order[cut:], order[:cut])):
        counts = [sum(bool(row[place]) for place in choose) for row in right]
        best = [index for index, count in enumerate(counts) if count == max(counts)]
        hits += sum(sum(bool(right[index][place]) for place in score) for index in best) / len(best)
        total += len(score)
    assert oracle_accuracy(right)[0] == pytest.approx(hits / total)


def test_thirty_equal_candidates_have_no_better_one() -> None:
    """All are right half of the time: the best of thirty on its own rows looks far better, the oracle here does not."""
    rng = np.random.default_rng(0)
    tables = [rng.random((30, 200)) < 0.5 for _ in range(200)]
    naive = np.mean([table.mean(1).max() for table in tables])
    honest = np.mean([oracle_accuracy(table)[0] for table in tables])
    assert naive > 0.56
    assert abs(honest - 0.5) < 0.008


def test_rules_that_cannot_be_applied_are_left_out() -> None:
    rng = np.random.default_rng(1)
    found = [
        Candidate("a", rng.random(10) < 0.5, None, {"bnm": 1.0, "snd": 2.0}),
        Candidate("b", rng.random(10) < 0.5, 0.5, {"bnm": float("nan")}),
    ]
    made = picks(found, "c")
    assert set(made) == {"bnm", RANDOM, ORACLE}
    assert made["bnm"].names == ("a",)


def test_scores_are_turned() -> None:
    scores = {"entropy": (0.3, False), "bnm": (1.0, True), "gone": (None, True)}
    found = oriented({name: {"value": value, "higher_is_better": up} for name, (value, up) in scores.items()})
    assert found == {"entropy": -0.3, "bnm": 1.0}


@pytest.mark.parametrize("wrong", ["one", "same name", "rows", "one row"])
def test_what_is_no_choice_is_refused(wrong: str) -> None:
    found = candidates(0, count=2)
    if wrong == "one":
        found = found[:1]
    if wrong == "same name":
        found = [found[0], found[0]]
    if wrong == "rows":
        found[1] = candidates(0, rows=40)[1]
    if wrong == "one row":
        found = candidates(0, count=2, rows=1)
    with pytest.raises(InputError, match=r"candidates|test rows"):
        picks(found, "m0")
