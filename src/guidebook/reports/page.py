"""The report: one self-contained HTML page with every number of a run and what it does not say.

Every section is a template of its own in `sections/`; `figures.py` draws where the extra `report` is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from guidebook.artifact_schema import FACTS, read_facts
from guidebook.errors import InputError
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.task_scores import primary
from guidebook.reports.closer import closer
from guidebook.reports.figures import HOW_TO, can_draw
from guidebook.reports.guesses import guesses
from guidebook.reports.intervals import Mark, Scale, accuracy_mark, difference_mark
from guidebook.reports.scored import metric_name, tagged, tested
from guidebook.reports.summary import (
    Facts,
    arm_name,
    difference_of,
    duration,
    megabytes,
    percent,
    points,
    summary,
)

WIDEST_CONFUSION = 12
"""Classes up to which a confusion matrix is readable."""


def write_report(meta: Facts, path: str | Path, evidence: Facts | None = None) -> Path:
    """Write the report of what guidebook.json (and evidence.json) says to `path`; it needs no other file, no network.

    Figures are drawn where matplotlib is installed; without it the page says how to get them.
    """
    place = Path(path)
    place.write_text(render(meta, evidence), encoding="utf-8")
    return place


def read_run(folder: Path) -> tuple[Facts, Facts | None]:
    """Return what guidebook.json and, where it is there, evidence.json of a guidebook say.

    Raises:
        InputError: there is no guidebook, or a file is damaged.
    """
    found: list[Facts | None] = []
    for name in (FACTS, "evidence.json"):
        path = folder / name
        try:
            found.append(read_facts(path) if name == FACTS else json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            found.append(None)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: not valid JSON: {error}. Copy the folder again.") from error
    facts, evidence = found
    assert facts is not None
    return facts, evidence or None


def render(meta: Facts, evidence: Facts | None = None) -> str:
    """The report as HTML."""
    return (
        environment()
        .get_template("page.html")
        .render(
            meta=meta,
            summary=summary(meta),
            sources=[domain["name"] for domain in meta["domains"] if domain["role"] == "source"],
            targets=_targets(meta) if meta["task"]["labels"] else [],
            names=[target["name"] for target in meta["evaluation"]["targets"]],
            accuracy_ticks=_accuracy_scale(meta).ticks(),
            differences=_differences(meta),
            difference_ticks=_difference_scale(meta).ticks(),
            zero=_difference_scale(meta).place(0.0),
            tiles=_tiles(meta),
            stages=_stages(meta),
            closer=closer(meta, evidence),
            guesses=guesses(meta),
            can_draw=can_draw(),
            how_to=HOW_TO,
            recipe=yaml.safe_dump(meta["recipe"], sort_keys=False, allow_unicode=True, width=100),
            method=arm_name(meta["method"]),
            metric=metric_name(meta),
            tested=tested,
            words=tagged(meta),
            twin=arm_name(TWIN),
        )
    )


def environment() -> Environment:
    """The templates and the words for numbers that they use."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=percent, points=points, duration=duration, megabytes=megabytes, arm_name=arm_name)
    return made


def _accuracy_scale(meta: Facts) -> Scale:
    if not meta["task"]["labels"]:
        return Scale.around(())
    entries = [scores for target in meta["evaluation"]["targets"] for scores in target["scores"].values()]
    found = [primary(scores) for scores in entries]
    return Scale.around(100 * end for interval in found for end in (interval.low, interval.high))


def _difference_scale(meta: Facts) -> Scale:
    found = [interval for target in meta["evaluation"]["targets"] if (interval := difference_of(target))]
    return Scale.around([-1.0, 1.0, *(100 * end for interval in found for end in (interval.low, interval.high))])


def _targets(meta: Facts) -> list[dict[str, Any]]:
    """Per target: a mark per model, and the models whose classes are shown."""
    scale = _accuracy_scale(meta)
    served = [arm for arm in (TWIN, meta["method"]) if arm]
    return [
        {
            **target,
            "marks": [accuracy_mark(arm, scores, scale, meta["method"]) for arm, scores in target["scores"].items()],
            "classes": _classes(target["scores"], list(dict.fromkeys(served))),
            "confusion": _confusion(target["scores"].get(meta["method"])),
        }
        for target in meta["evaluation"]["targets"]
    ]


def _differences(meta: Facts) -> list[Mark]:
    scale = _difference_scale(meta)
    found = [(target["name"], difference_of(target)) for target in meta["evaluation"]["targets"]]
    return [difference_mark(name, difference, scale) for name, difference in found if difference]


def _classes(scores: Mapping[str, Facts], arms: Sequence[str]) -> dict[str, dict[str, Facts]]:
    """Class -> model -> its precision, recall, F1 and rows."""
    shown = [arm for arm in arms if arm in scores]
    names = list(scores[shown[0]]["per_class"]) if shown else []
    return {name: {arm: scores[arm]["per_class"][name] for arm in shown} for name in names}


def _confusion(scores: Facts | None) -> list[dict[str, Any]]:
    """Per true class its name and (count, share of the class) per predicted class."""
    if scores is None or len(scores["confusion"]) > WIDEST_CONFUSION:
        return []
    return [
        {"name": name, "cells": [(count, count / max(sum(counts), 1)) for count in counts]}
        for name, counts in zip(scores["per_class"], scores["confusion"], strict=True)
    ]


def _tiles(meta: Facts) -> list[tuple[str, str, str]]:
    """(value, what it is, beside it) of the numbers to see first."""
    scored = [target["scores"] for target in meta["evaluation"]["targets"]]
    tiles = []
    for target in meta["evaluation"]["targets"] if not meta["task"]["labels"] else ():
        before, after = (target["scores"][arm]["perplexity"] for arm in ("base", meta["method"]))
        tiles.append((f"{after:.1f}", f"perplexity, {target['name']}", f"{before:.1f} before"))
    for arm in dict.fromkeys((meta["method"], TWIN)) if meta["task"]["labels"] else ():
        values = [primary(scores[arm]).estimate for scores in scored if arm in scores]
        if values:
            over = "on the target" if len(values) == 1 else f"mean of {len(values)} targets"
            tiles.append((f"{percent(sum(values) / len(values))} %", f"{metric_name(meta)}, {arm_name(arm)}", over))
    size = meta["size"]
    if size["megabytes_per_domain"]:
        base = f"the base has {megabytes(size['base_megabytes'])}"
        tiles.append((megabytes(size["megabytes_per_domain"]), "per domain", base))
    reused = sum(stage["cached"] for stage in meta["stages"])
    note = f"{reused} of {len(meta['stages'])} stages reused" if reused else "everything trained"
    return [*tiles, (duration(meta["seconds"]), "in all", note)]


def _stages(meta: Facts) -> list[dict[str, Any]]:
    """The stages with their losses and mixes as words."""
    made = []
    for stage in meta["stages"]:
        starts = stage["starts_from"]
        trains = [f"{name} (a copy of {starts[name]})" if starts.get(name) else name for name in stage["train"]]
        mix = sorted(stage["mix"].items(), key=lambda item: -item[1])
        made.append({**stage, "trains": ", ".join(trains), "parts": mix})
    return made
