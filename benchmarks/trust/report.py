"""Write what records say of scores, guesses and vocabularies into this folder's README.md.

python benchmarks/trust/report.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trust.guessing import adapters_page, estimates_page
from trust.picking import picks_page
from trust.words import vocabulary_page

HERE = Path(__file__).parent
CATALOGUE = HERE.parent / "catalogue"
PICKED_FROM = ("records.jsonl", "withdrawn.jsonl")
"""The catalogue's runs, and those that it took back because they collapsed: what a rule of choice must not fall for."""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--catalogue", type=Path, nargs="*", default=[CATALOGUE / name for name in PICKED_FROM])
    parser.add_argument("--amazon", type=Path, default=HERE.parent / "amazon" / "records.jsonl")
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    options = parser.parse_args()
    records = read_records(options.records)
    runs = [record for path in options.catalogue for record in read_records(path)]
    fill(options.page, "picks", picks_page(runs))
    fill(options.page, "adapters", adapters_page(runs))
    fill(options.page, "estimates", estimates_page(records))
    fill(options.page, "vocabulary", vocabulary_page(records, read_records(options.amazon)))


if __name__ == "__main__":
    main()
