"""Write the study's tables from its records into this folder's README.md.

python benchmarks/catalogue/report.py
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from guidebook.evaluation.records import read_records
from guidebook.reports.marks import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from study import (
    CHOSEN_BY,
    FLAGSHIP,
    PLACEBO,
    SCREENED,
    SHIFTS,
    SIDE_BY_SIDE,
    TAKES_LABELS,
    TWIN,
    Budget,
    done,
    everything,
    finalists,
    finals,
)

from comparing import (
    Difference,
    Record,
    brief_of,
    by_cell,
    compare,
    groups,
    means,
    row,
    table,
    verdict,
    where_it_hurts,
)

HERE = Path(__file__).parent
TITLES = {
    "screening": "Screening: every method, 200 source labels",
    "finalists": "Finalists: eight directions that nothing was chosen on, 200 source labels",
    "many": "Finalists: the same directions, 1,700 source labels",
    "mnli": "MNLI genres, all source labels",
}
FINALS = {"finalists": "200", "many": "1,700"}
"""Phase -> how many source labels it has."""


def plainly(records: Sequence[Record]) -> list[str]:
    """Say which methods help, which do not, and where each of them hurts."""
    methods = [m for m in by_cell(records) if m not in (TWIN, *TAKES_LABELS)]
    differences = compare(records, [(method, TWIN) for method in methods])
    said = {word: [f"`{d.better}`" for d in differences if verdict(d) == word] for word in ("higher", "lower")}
    noise = [f"`{d.better}`" for d in differences if verdict(d) == "within noise"]
    alone = [f"`{d.better}`" for d in differences if verdict(d) == "one model each"]
    lines = [
        f"- Better than `{TWIN}` beyond noise: {', '.join(said['higher']) or 'none'}.",
        f"- No difference to `{TWIN}` that shows: {', '.join(noise) or 'none'}.",
        f"- Worse than `{TWIN}` beyond noise: {', '.join(said['lower']) or 'none'}.",
        *([f"- Too few cells to say: {', '.join(alone)}."] if alone else []),
    ]
    for method in methods:
        places = where_it_hurts(records, method, TWIN)
        if places:
            lines.append(f"- `{method}` hurts on {', '.join(places)}.")
    return lines


def shifted(records: Sequence[Record]) -> list[str]:
    """Return every method's difference to the twin on targets of either class shares."""
    lines = [
        "| method | " + " | ".join(f"minus `{TWIN}`, {shift} | 95 % interval" for shift in SHIFTS) + " |",
        "|---|" + "---|---|" * len(SHIFTS),
    ]
    found: dict[str, dict[str, Difference]] = defaultdict(dict)
    for shift in SHIFTS:
        here = [record for record in records if record["shift"] == shift]
        for difference in compare(here, [(m, TWIN) for m in by_cell(here) if m != TWIN]):
            found[difference.better][shift] = difference
    first = next(iter(SHIFTS))
    order = sorted(found, key=lambda method: -found[method][first].found.estimate if first in found[method] else 1.0)
    for method, both in ((method, found[method]) for method in order):
        parts = []
        for shift in SHIFTS:
            interval = both[shift].found.interval if shift in both else None
            if interval is None:
                parts.append("— | —")
                continue
            parts.append(f"{100 * interval.estimate:+.1f} | {100 * interval.low:+.1f} … {100 * interval.high:+.1f}")
        lines.append(f"| `{method}` | {' | '.join(parts)} |")
    return lines


def section(phase: str, records: Sequence[Record]) -> list[str]:
    """Return one phase: label-free methods, then in a table of their own those that are given labels."""
    free = [record for record in records if record["label_free"]]
    given = [record for record in records if not record["label_free"] or record["method"] == TWIN]
    if not free:
        return []
    lines = ["", f"#### {TITLES[phase]}", "", *table(free, TWIN), "", *plainly(free)]
    pairs = [(FLAGSHIP, method) for method in by_cell(free) if method != FLAGSHIP]
    if phase in ("finalists", "many") and (beaten := compare(free, pairs)):
        lines += [
            "",
            f"Is `{FLAGSHIP}` above each of the others? The p-values are adjusted over these comparisons.",
            "",
            f"| `{FLAGSHIP}` minus | difference | 95 % interval | p (Holm) | detectable | cells | |",
            "|---|---|---|---|---|---|---|",
            *(f"| `{difference.worse}` | {row(difference)} |" for difference in beaten),
        ]
    if len(by_cell(given)) > 1:
        lines += ["", "Given labels of the target, and so in no table with the others:", "", *table(given, TWIN)]
    return lines


def missing(records: Sequence[Record], budget: Budget, chosen: Sequence[str]) -> Iterator[str]:
    """Yield, for each phase of the study, how many of its runs have no record; the finals once they are chosen."""
    domains = sorted({name for pair in SCREENED for name in pair})
    jobs = [*everything(SIDE_BY_SIDE), *(finals(chosen, domains) if chosen else ())]
    for phase in dict.fromkeys(job.phase for job in jobs):
        here = [job for job in jobs if job.phase == phase]
        without = sum(not done(records, job, budget) for job in here)
        if without:
            yield f"{without} of {len(here)} in {phase}"


def page(records: Sequence[Record]) -> str:
    """Return everything that stands between the marks."""
    lines: list[str] = []
    for (base, fingerprint, saw, budget), group in groups(records):
        spent = dict(budget)
        hours = sum(record["seconds"] for record in group) / 3600
        chosen = finalists(group, sorted({record["method"] for record in group}))
        names = ", ".join(f"`{name}`" for name in chosen) or "the screening is not complete"
        lines += [
            "",
            f"### Base `{Path(base).name}`, adapter `{spent['adapter']}`",
            "",
            f"{len(group)} runs, {hours:.1f} hours; {spent['fuse_tokens']:,} tokens per stage that models text, "
            f"{spent['epochs']:g} epochs, learning rate {spent['task_rate']:g}, {spent['test_rows']:,} test rows per "
            f"target. Fingerprint `{fingerprint[:12]}`; the base has seen: {', '.join(saw) or 'unknown'}. Placebo: "
            f"`{PLACEBO}`. Finalists, chosen by {' and '.join(CHOSEN_BY)}: {names}.",
            "",
            f"Not run yet: {', '.join(missing(group, Budget(**spent), chosen)) or 'nothing'}.",
        ]
        for phase in TITLES:
            lines += section(phase, [record for record in group if record["phase"] == phase])
        here = [record for record in group if record["phase"] == "shifted" and record["label_free"]]
        if here:
            lines += ["", "#### Targets of 85 to 15", "", *shifted(here)]
    return "\n".join(lines) + "\n" if lines else "No record yet.\n"


def brief(records: Sequence[Record]) -> str:
    """Return what docs/results.md says: the flagship against each method that has all its cells of the finals."""
    lines: list[str] = []
    for ((base, _, _, budget), group), (phase, labels) in itertools.product(groups(records), FINALS.items()):
        free = [record for record in group if record["phase"] == phase and record["label_free"]]
        all_cells = by_cell(free).get(FLAGSHIP, {}).keys()
        whole = {method for method, cells in by_cell(free).items() if cells.keys() >= all_cells}
        free = [record for record in free if record["method"] in whole]
        accuracies, cells = means(free)
        if not cells:
            continue
        pairs = [(FLAGSHIP, method) for method in accuracies if method != FLAGSHIP]
        found = {difference.worse: difference for difference in compare(free, pairs)}
        for method in sorted(accuracies, key=lambda name: -accuracies[name]):
            gain = brief_of(found[method]) if method in found else "| |"
            where = f"`{Path(base).name}`, {dict(budget)['adapter']} | {labels}"
            lines.append(f"| {where} | `{method}` | {cells} | {100 * accuracies[method]:.1f} | {gain} |")
    head = [
        f"| base | labels | method | models | accuracy | `{FLAGSHIP}` minus it | 95 % interval | p (Holm) |",
        "|---" * 8 + "|",
    ]
    return "\n".join([*head, *lines]) if lines else ""


def main() -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, nargs="*", default=[HERE / "records.jsonl"])
    parser.add_argument("--page", type=Path, default=HERE / "README.md")
    parser.add_argument("--front", type=Path, default=HERE.parents[1] / "docs" / "results.md")
    options = parser.parse_args()
    records = [record for place in options.records for record in read_records(place)]
    fill(options.page, "study", page(records))
    if told := brief(records):
        fill(options.front, "catalogue", told)


if __name__ == "__main__":
    main()
