"""The table of kinds on tiny bases: every kind and both bases give figures, and the report shows them all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from guidebook.adapters.presets import KINDS

FOLDER = Path(__file__).parents[2] / "benchmarks" / "kinds"


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"kinds_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


bench, report = module("bench"), module("report")
TINY = bench.Shape(hidden=64, layers=2, vocabulary=80, length=8, rows=2)


def test_every_kind_of_the_table_is_measured() -> None:
    assert set(KINDS) <= set(bench.VARIANTS)


@pytest.mark.parametrize("side", bench.SIDES)
@pytest.mark.parametrize("name", bench.VARIANTS)
def test_a_step_is_timed(name: str, side: str) -> None:
    found = bench.measure(name, side, TINY, 0.0)
    assert found["steps"] == 2
    assert found["step_seconds"] > 0
    assert found["trained"] > 0


@pytest.mark.parametrize("side", bench.SIDES)
def test_plain_lora_has_the_weights_of_ours(side: str) -> None:
    plain, ours = (bench.measure(name, side, TINY, 0.0)["trained"] for name in (bench.PLAIN, "lora"))
    assert plain == ours


def test_the_table_has_the_fastest_repeat_beside_full() -> None:
    def run(seconds: float) -> dict[str, Any]:
        return {"step_seconds": seconds, "trained": 5, "training_megabytes": 100.0, "peak_megabytes": 300.0}

    lines = report.table({"full": [run(0.2), run(0.3)], "lora": [run(0.15), run(0.1)]})
    assert lines[2].startswith("| lora | 5 | 100 | 0.50 | 150 | 100 MB | 1.00 |")
    assert lines[3].startswith("| full | 5 | 200 | 1.00 | 300 |")
