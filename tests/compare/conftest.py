"""A comparison of a few steps on files of a few rows."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import LABELS, TEXTS


def write_rows(path: Path, texts: list[str], labels: list[int]) -> str:
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(texts, labels, strict=True))
    return path.name


def write_comparison(folder: Path, base: Path, **changes: Any) -> Path:
    """A recipe with two sources, two targets and a section `compare:`, in a folder of its own."""
    for name in ("books", "kitchen"):
        write_rows(
            folder / f"{name}.csv", [f"{t} {name} {n}" for n in range(3) for t in TEXTS], [*LABELS, *LABELS, *LABELS]
        )
        write_rows(folder / f"{name}-pool.csv", [f"the {t} {name}" for t in TEXTS], LABELS)
    pools = [{"name": name, "path": f"{name}-pool.csv"} for name in ("books", "kitchen")]
    recipe = {
        "base": str(base),
        "adapter": {"kind": "houlsby", "reduction": 4},
        "task": {"max_length": 16, "dev": 0.25},
        "train": {
            "tokens_per_batch": 96,
            "max_length": 16,
            "dtype": "float32",
            "fuse": {"tokens": 150, "learning_rate": 0.01},
            "task": {"epochs": 1, "rows_per_batch": 6, "learning_rate": 0.01},
        },
        "compare": {
            "sources": ["books.csv", "kitchen.csv"],
            "targets": pools,
            "methods": ["tfidf", "source_only", "domain_fusion"],
            "rows": [12],
            "draws": 2,
            **changes,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf8")
    return path


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_base: Callable[[str], Path]) -> Path:
    return write_comparison(tmp_path, tiny_base("bert"))
