"""The report: one self-contained HTML page with every number of a run and what it does not say.

Its interval plots are table rows with a positioned bar and dot: they need no plotting library, follow the reader's
colours and font size, and stay readable on a phone, where a picture would shrink.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from guidebook.evaluation.statistics import Interval
from guidebook.reports.summary import (
    TWIN,
    Facts,
    arm_name,
    difference_of,
    duration,
    megabytes,
    outcome_of,
    percent,
    points,
    summary,
)

WIDEST_CONFUSION = 12
"""Classes up to which a confusion matrix is readable."""


@dataclass(frozen=True)
class Scale:
    """A horizontal axis in percent; everything is placed on it as a share of its width."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Iterable[float]) -> Scale:
        """The axis with round ends that holds `values` and has three to six steps.

        >>> Scale.around([62.3, 88.1])
        Scale(low=60.0, high=90.0, step=10.0)
        """
        found = list(values) or [0.0, 1.0]
        span = max(max(found) - min(found), 1e-3)
        size = 10.0 ** math.floor(math.log10(span))
        step = next(size * factor for factor in (0.5, 1.0, 2.0, 5.0) if span / (size * factor) <= 5)
        return cls(math.floor(min(found) / step) * step, math.ceil(max(found) / step) * step, step)

    def place(self, value: float) -> float:
        """Where a value stands, in percent of the width from the left."""
        width = max(self.high - self.low, 1e-9)
        return round(min(max(100 * (value - self.low) / width, 0.0), 100.0), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of every step."""
        count = round((self.high - self.low) / self.step)
        values = (self.low + index * self.step for index in range(count + 1))
        return [(self.place(value), f"{value:g}") for value in (round(value, 9) for value in values)]


@dataclass(frozen=True)
class Mark:
    """One interval of a plot."""

    name: str
    value: str
    interval: str
    at: float
    left: float
    right: float
    look: str


def write_report(meta: Facts, path: str | Path) -> Path:
    """Write the report of what guidebook.json says to `path`; it needs no other file and no network."""
    place = Path(path)
    place.write_text(render(meta), encoding="utf-8")
    return place


def render(meta: Facts) -> str:
    """The report as HTML."""
    found = summary(meta)
    return (
        _environment()
        .get_template("page.html")
        .render(
            meta=meta,
            summary=found,
            sources=[domain["name"] for domain in meta["domains"] if domain["role"] == "source"],
            targets=_targets(meta) if meta["task"]["labels"] else [],
            names=[target["name"] for target in meta["evaluation"]["targets"]],
            accuracy_ticks=_accuracy_scale(meta).ticks(),
            differences=_differences(meta),
            difference_ticks=_difference_scale(meta).ticks(),
            zero=_difference_scale(meta).place(0.0),
            tiles=_tiles(meta),
            stages=_stages(meta),
            recipe=yaml.safe_dump(meta["recipe"], sort_keys=False, allow_unicode=True, width=100),
            method=arm_name(meta["method"]),
            twin=arm_name(TWIN),
        )
    )


def _environment() -> Environment:
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
    return Scale.around(100 * scores[end] for scores in entries for end in ("accuracy_low", "accuracy_high"))


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
            "marks": [_accuracy_mark(arm, scores, scale, meta["method"]) for arm, scores in target["scores"].items()],
            "classes": _classes(target["scores"], list(dict.fromkeys(served))),
            "confusion": _confusion(target["scores"].get(meta["method"])),
        }
        for target in meta["evaluation"]["targets"]
    ]


def _accuracy_mark(arm: str, scores: Facts, scale: Scale, method: str) -> Mark:
    low, high = scores["accuracy_low"], scores["accuracy_high"]
    return Mark(
        arm_name(arm),
        percent(scores["accuracy"]),
        f"{percent(low)} to {percent(high)}",
        scale.place(100 * scores["accuracy"]),
        scale.place(100 * low),
        scale.place(100 * high),
        "method" if arm == method else "oracle" if "oracle" in arm else "other",
    )


def _differences(meta: Facts) -> list[Mark]:
    scale = _difference_scale(meta)
    found = [(target["name"], difference_of(target)) for target in meta["evaluation"]["targets"]]
    return [_difference_mark(name, difference, scale) for name, difference in found if difference]


def _difference_mark(name: str, difference: Interval, scale: Scale) -> Mark:
    return Mark(
        name,
        points(difference.estimate),
        f"{points(difference.low)} to {points(difference.high)}",
        scale.place(100 * difference.estimate),
        scale.place(100 * difference.low),
        scale.place(100 * difference.high),
        outcome_of(difference),
    )


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
        values = [scores[arm]["accuracy"] for scores in scored if arm in scores]
        if values:
            over = "on the target" if len(values) == 1 else f"mean of {len(values)} targets"
            tiles.append((f"{percent(sum(values) / len(values))} %", f"accuracy, {arm_name(arm)}", over))
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
