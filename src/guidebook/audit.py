"""An audit: a hundred labels of the target decide whether to ship the adapted model, or to keep its source-only twin.

The rows are drawn where labels tell most: half of them where the two models disagree, which is all that decides
between them, the rest by confidence. The file does not show what the models say, so labels cannot follow them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.artifact import Guidebook
from guidebook.caution import read_audit, target_of
from guidebook.data.columns import plain
from guidebook.data.domains import Domain, LabelSet, Population, domain_from, load_text
from guidebook.data.files import bare_suffix, file_rows
from guidebook.data.fingerprints import hash_texts
from guidebook.data.labels import normalise
from guidebook.data.readers import READERS
from guidebook.data.readers.contract import Problems
from guidebook.data.readers.separated import CSV
from guidebook.data.streams import seed_for
from guidebook.errors import InputError
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.prediction_powered import prediction_powered
from guidebook.evaluation.seen import Floats, Ints
from guidebook.evaluation.statistics import Interval
from guidebook.evaluation.stratified import (
    allocate,
    rows_needed,
    strata_of,
    stratified_accuracy,
    stratified_difference,
)
from guidebook.folders import check_free, replace_file
from guidebook.strict_json import dumps
from guidebook.writing import AUDIT

MARGIN = 0.01  # a difference of a point decides nothing
FEWEST = 10
COMPARED = 1_000
"""Characters of a text by which it is known again."""


@dataclass(frozen=True, eq=False)
class Pool:
    """What both models say of every row of a target's pool."""

    adapted: Ints
    """(N,) predicted classes."""
    twin: Ints
    """(N,)"""
    confidence: Floats
    """(N,) of the adapted model."""
    strata: Ints
    """(N,) see `strata_of`."""
    guesses: Floats
    """(3, N): how likely the adapted model is right, the twin is, and the first less the second."""

    @property
    def sizes(self) -> Ints:
        """(H,) rows in each stratum."""
        return np.asarray(np.bincount(self.strata))

    @property
    def settled(self) -> Ints:
        """(H,) 1 for strata in which both models say the same."""
        apart = np.bincount(self.strata, self.adapted != self.twin, minlength=len(self.sizes))
        return np.asarray(apart == 0, np.int64)


def see(book: Guidebook, domain: str, population: Population) -> Pool:
    """Return what the adapted model and its twin say of a pool.

    Raises:
        InputError: there is no adapted model beside the twin.
    """
    target = target_of(book, domain)
    if book.words:
        raise InputError("An audit compares labels of whole texts; this guidebook labels words.")
    if TWIN not in book.meta["variants"] or book.meta["serves"][target] == TWIN:
        raise InputError(f"{book.path}: only the source-only model is here, so there is nothing to compare it with.")
    ours = book.predict_proba(population.texts, population.text_pairs, domain=target)  # (N, C)
    theirs = book.predict_proba(population.texts, population.text_pairs, domain=TWIN)
    first, second, confidence = ours.argmax(1), theirs.argmax(1), ours.max(1)
    mean, rows = (ours + theirs) / 2, np.arange(len(ours))
    right = np.stack([mean[rows, first], mean[rows, second]])
    return Pool(
        first, second, confidence, strata_of(confidence, first != second), np.stack([*right, right[0] - right[1]])
    )


def pool_of(book: Guidebook, domain: str, file: Domain | None = None) -> Population:
    """Return the rows of a target's pool: of the file it was adapted to, or of another file of the same domain.

    Raises:
        InputError: the texts were in memory, or the file has changed.
    """
    target = target_of(book, domain)
    if file is not None:
        return load_text(file, "target")
    known = next(entry for entry in book.meta["recipe"]["targets"] if entry["name"] == target)
    if not known.get("path") or not Path(known["path"]).is_file():
        raise InputError(
            f"{target} was adapted to texts that are not in a file here ({known.get('path') or 'in memory'}). Name a "
            "file with texts of the same domain: --pool FILE."
        )
    fields = {key: known[key] for key in ("name", "path", "where", "columns") if known.get(key)}
    return load_text(domain_from(fields), "target")


def plan_audit(book: Guidebook, domain: str, population: Population, rows: int) -> dict[str, Any]:
    """Return the plan of an audit, ready for JSON: strata of the pool, and the rows to label in random order.

    A further call for a target that was audited before adds `rows` rows, those where the models disagree first.

    Raises:
        InputError: fewer than ten rows, or a pool that is not the one of the first plan.
    """
    if rows < FEWEST:
        raise InputError(f"--label {rows}: intervals of fewer than {FEWEST} rows say nothing. Label 100.")
    target, pool = target_of(book, domain), see(book, domain, population)
    before = read_audit(book).get(target, {}).get("plan")
    if before is not None and before["pool"] != population.fingerprint:
        before = None  # other rows: a new audit
    taken = np.bincount([row["stratum"] for row in before["rows"]], minlength=len(pool.sizes)) if before else None
    counts = _counts(pool, rows, taken)
    seed = seed_for(book.meta["seed"], "audit", target) % 2**32
    chosen = []
    for stratum, count in enumerate(counts):
        order = np.random.default_rng((seed, stratum)).permutation(np.flatnonzero(pool.strata == stratum))
        chosen += order[: int(count)].tolist()
    old = {row["row"] for row in before["rows"]} if before else set()
    order = np.random.default_rng(seed).permutation(np.array(chosen, np.int64)).tolist()
    return {
        "pool": population.fingerprint,
        "sizes": pool.sizes.tolist(),
        "settled": pool.settled.tolist(),
        "means": [
            [float(guess[pool.strata == stratum].mean()) for stratum in range(len(pool.sizes))]
            for guess in pool.guesses
        ],
        "rows": [_planned(pool, population, row) for row in sorted(order, key=lambda row: row not in old)],
        "new": [row for row in order if row not in old],
    }


def _planned(pool: Pool, population: Population, row: int) -> dict[str, Any]:
    pairs = population.text_pairs
    return {
        "row": row,
        "text": _key(population.texts[row], None if pairs is None else pairs[row]),
        "stratum": int(pool.strata[row]),
        "adapted": int(pool.adapted[row]),
        "twin": int(pool.twin[row]),
        "guesses": pool.guesses[:, row].tolist(),
    }


def _counts(pool: Pool, rows: int, taken: Ints | None) -> Ints:
    """Return how many rows of each stratum are labelled in all: first half where the models disagree, then all."""
    apart, sizes = pool.settled == 0, pool.sizes
    sure = np.bincount(pool.strata, pool.confidence) / sizes
    found = np.zeros_like(sizes) if taken is None else taken.copy()
    left = sizes - found
    add = max(rows // 2 if taken is None else rows, rows - int(left[~apart].sum()))
    add = min(add, int(left[apart].sum()))
    for group, more in ((apart, add), (~apart, rows - add)):
        found[group] = _extended(found[group], sizes[group], np.sqrt(sure * (1 - sure))[group], more)
    return found


def _extended(found: Ints, sizes: Ints, scatter: Floats, add: int) -> Ints:
    """Return the rows of each stratum after `add` more: toward the allocation of all, never fewer than before."""
    if not len(found):
        return found
    total = allocate(sizes, scatter, int(found.sum()) + add)
    missing = np.maximum(total - found, 0)
    while missing.sum() > max(add, 0):
        missing[int(missing.argmax())] -= 1
    return np.asarray(found + missing)


def write_rows(population: Population, plan: dict[str, Any], path: Path) -> int:
    """Write the rows to label as a new CSV file with an empty label column; return how many.

    Raises:
        InputError: the path is taken, by labels perhaps, or cannot be written.
    """
    check_free(path)
    rows = plan["new"]
    pairs = population.text_pairs
    names = ["row", "text", *(["text_pair"] if pairs is not None else []), "label"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8-sig", newline="") as stream:  # spreadsheets want a mark
            writer = csv.writer(stream)
            writer.writerow(names)
            for row in rows:
                writer.writerow([row, population.texts[row], *([pairs[row]] if pairs is not None else []), ""])
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). Choose another --out.") from error
    return len(rows)


def read_labels(path: Path, plan: dict[str, Any], labels: Sequence[str]) -> dict[int, int]:
    """Return {row: class id} of the filled-in rows of a file of `write_rows`, as spreadsheets save it too.

    Commas, semicolons or tabs separate the cells; rows and columns come in any order, and some may be missing.

    Raises:
        InputError: not such a file, a row that was not drawn or has another text in this audit, or a label that the
            guidebook does not know.
    """
    drawn, known = {row["row"]: row for row in plan["rows"]}, LabelSet(tuple(labels))
    problems = Problems(path)
    found: dict[int, int] = {}
    reader = CSV if bare_suffix(path) not in READERS or bare_suffix(path) == ".txt" else None
    for line, cells in file_rows(path, reader):
        entry = {plain(str(name)): cell for name, cell in cells.items()}
        if not {"row", "label"} <= entry.keys():
            raise InputError(f"{path}: no columns row and label. Fill in the file that --label wrote.")
        if normalise(entry["label"]) is None:
            continue
        number = normalise(entry["row"]) or ""
        row = int(number) if number.isdecimal() else -1
        label = int(known.encode([entry["label"]])[0])
        if row not in drawn:
            problems.add(line, f"row {entry['row']!r} was not drawn for labelling.")
        elif "text" in entry and drawn[row].get("text") not in (None, _key(entry["text"], entry.get("text_pair"))):
            problems.add(line, f"row {row} has another text in this audit; is it the file of another one?")
        elif label < 0:
            problems.add(line, f"label {entry['label']!r} is not one of {list(labels)}.")
        elif found.setdefault(row, label) != label:
            problems.add(line, f"row {row} has two different labels.")
    problems.report("Correct them, or leave the label empty.")
    if not found:
        raise InputError(f"{path}: no row has a label. Fill the label column with one of {list(labels)}.")
    return found


def _key(text: object, pair: object = None) -> str:
    """Return by what a text is known again after a spreadsheet: it may change white space, and cuts very long cells."""
    parts = [" ".join(str(part).split())[:COMPARED] for part in (text, pair) if part is not None]
    return hash_texts(parts)


def judge(plan: dict[str, Any], labels: dict[int, int], margin: float = MARGIN) -> dict[str, Any]:
    """Return accuracies of both models, their difference, and the verdict, ready for JSON.

    The verdict follows the stratified interval alone, whatever the prediction-powered one beside it says: the better
    of two intervals would hold the truth less often than either.

    Verdicts:
        ship: the adapted model is better. keep_source_only: it is worse, or no difference shows and no label of this
        pool could settle it, or the difference is within `margin`. label_more: `more` rows would probably settle it.

    Raises:
        InputError: a stratum has no labelled row.
    """
    rows = [row for row in plan["rows"] if row["row"] in labels]
    strata = np.array([row["stratum"] for row in rows], np.int64)
    gold = np.array([labels[row["row"]] for row in rows], np.int64)
    right = [np.array([row[model] for row in rows], np.int64) == gold for model in ("adapted", "twin")]
    sizes, settled = np.array(plan["sizes"]), np.array(plan["settled"])
    if not rows:
        raise InputError("No labelled rows. Fill the label column of at least some rows.")
    difference = stratified_difference(right[0], right[1], strata, sizes, settled)
    values = [right[0].astype(float), right[1].astype(float), right[0].astype(float) - right[1]]
    guesses = np.array([row["guesses"] for row in rows]).T  # (3, n)
    of_pool = np.repeat(np.arange(len(sizes)), sizes)
    powered = [
        prediction_powered(value, guess, strata, np.repeat(means, sizes), of_pool, groups=settled, known=known)
        for value, guess, means, known in zip(
            values, guesses, plan["means"], (0 * settled, 0 * settled, settled), strict=True
        )
    ]
    apart = settled[strata] == 0
    verdict, more = _verdict(difference, int(apart.sum()), int(sizes[settled == 0].sum()), margin)
    return {
        "labelled": len(rows),
        "pool_rows": int(sizes.sum()),
        "disagree": float(sizes[settled == 0].sum() / sizes.sum()),
        "adapted": vars(stratified_accuracy(right[0], strata, sizes, settled)),
        "source_only": vars(stratified_accuracy(right[1], strata, sizes, settled)),
        "difference": vars(difference),
        "prediction_powered": {
            name: vars(interval)
            for name, interval in zip(("adapted", "source_only", "difference"), powered, strict=True)
        },
        "verdict": verdict,
        "more": more,
    }


def _verdict(difference: Interval, labelled: int, disagreeing: int, margin: float) -> tuple[str, int]:
    if difference.low > 0:
        return "ship", 0
    if difference.high < 0 or max(abs(difference.low), abs(difference.high)) <= margin:
        return "keep_source_only", 0
    more = rows_needed(difference, max(abs(difference.estimate), margin), labelled)
    left = disagreeing - labelled
    return ("label_more", min(more, left)) if more and left > 0 else ("keep_source_only", 0)


def looks(entry: dict[str, Any], labels: dict[int, int]) -> int:
    """Return how many verdicts a target's audit has given, the one on these labels included.

    Each is at 95 %; of n verdicts on one question at least one errs in up to 5 n % of audits (Bonferroni's bound). The
    same labels again are no new look.
    """
    before = {int(row): label for row, label in entry.get("labels", {}).items()}
    given = int(entry.get("looks", "verdict" in entry))
    return given + (before != labels or not given)


def save_audit(book: Guidebook, target: str, entry: dict[str, Any]) -> None:
    """Put a target's entry into audit.json, by rename."""
    whole = read_audit(book) | {target: entry}
    replace_file(book.path / AUDIT, (dumps(whole, indent=1) + "\n").encode())
