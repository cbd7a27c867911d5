from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from guidebook.adaptation import adapt
from guidebook.artifact import load
from guidebook.training import precision, trainer
from guidebook.training.precision import ROUNDS, Rates, measured_rates, race
from tiny import TEXTS, tiny_recipe


def clock_of(float32: float, bfloat16: float):
    """A clock on which a product takes so many seconds in each format, in turn."""
    steps = itertools.cycle([float32, bfloat16])
    ticks = itertools.chain.from_iterable((0.0, next(steps)) for _ in itertools.count())
    now = itertools.accumulate(ticks)
    return lambda: next(now)


@pytest.fixture(autouse=True)
def units(monkeypatch):
    """A processor that has bf16 units, whatever runs the tests."""
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    precision.rates.cache_clear()
    yield
    precision.rates.cache_clear()


def test_rates_are_work_over_time():
    found = race(clock_of(0.004, 0.002))
    work = 2 * 512 * 384 * 1536 / 1e9
    assert found == Rates(round(work / 0.004, 1), round(work / 0.002, 1))


def test_the_best_round_counts():
    times = iter([9.0] * 4 + [0.01, 0.02] + [9.0] * 20)
    now = itertools.accumulate(itertools.chain.from_iterable((0.0, step) for step in times))
    found = race(lambda: next(now))
    assert found.float32 == pytest.approx(2 * found.bfloat16, rel=1e-2)


def test_a_real_race_leaves_the_threads_alone():
    torch.set_num_threads(2)
    try:
        found = race()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert found.float32 > 0
    assert found.bfloat16 > 0


@pytest.mark.parametrize(("bfloat16", "faster"), [(99.0, False), (119.9, False), (120.0, True), (800.0, True)])
def test_bf16_has_to_be_worth_it(bfloat16, faster):
    assert Rates(100.0, bfloat16).bf16_is_faster is faster


def test_the_first_race_counts_ever_after(tmp_path):
    first = measured_rates(tmp_path, clock_of(0.002, 0.004))
    assert first is not None
    assert not first.bf16_is_faster
    assert measured_rates(tmp_path, clock_of(0.004, 0.001)) == first
    assert not list((tmp_path / "machine").glob("*.new"))


def test_processes_that_race_at_once_agree(tmp_path):
    clocks = [clock_of(0.002, 0.001 * number) for number in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda clock: measured_rates(tmp_path, clock), clocks))
    assert len(list((tmp_path / "machine").glob("*.json"))) == 1
    kept = measured_rates(tmp_path)
    assert kept in found


def test_another_torch_or_processor_races_again(tmp_path, monkeypatch):
    slow = measured_rates(tmp_path, clock_of(0.002, 0.004))
    monkeypatch.setattr(precision, "cpu_field", lambda name: "another")
    fast = measured_rates(tmp_path, clock_of(0.004, 0.001))
    assert slow != fast
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert measured_rates(tmp_path, clock_of(0.001, 0.001)) not in (slow, fast)


def test_a_damaged_record_is_raced_again(tmp_path):
    measured_rates(tmp_path, clock_of(0.002, 0.004))
    (place,) = (tmp_path / "machine").glob("*.json")
    place.write_text("{")
    found = measured_rates(tmp_path, clock_of(0.004, 0.001))
    assert found is not None
    assert found.bf16_is_faster
    assert measured_rates(tmp_path, clock_of(0.002, 0.004)) == found


def test_a_folder_that_cannot_be_written_does_not_stop_anything(tmp_path):
    (tmp_path / "machine").write_text("a file where the folder should be")
    found = measured_rates(tmp_path, clock_of(0.004, 0.001))
    assert found is not None
    assert found.bf16_is_faster


def test_without_bf16_units_there_is_no_race(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(precision, "race", lambda clock: pytest.fail("raced"))
    assert measured_rates(tmp_path) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the processor's race decides nothing")
@pytest.mark.parametrize(
    ("rates", "dtype"), [(Rates(100.0, 90.0), "float32"), (Rates(100.0, 300.0), "bfloat16"), (None, "float32")]
)
def test_auto_follows_the_race_and_a_named_dtype_wins(monkeypatch, tmp_path, rates, dtype):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "measured_rates", lambda root: rates)
    assert trainer.chosen_dtype("auto") == dtype
    assert trainer.chosen_dtype("bfloat16") == "bfloat16"
    assert trainer.chosen_dtype("float32") == "float32"


def test_what_is_kept_is_two_numbers(tmp_path):
    measured_rates(tmp_path, clock_of(0.002, 0.004))
    (place,) = (tmp_path / "machine").glob("*.json")
    assert json.loads(place.read_text()).keys() == {"float32", "bfloat16"}
    assert ROUNDS >= 3


@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", None])
@pytest.mark.parametrize("here", [True, False])
def test_a_guidebook_answers_in_the_number_type_that_it_was_measured_in(
    asked: str, stored: str | None, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: here)
    facts: dict[str, Any] = {"recipe": {"train": {"dtype": asked}}}
    if stored is not None:
        facts["dtype"] = stored
    if stored == "bfloat16" and asked == "auto" and not here:
        with pytest.warns(UserWarning, match="measured in bfloat16.*answers in float32"):
            assert precision.dtype_of(facts) == "float32"
    else:
        assert precision.dtype_of(facts) == (stored or asked)


def test_what_auto_chose_is_stored_and_used_where_auto_would_choose_otherwise(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    recipe = tiny_recipe(tiny_base("bert"), method="source_only", train={"dtype": "auto", "task": {"epochs": 1}})
    answers = {}
    for chosen in (True, False):
        monkeypatch.setattr(trainer, "bf16_is_fast", lambda chosen=chosen: chosen)
        monkeypatch.setattr(precision, "has_bf16", lambda: True)
        book = adapt(recipe, out=tmp_path / str(chosen))
        assert book.meta["dtype"] == ("bfloat16" if chosen else "float32")
        answers[chosen] = book.predict_proba(TEXTS, domain="source_only")
        monkeypatch.setattr(trainer, "bf16_is_fast", lambda chosen=chosen: not chosen)
        assert (load(tmp_path / str(chosen)).predict_proba(TEXTS, domain="source_only") == answers[chosen]).all()
    assert (answers[True] != answers[False]).any()
