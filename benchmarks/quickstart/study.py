"""The quickstart as a newcomer runs it, on several seeds: what it reaches, what it guesses, how long it takes.

    nice python benchmarks/quickstart/study.py                      # the real base, then the packaged one
    nice python benchmarks/quickstart/study.py --recipes quickstart

Stages that were trained before come from the cache; a seed that has its record is not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from guidebook.adaptation import adapt
from guidebook.evaluation.records import append_record, read_records
from guidebook.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("quickstart", "quickstart-offline")
Record = dict[str, Any]


def run(name: str, seed: int) -> Record:
    """Run one of the example recipes and return what its guidebook says."""
    recipe = load_recipe(ROOT / "examples" / f"{name}.yaml", [f"seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        book = adapt(recipe, out=Path(folder) / "run")
        facts = book.meta
    guessed = {entry["name"]: entry for entry in facts["scores"]["targets"]}
    method = facts["method"]
    return {
        "recipe": name,
        "seed": seed,
        "base": facts["base"]["id"],
        "base_fingerprint": facts["base"]["fingerprint"],
        "method": method,
        "targets": {
            target["name"]: {
                "rows": target["rows"],
                "accuracy": {arm: scores["accuracy"] for arm, scores in target["scores"].items()},
                "difference": target.get("difference"),
                "guess": guessed[target["name"]]["estimates"].get(method, {}).get("threshold_confidence"),
                "doubt": guessed[target["name"]]["doubts"].get(method),
                "prior": guessed[target["name"]].get("prior"),
            }
            for target in facts["evaluation"]["targets"]
        },
        "stages": [
            {key: stage[key] for key in ("arm", "name", "cached", "seconds", "tokens") if key in stage}
            for stage in facts["stages"]
        ],
        "seconds": facts["seconds"],
        "versions": facts["versions"],
        "machine": facts["machine"],
    }


def main() -> None:
    """Run what has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    options = parser.parse_args()
    for name in options.recipes:
        for seed in options.seeds:
            if not any((record["recipe"], record["seed"]) == (name, seed) for record in read_records(options.records)):
                record = run(name, seed)
                append_record(options.records, record)
                print(name, seed, {key: found["accuracy"] for key, found in record["targets"].items()}, flush=True)


if __name__ == "__main__":
    main()
