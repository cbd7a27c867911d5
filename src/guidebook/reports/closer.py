"""What evidence.json says, ready for the page: loss curves, calibration, maps, disagreements, words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from guidebook.evaluation.drift import TWIN
from guidebook.reports.figures import Curve, can_draw, curves, reliability, scatter
from guidebook.reports.summary import Facts, arm_name

MOST_LINES = 6
"""Curves in one figure."""
EMPTY: Mapping[str, Any] = {"targets": {}, "general": None}


def closer(meta: Facts, evidence: Facts | None) -> dict[str, Any]:
    """Return what the sections on a closer look show; without evidence, or without matplotlib, they show less."""
    found = evidence or EMPTY
    draws = can_draw()
    return {
        "losses": _losses(meta, draws),
        "targets": [
            _target(name, seen, meta["method"], draws) for name, seen in found.get("targets", {}).items() if seen
        ],
        "general": found.get("general"),
        "evidence": bool(found.get("targets")),
    }


def _losses(meta: Facts, draws: bool) -> list[dict[str, Any]]:
    """Return one figure per stage and part, a line per model (and target, where each has its own stage)."""
    groups: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    stages = sorted(meta["stages"], key=lambda stage: stage["arm"] == meta["method"])  # the method is drawn on top
    shared = [(stage["arm"], stage["name"]) for stage in stages]
    for stage in stages:
        own = shared.count((stage["arm"], stage["name"])) > 1
        label = f"{arm_name(stage['arm'])}, {', '.join(stage['targets'])}" if own else arm_name(stage["arm"])
        for part, values in stage.get("curves", {}).items():
            if len(values) > 1:
                x, y = zip(*values, strict=True)
                groups[stage["name"], part].append((label, x, y))
    made = []
    for (stage, part), lines in groups.items():
        shown = lines[-MOST_LINES:]
        title = f"{stage}: {part.replace('/', ', ').replace('_', ' ')}"
        made.append(
            {
                "title": title,
                "said": "; ".join(f"{label} from {y[0]:.3f} to {y[-1]:.3f}" for label, _, y in shown),
                "figure": curves(shown, f"loss {title}", "step") if draws else None,
                "hidden": len(lines) - len(shown),
            }
        )
    return made


def _target(name: str, seen: Facts, method: str, draws: bool) -> dict[str, Any]:
    return {
        "name": name,
        "calibration": _calibration(name, seen.get("calibration") or {}, method, draws),
        "map": _map(name, seen["map"], draws) if seen.get("map") else None,
        "disagreement": seen.get("disagreement"),
        "words": _words(seen["words"]) if seen.get("words") else None,
    }


def _calibration(name: str, bins: Mapping[str, Any], method: str, draws: bool) -> dict[str, Any] | None:
    chosen = {arm_name(arm): bins[arm] for arm in dict.fromkeys((TWIN, method)) if arm in bins}
    if not chosen:
        return None
    lowest = min(bin_["confidence"] for found in chosen.values() for bin_ in found)
    start = max(0.0, int(lowest * 10) / 10)
    return {
        "bins": chosen,
        "figure": reliability(list(chosen.values()), f"calibration {name}", start) if draws else None,
        "said": [(arm, _gap(found)) for arm, found in chosen.items()],
    }


def _gap(bins: Sequence[Mapping[str, float]]) -> str:
    """Say by how much confidence and accuracy differ, and which is higher."""
    rows = sum(found["rows"] for found in bins)
    over = sum(found["rows"] * (found["confidence"] - found["accuracy"]) for found in bins) / rows
    if abs(over) < 0.01:
        return "as sure as it is right"
    return f"{'surer' if over > 0 else 'less sure'} than it is right by {100 * abs(over):.1f} points"


def _map(name: str, found: Facts, draws: bool) -> dict[str, Any] | None:
    (source, count), (target, others) = found["source"], found["target"]
    classes = found["predicted"]
    split = None if classes is None else (classes[:count], classes[count:])

    def panel(which: str) -> Any:
        points = found[which]
        groups = [
            (points[:count], "other", split[0] if split else None),
            (points[count:], "accent", split[1] if split else None),
        ]
        return scatter(groups, f"map {name} {which}")

    return {
        "source": source,
        "target": target,
        "rows": (count, others),
        "labels": found["labels"] if classes is not None and len(found["labels"]) <= 4 else [],
        "explained": found["explained"],
        "before": panel("before") if draws else None,
        "after": panel("after") if draws else None,
    }


def _words(found: Facts) -> dict[str, Any]:
    largest = max((abs(word["change"]) for word in (*found["gained"], *found["lost"])), default=1.0) or 1.0

    def bars(words: Sequence[Facts]) -> list[dict[str, Any]]:
        return [{**word, "width": round(100 * abs(word["change"]) / largest, 1)} for word in words]

    return {**found, "gained": bars(found["gained"]), "lost": bars(found["lost"])}
