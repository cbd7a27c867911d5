"""JSON that every reader accepts: numbers that it cannot hold become null, and nothing becomes text by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidebook.evaluation.records import append_record, read_records
from guidebook.strict_json import dumps, plain, undefined
from guidebook.writing import facts_json

NOT_NUMBERS = {
    "nan": float("nan"),
    "inf": float("inf"),
    "numpy's": np.float32("nan"),
    "-inf": -np.inf,
    "in an array": np.array([1.0, np.nan]),
}


def refuse(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize("value", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_numbers_that_json_cannot_hold_are_null_and_told(value: Any, tmp_path: Path) -> None:
    facts = {"scores": {"a": [value]}, "b": 1.5}
    found = json.loads(facts_json(facts), parse_constant=refuse)
    assert found["b"] == 1.5
    assert "null" in json.dumps(found["scores"])
    (place,) = found["undefined"]
    assert place.startswith("scores.a[0]")
    assert json.loads(facts_json(found))["scores"] == found["scores"]
    append_record(tmp_path / "records.jsonl", facts)
    assert read_records(tmp_path / "records.jsonl")[0]["scores"] == found["scores"]
    assert "undefined" not in json.loads(facts_json({"b": 1.5}))


REFUSED = [object(), {1, 2}, b"bytes", 1j, np.array([object()]), {None: 1}, {True: 1}]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: repr(value)[:9])
def test_what_json_cannot_hold_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(TypeError, match=r"recipe\.x\[1\].*JSON"):
        dumps({"recipe": {"x": [0, value]}})


def test_plain_types() -> None:
    value = {"a": np.int64(3), "b": (Path("x"), np.bool_(True)), 7: np.arange(2), "c": None, "d": "ü"}
    assert plain(value) == {"a": 3, "b": ["x", True], "7": [0, 1], "c": None, "d": "ü"}
    assert not list(undefined(value))
    assert dumps({"d": "ü"}) == '{"d": "ü"}'
