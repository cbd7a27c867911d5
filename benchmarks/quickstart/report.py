"""Write the quickstart's tables from its records into this folder's README.md and into the front page.

python benchmarks/quickstart/report.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

HERE = Path(__file__).parent
MODELS = {
    "tfidf": "TF-IDF and logistic regression",
    "zero_shot": "zero-shot prompt",
    "linear_probe": "linear probe",
    "source_only": "adapters, source only",
    "domain_fusion": "adapters, domain fusion",
}
Record = dict[str, Any]


def accuracies(records: Sequence[Record]) -> list[str]:
    """Return the mean accuracy over seeds of every model, by target, in percent."""
    targets = list(records[0]["targets"])
    lines = [f"| | {' | '.join(targets)} | mean |", "|---|" + "---|" * (len(targets) + 1)]
    for model, name in MODELS.items():
        parts = [[record["targets"][target]["accuracy"].get(model) for record in records] for target in targets]
        if any(value is None for part in parts for value in part):
            continue
        means = [100 * float(np.mean(part)) for part in parts]
        cells = " | ".join(f"{value:.1f}" for value in means)
        lines.append(f"| {name} | {cells} | **{np.mean(means):.1f}** |")
    return lines


def guesses(records: Sequence[Record]) -> list[str]:
    """Return, for every seed and target, the accuracy that is guessed without labels beside the truth."""
    lines = ["| seed | target | guessed without labels | truth |", "|---|---|---|---|"]
    for record in records:
        for name, found in record["targets"].items():
            guess, truth = found["guess"], 100 * found["accuracy"][record["method"]]
            told = (
                "withheld" if found["doubt"] else "not measured" if guess is None else f"{100 * guess['estimate']:.1f}"
            )
            lines.append(f"| {record['seed']} | {name} | {told} | {truth:.1f} |")
    return lines


def page(records: Sequence[Record]) -> str:
    """Return what stands between the marks of this folder's page."""
    lines: list[str] = []
    for recipe in dict.fromkeys(record["recipe"] for record in records):
        here = [record for record in records if record["recipe"] == recipe]
        trained = [sum(stage.get("seconds", 0) for stage in record["stages"]) / 60 for record in here]
        lines += [
            "",
            f"### `examples/{recipe}.yaml`: base `{here[0]['base']}`, {len(here)} seed{'s' if len(here) > 1 else ''}",
            "",
            f"Accuracy in percent. Training took {np.mean(trained):.1f} minutes in the mean on "
            f"{here[0]['machine']['cpu']}, {here[0]['machine']['torch_threads']} threads.",
            "",
            *accuracies(here),
            "",
            *guesses(here),
            "",
            *(f"Seed {record['seed']}: {record['note']}." for record in here if "note" in record),
        ]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def brief(records: Sequence[Record]) -> str:
    """Return the front page's table: the recipe on the real base."""
    here = [record for record in records if record["recipe"] == "quickstart"]
    seeds = "one seed" if len(here) == 1 else f"the mean of {len(here)} seeds"
    return "\n".join([f"Accuracy there in percent, {seeds}:", "", *accuracies(here)]) if here else ""


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    parser.add_argument("--front", type=Path, default=HERE.parents[1] / "README.md")
    options = parser.parse_args()
    records = read_records(options.records)
    fill(options.page, "quickstart", page(records))
    fill(options.front, "quickstart", brief(records))


if __name__ == "__main__":
    main()
