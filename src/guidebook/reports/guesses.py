"""What the run said without target labels, beside the truth where it is known: estimates, scores, class shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guidebook.reports.intervals import Mark, Scale
from guidebook.reports.summary import Facts, Table, arm_name, percent

NAMES = {
    "same_as_source": "as on the source",
    "confidence_difference": "DoC",
    "threshold_confidence": "ATC, confidence",
    "threshold_entropy": "ATC, entropy",
    "seed_agreement": "GDE",
    "nuclear_norm": "BNM",
    "neighbourhood": "SND",
    "weighted_risk": "DEV",
    "ensemble": "EnsV",
}
"""What papers call them."""


def guesses(meta: Facts) -> list[dict[str, Any]]:
    """Return per target its estimates of the method's accuracy, its validators and its class shares; [] without any."""
    found = meta.get("scores") or {}
    known = {target["name"]: target for target in meta["evaluation"]["targets"]}
    made = [
        _target(entry, known.get(entry["name"], {}), meta["method"], found.get("source_prior") or {})
        for entry in found.get("targets", ())
    ]
    return [target for target in made if target["marks"] or target["validators"].rows or target["shares"].rows]


def guess_name(name: str) -> str:
    """An estimate's or a validator's name as people know it.

    >>> guess_name("threshold_confidence"), guess_name("source_loss")
    ('ATC, confidence', 'source loss')
    """
    return NAMES.get(name, name.replace("_", " "))


def _target(entry: Facts, target: Facts, method: str, source_prior: Mapping[str, float]) -> dict[str, Any]:
    scores = target.get("scores", {})
    truth = scores.get(method, {}).get("accuracy")
    estimates = entry.get("estimates", {}).get(method, {})
    ends = [100 * guess[end] for guess in estimates.values() for end in ("low", "high")]
    scale = Scale.around([*ends, *([100 * truth] if truth is not None else [])])
    return {
        "name": entry["name"],
        "truth": truth,
        "truth_at": None if truth is None else scale.place(100 * truth),
        "marks": [_mark(name, guess, scale) for name, guess in estimates.items()],
        "ticks": scale.ticks(),
        "validators": _validators(entry, {arm: found["accuracy"] for arm, found in scores.items()}),
        "shares": _shares(entry.get("prior") or {}, scores, source_prior),
        "shifted": bool((entry.get("prior") or {}).get("shifted")),
    }


def _mark(name: str, guess: Mapping[str, float], scale: Scale) -> Mark:
    return Mark(
        guess_name(name),
        percent(guess["estimate"]),
        f"{percent(guess['low'])} to {percent(guess['high'])}",
        scale.place(100 * guess["estimate"]),
        scale.place(100 * guess["low"]),
        scale.place(100 * guess["high"]),
        "other" if name == "same_as_source" else "method",
    )


def _validators(entry: Facts, truth: Mapping[str, float]) -> Table:
    """One row per validator: its score of every model, the one it takes, and what that one really reaches."""
    scores = entry.get("validators", {})
    arms = list(scores)
    rows = []
    for name, taken in entry.get("picks", {}).items():
        values = (scores[arm].get(name) for arm in arms)
        shown = ("" if value is None else f"{value:.3f}" for value in values)
        reached = f"{percent(truth[taken])}" if taken in truth else ""
        rows.append((guess_name(name), *shown, arm_name(taken), reached))
    columns = ("validator", *(arm_name(arm) for arm in arms), "takes", "reaches %")
    return Table("Label-free scores", columns, "l" + "r" * len(arms) + "lr", tuple(rows))


def _shares(prior: Facts, scores: Facts, source_prior: Mapping[str, float]) -> Table:
    """One row per class: its share guessed in two ways, on the source, and in truth where labels are known."""
    first: Mapping[str, Any] = next(iter(scores.values()), {})
    counts = {name: found["rows"] for name, found in first.get("per_class", {}).items()}
    total = sum(counts.values())
    rows = []
    for name, share in (prior.get("em") or {}).items():
        other = (prior.get("confusion") or {}).get(name)
        truth = percent(counts[name] / total) if total and name in counts else ""
        on_source = percent(source_prior[name]) if name in source_prior else ""
        pulled = percent(prior["pulled"][name]) if "pulled" in prior else ""
        rows.append((name, _share(share), _share(other) if other else "", pulled, on_source, truth))
    columns = (
        "class",
        "guessed by EM, %",
        "by the confusion (BBSE), %",
        "EM drawn to the source, which is acted on, %",
        "source %",
        "truth %",
    )
    return Table("Class shares", columns, "lrrrrr", tuple(rows))


def _share(share: Mapping[str, float]) -> str:
    return f"{percent(share['estimate'])} ({percent(share['low'])} to {percent(share['high'])})"
