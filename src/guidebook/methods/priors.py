"""Class shares of a target that a method estimates on its way, and what it does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guidebook.evaluation.prior import PULL, calibrate, em_prior

if TYPE_CHECKING:
    from guidebook.evaluation.seen import Floats, Ints
    from guidebook.training.run import Run


def estimated_prior(run: Run) -> tuple[Floats, Floats, Floats]:
    """Return the source's and the target's class shares (C,), and the calibrated probabilities (N, C) on the pool.

    The target's shares are those of calibrated expectation maximisation from the last stage's model, drawn to the
    source's: a model that leans to one class in the target would otherwise be taught that there is no other. Where a
    class has no held-out row nothing is estimated or calibrated, and the run says so.

    Reference: Saerens et al. 2002; Alexandari et al. 2020 (see `evaluation.prior`).
    """
    found, labels = run.predicted_source()
    shares = np.bincount(labels[labels >= 0], minlength=run.classes) / max(int((labels >= 0).sum()), 1)
    if run.planned or not every_class(run, shares, "class shares are the source's, and nothing is calibrated"):
        return shares, shares, run.predicted()
    pool = calibrate(found[labels >= 0], labels[labels >= 0])(run.predicted())
    return shares, em_prior(pool, shares, pull=PULL), pool


def every_class(run: Run, shares: Floats, otherwise: str) -> bool:
    """Return whether every class has a row among those to calibrate on, from its shares (C,); if not, say so."""
    missing = [run.labels[label] for label in np.flatnonzero(shares == 0).tolist()]
    if missing:
        run.note(
            f"no held-out source row of {', '.join(missing)}: {otherwise}. Give more labelled rows, or raise task.dev."
        )
    return not missing


def balanced_choice(probabilities: Floats, prior: Floats, share: float, threshold: float) -> tuple[Ints, Ints]:
    """Return ids (n,) of rows to trust and their classes (n,): of every class its part of `share`, surest first.

    A row belongs to the class it is surest of; no class gets more than `share` · `prior` of all rows, none a row whose
    probability is below `threshold`.

    Args:
        probabilities: (N, C).
        prior: (C,) class shares that the choice is to have.
        share: Of all rows that may be chosen, 0..1.
        threshold: Least probability of a chosen row.
    """
    best, sure = probabilities.argmax(1), probabilities.max(1)
    chosen = []
    for label, part in enumerate(prior):
        mine = np.flatnonzero((best == label) & (sure >= threshold))
        room = round(share * float(part) * len(probabilities))
        chosen.append(mine[np.argsort(-sure[mine], kind="stable")][:room])
    rows = np.sort(np.concatenate(chosen)).astype(np.int64)
    return rows, best[rows].astype(np.int64)


def tilt_towards(probabilities: np.ndarray, prior: np.ndarray, steps: int = 200) -> np.ndarray:
    """Return factors (C,), the first 1, under which the renormalised probabilities (N, C) have the mean `prior` (C,).

    Found by iterative proportional fitting, in `steps` steps.

    >>> rows = np.array([[0.8, 0.2], [0.6, 0.4]])
    >>> tilted = rows * tilt_towards(rows, np.array([0.5, 0.5]))
    >>> (tilted / tilted.sum(1, keepdims=True)).mean(0).round(3).tolist()
    [0.5, 0.5]
    """
    tilt = np.ones(len(prior))
    for _ in range(steps):
        found = probabilities * tilt
        mean = (found / np.maximum(found.sum(1, keepdims=True), 1e-12)).mean(0)
        tilt = tilt * np.maximum(prior, 1e-3) / np.maximum(mean, 1e-3)
    found_tilt: np.ndarray = np.clip(tilt / tilt[0], 1e-3, 1e3)
    return found_tilt
