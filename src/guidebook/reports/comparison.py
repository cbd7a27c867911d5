"""The results of a comparison as tables of finished cells, for the terminal, and as a page, from records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from guidebook.data.overlap import said_of_overlap
from guidebook.errors import InputError
from guidebook.evaluation.comparison import OVER, Comparison, Standing, comparisons
from guidebook.evaluation.statistics import Interval
from guidebook.evaluation.task_scores import METRICS
from guidebook.reports.guesses import guess_name
from guidebook.reports.intervals import Scale, difference_mark
from guidebook.reports.page import environment
from guidebook.reports.summary import Table, arm_name, duration, megabytes, percent, points


def write_comparison(records: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write the page of a comparison to `path`; it needs no other file and no network.

    Raises:
        InputError: no records, or records of another kind.
    """
    place = Path(path)
    place.write_text(render_comparison(records), encoding="utf-8")
    return place


def render_comparison(records: Sequence[Mapping[str, Any]]) -> str:
    """The page of a comparison as HTML."""
    if not records:
        raise InputError("There are no records yet, so there is nothing to report. Run guidebook compare first.")
    found, last = comparisons(records), records[-1]
    counted = {role: len({record[role] for record in records}) for role in ("candidate", "source", "target")}
    return (
        environment()
        .get_template("comparison.html")
        .render(
            title=", ".join(f"{count} {role}{'s' * (count != 1)}" for role, count in counted.items()),
            records=records,
            first=min(record["created"] for record in records)[:10],
            last=max(record["created"] for record in records)[:10],
            comparisons=[_view(item) for item in found],
            recipe=yaml.safe_dump(last["recipe"], sort_keys=False, allow_unicode=True, width=100),
            versions=last["versions"],
            machine=last["machine"],
        )
    )


def _view(found: Comparison) -> dict[str, Any]:
    tested = [(s.name, s.difference) for s in found.candidates if s.difference]
    ends = [100 * difference[end] for _, difference in tested for end in ("low", "high")]
    scale = Scale.around([-1.0, 1.0, *ends])
    return {
        "verdict": verdict(found),
        "look": _look([difference for _, difference in tested]),
        "heading": heading(found),
        "note": found.note,
        "reference": found.reference,
        "failed": found.failed,
        "overlap": overlap_lines(found),
        "over": OVER[found.over],
        "metric": METRICS[found.metric],
        "marks": [difference_mark(arm_name(n), Interval(d["estimate"], d["low"], d["high"]), scale) for n, d in tested],
        "ticks": scale.ticks(),
        "zero": scale.place(0.0),
        "tables": tables_of(found),
    }


def _look(differences: Sequence[Mapping[str, Any]]) -> str:
    """What the page's colour says: something helped, something hurt, both, or nothing that shows."""
    shown = {difference["estimate"] > 0 for difference in differences if difference["p"] < 0.05}
    return "mixed" if len(shown) == 2 else "noise" if not shown else "helped" if True in shown else "hurt"


def tables_of(found: Comparison) -> list[Table]:
    """Return the tables of a comparison: candidates, picks, estimates, directions, costs."""
    return [
        table
        for table in (_candidates(found), _picks(found), _estimates(found), _directions(found), _costs(found))
        if table.rows
    ]


def heading(found: Comparison) -> str:
    """Return what was compared in one line."""
    rows = "all labelled rows" if found.labelled_rows is None else f"{found.labelled_rows:,} labelled rows"
    gaps = f", {found.incomplete} not complete" if found.incomplete else ""
    return f"{found.base}, {rows}, {found.cells} complete cells{gaps}{_apart(found)}"


def _apart(found: Comparison) -> str:
    """Return what sets these records apart from others of the same comparison, which are in tables of their own."""
    made = found.made_with
    shown = {
        "code": f"code {str(made['code'])[:8]}",
        "dtype": str(made["dtype"]),
        "versions": " ".join(f"{name} {version}" for name, version in made["versions"].items()),
    }
    parts = [shown[name] for name in found.others_differ_in]
    return f"; made with {', '.join(parts)}: not mixed with records made otherwise" if parts else ""


def overlap_lines(found: Comparison) -> list[str]:
    """Return one sentence for each direction whose tested rows were partly trained on."""
    return [f"{where}: {line}." for where, overlap in found.overlap.items() for line in said_of_overlap(overlap)]


def verdict(found: Comparison) -> str:
    """Return one sentence: which candidates show a difference to the reference."""
    if not found.cells:
        return "No cell is complete yet."
    if len(found.candidates) < 2:
        return "One candidate: nothing to compare."
    tested = [standing for standing in found.candidates if standing.difference]
    better = [s.name for s in tested if s.difference and s.difference["p"] < 0.05 and s.difference["estimate"] > 0]
    worse = [s.name for s in tested if s.difference and s.difference["p"] < 0.05 and s.difference["estimate"] < 0]
    reference = arm_name(found.reference)
    parts = [f"better than {reference}: {', '.join(map(arm_name, better))}"] if better else []
    than = "" if better else f" than {reference}"
    parts += [f"worse{than}: {', '.join(map(arm_name, worse))}"] if worse else []
    if not parts:
        return f"No candidate shows a difference to {reference}, after Holm's correction for {len(tested)} tests."
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]} (p below 0.05 after Holm's correction for {len(tested)} tests)."


def _candidates(found: Comparison) -> Table:
    against = (f"minus {arm_name(found.reference)}", "95 % interval", "p (Holm)")
    columns = ("candidate", f"{METRICS[found.metric]} %", "rank", *against, "regret", "source %")
    rows = tuple(_standing(standing) for standing in found.candidates)
    return Table(f"Candidates; intervals for {OVER[found.over]}", columns, "lrrrrrrr", rows)


def _standing(standing: Standing) -> tuple[str, ...]:
    difference, source = standing.difference, standing.source_accuracy
    against = ("", "", "")
    if difference:
        interval = f"{points(difference['low'])} to {points(difference['high'])}"
        against = (points(difference["estimate"]), interval, _p_value(difference["p"]))
    return (
        arm_name(standing.name),
        percent(standing.accuracy),
        f"{standing.rank:.1f}",
        *against,
        points(standing.regret),
        "" if source is None else percent(source),
    )


def _costs(found: Comparison) -> Table:
    forgets = any(standing.costs["forgetting"] is not None for standing in found.candidates)
    columns = ("candidate", "size per domain", "training", "memory", *(("forgetting, nats",) if forgets else ()))
    rows = []
    for standing in found.candidates:
        size, seconds, memory, forgetting = (
            standing.costs[name]
            for name in ("megabytes_per_domain", "training_seconds", "memory_megabytes", "forgetting")
        )
        last = ("" if forgetting is None else f"{forgetting:+.3f}",) if forgets else ()
        cells = (megabytes(size) if size else "", duration(seconds) if seconds else "")
        rows.append((arm_name(standing.name), *cells, megabytes(memory) if memory else "", *last))
    return Table("What they cost, means over cells", columns, "l" + "r" * (len(columns) - 1), tuple(rows))


def _picks(found: Comparison) -> Table:
    rows = []
    for line in found.picks:
        interval = "" if line["low"] is None else f"{points(line['low'])} to {points(line['high'])}"
        took = ", ".join(f"{arm_name(name)} {count:.3g}" for name, count in list(line["took"].items())[:3])
        more = f" and {len(line['took']) - 3} more" if len(line["took"]) > 3 else ""
        correlation = "" if line["correlation"] is None else f"{line['correlation']:+.2f}"
        means = (percent(line["accuracy"]), points(line["regret"]), interval, correlation)
        rows.append((guess_name(line["rule"]), *means, f"{line['cells']}", took + more))
    score = f"{METRICS[found.metric]} %"
    columns = ("rule of choice", score, "regret", "95 % interval", "correlation", "cells", "took, times")
    return Table("What each rule of choice gets", columns, "lrrrrrl", tuple(rows))


def _estimates(found: Comparison) -> Table:
    rows = tuple(
        (
            guess_name(line["name"]),
            percent(line["error"]),
            points(line["bias"]),
            f"{100 * line['coverage']:.0f}",
            f"{line['records']:,}",
        )
        for line in found.estimates
    )
    columns = ("estimate", "mean error, points", "bias, points", "interval holds the truth, %", "records")
    return Table("Accuracies guessed without labels", columns, "lrrrr", rows)


def _directions(found: Comparison) -> Table:
    names = [standing.name for standing in found.candidates] or list(next(iter(found.directions.values()), {}))
    rows = tuple(
        (where, *(percent(values[name]) if name in values else "" for name in names))
        for where, values in found.directions.items()
    )
    columns = ("direction", *(arm_name(name) for name in names))
    name = METRICS[found.metric]
    return Table(f"{name[0].upper()}{name[1:]} by direction, %, mean over draws", columns, "l" + "r" * len(names), rows)


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
