"""The benchmark of speed on tiny models: every way trains the same, and the page says what the records say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guidebook.evaluation.records import read_records

FOLDER = Path(__file__).parents[2] / "benchmarks" / "speed"
OWN = ("clock", "floor", "ours", "peers")


def module(name: str) -> Any:
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"speed_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    sys.path[:] = before
    for own in OWN:  # other benchmarks may have modules of these names
        sys.modules.pop(own, None)
    return made


def test_the_first_step_does_not_count() -> None:
    times = iter([0.0, 9.0, 10.0, 12.0])
    clock = module("clock").Clock(lambda: next(times), steps=2)
    state = SimpleNamespace()
    clock.on_train_begin(None, state, None)
    for _ in range(3):
        clock.on_step_end(None, state, None)
    clock.tokens = [1000, 30, 60, 7]  # one batch more is made than is trained on
    assert clock.steps == 3
    assert clock.seconds == [9.0, 1.0, 2.0]
    assert clock.rate == pytest.approx(90 / 3)


def test_blocks_keep_every_token_in_order() -> None:
    peers = module("peers")
    assert peers.blocks([[1, 2, 3], [4], [5, 6, 7]], 2) == [[1, 2], [3, 4], [5, 6]]
    items = peers.Items([[1, 2], [3]], [0, 1], passes=2)
    assert len(items) == 4
    assert items[3] == {"input_ids": [3], "attention_mask": [1], "labels": 1}


def test_the_page_says_what_the_newest_record_says() -> None:
    report = module("report")
    ways = {"stock": [10.0, 12.0, 11.0], "tuned": [20.0], "guidebook": [40.0, 44.0, 10.0], "floor": [50.0]}
    machine = {"gpu": None, "cpu": "some processor", "cores": 4}
    shared = {"machine": machine, "size": "small", "clock": "cpu", "threads": 1, "rounds": 3, "steps": 2}
    old = {**shared, "rows": {"causal_fusion": {"unit": "real tokens/s", "bf16": False, "ways": ways}}}
    new = {**shared, "rows": {"causal_fusion": {"unit": "real tokens/s", "bf16": True, "ways": ways}}}
    page = report.page([old, new])
    assert page.count("decoder, models text") == 1
    assert "some processor, 1 of 4 cores, processor time" in page
    expected = "| real tokens/s, bf16 | 11 | 20 | 40 | 50 | 3.64 | 2.00 | 80% | 10 … 44 |"
    assert expected in page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_row_is_measured_in_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = module("bench")
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setitem(bench.SIZES, "small", {**tiny, "num_key_value_heads": 1})
    texts = bench.read()
    few = type(texts)(texts.texts[:40], texts.labels[:40], texts.documents[:12])
    monkeypatch.setattr(bench, "read", lambda: few)
    records = tmp_path / "records.jsonl"
    bench.main(["--steps", "1", "--rounds", "1", "--clock", "cpu", "--records", str(records)])
    (record,) = read_records(records)
    assert list(record["rows"]) == list(bench.ROWS)
    for row in record["rows"].values():
        assert row["ways"].keys() == {"stock", "tuned", "guidebook", "floor"}
        assert all(rate > 0 for rates in row["ways"].values() for rate in rates)
    for name in ("causal_fusion", "masked_fusion"):
        trainable = record["rows"][name]["trainable"]
        assert trainable["peer"] == trainable["guidebook"], name
    assert "decoder, learns a task" in module("report").page([record])
