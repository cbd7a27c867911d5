"""Label shift: the class shares of a target from unlabelled rows, and probabilities corrected for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from guidebook.errors import InputError
from guidebook.evaluation.resampling import resample
from guidebook.evaluation.seen import Floats, Ints

SMALLEST = 1e-6  # probabilities are read as at least this
RIDGE = 1e-4  # keeps the fit finite where the classes are separable, and moves the class shares by about as little
PULL = 0.1
"""How much the source's shares weigh in an estimate that is acted on, as a share of the target's rows."""
VAGUE = 0.5  # an interval that is wider says nothing
ROWS = 4_000  # of a domain, that are resampled
NUMBERS = 8_000_000  # in memory at a time while they are
ABSENT = 0.02  # a class of a smaller estimated share is said not to be there


@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities p become softmax(scale log p + bias)."""

    scale: float
    """One over the temperature."""
    bias: Floats
    """(C,), 0 for the first class."""

    def __call__(self, probabilities: Floats) -> Floats:
        """(N, C) -> (N, C) calibrated probabilities."""
        return _softmax(self.scale * _logs(probabilities) + self.bias)


@dataclass(frozen=True, eq=False)
class Prior:
    """Class shares (C,) of a domain with the 95 % interval of each."""

    estimate: Floats
    low: Floats
    high: Floats


def calibrate(probabilities: Floats, labels: Ints) -> Calibration:
    """Return the bias-corrected temperature scaling that fits labelled rows (N, C), (N,) best.

    Reference:
        Alexandari, Kundaje & Shrikumar 2020, Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at
        Label Shift Adaptation, section 3 (BCTS).

    Differs:
        A ridge of 1e-4 of the rows' weight toward no change keeps separable rows from an infinite scale.
    """
    weights = np.full((1, len(labels)), 1 / len(labels))
    scale, bias = _fit(_logs(probabilities), labels, weights)
    return Calibration(float(scale[0]), bias[0])


def em_prior(
    probabilities: Floats, source_prior: Floats, steps: int = 10_000, tolerance: float = 1e-9, *, pull: float = 0.0
) -> Floats:
    """Return the class shares (C,) under which calibrated target rows (N, C) are most likely.

    Args:
        probabilities: (N, C).
        source_prior: (C,).
        steps: At most so many.
        tolerance: Of the largest change of a share in one step.
        pull: Draw them to the source's shares as pull · N rows of the source's shares would. A model that leans to one
            class in the target looks like a target that has no other; without a pull EM ends there.

    Reference:
        Saerens, Latinne & Decaestecker 2002, Adjusting the Outputs of a Classifier to New a Priori Probabilities,
        equation 2.9; with a pull Ye, Tsuchida, Petersson & Barnes 2024, Label Shift Estimation for Class-Imbalance
        Problem: A Bayesian Approach, WACV (a Dirichlet prior of the shares).

    Differs:
        The Dirichlet prior has the source's shares as its mode and a weight that grows with N.
    """
    ratios = (probabilities / np.maximum(source_prior, SMALLEST))[None]  # (1, N, C)
    weights = np.full((1, len(probabilities)), 1 / len(probabilities))
    return np.asarray(_em(ratios, weights, source_prior[None], steps, tolerance, pull=pull)[0])


def confusion_prior(source: Floats, labels: Ints, target: Floats) -> Floats:
    """Return the class shares (C,) that turn the source's confusion matrix into the target's predictions (BBSE).

    Args:
        source: (S, C) probabilities on labelled source rows.
        labels: (S,) their classes.
        target: (R, C) probabilities on target rows.

    Reference:
        Lipton, Wang & Smola 2018, Detecting and Correcting for Label Shift with Black Box Predictors, section 4, with
        hard predictions.

    Differs:
        The pseudo-inverse, since a class may never be predicted; negative shares become 0 and all are scaled to 1.
    """
    weights = np.full((1, len(labels)), 1 / len(labels)), np.full((1, len(target)), 1 / len(target))
    return np.asarray(_inverted(source, labels, target, weights)[0])


def corrected(probabilities: Floats, source_prior: Floats, target_prior: Floats) -> Floats:
    """(N, C) calibrated probabilities under the source's class shares -> under the target's.

    Reference:
        Saerens, Latinne & Decaestecker 2002, equation 2.4.

    >>> corrected(np.array([[0.5, 0.5]]), np.array([0.5, 0.5]), np.array([0.2, 0.8])).round(2).tolist()
    [[0.2, 0.8]]
    """
    weighed = probabilities * (target_prior / np.maximum(source_prior, SMALLEST))
    return np.asarray(weighed / np.maximum(weighed.sum(1, keepdims=True), 1e-300))


def estimated_priors(
    source: Floats, labels: Ints, target: Floats, *, draws: int = 200, seed: int = 0
) -> dict[str, Prior]:
    """Return the target's class shares by calibrated EM ("em") and by BBSE ("confusion"), with bootstrap intervals.

    Source rows and target rows are resampled, and the calibration is fitted anew in every draw. Both assume that only
    the class shares differ between the domains; where the texts of a class differ too, the interval does not know.
    Estimates are of all rows; intervals of at most `ROWS` of each domain, so of more rows they are a little too wide.

    Args:
        source: (S, C) probabilities on labelled source rows that were not trained on.
        labels: (S,) their classes.
        target: (R, C) probabilities on rows of the target's pool.
        draws: Resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: a class has no source row.
    """
    classes = source.shape[1]
    counts = np.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise InputError(f"Class {int(counts.argmin())} has no held-out source row, so its share cannot be estimated.")
    every, whole = (len(labels), len(target)), _priors(source, labels, target, _even(labels, target))
    generator = np.random.default_rng(seed)
    chosen, pool = _few_of_each(labels, generator), _few(np.arange(len(target)), ROWS, generator)
    source, labels, target = source[chosen], labels[chosen], target[pool]
    weights = [resample(np.ones(len(rows), np.int64), draws, generator) for rows in (labels, target)]  # (D, S), (D, R)
    at_once = max(1, NUMBERS // (max(len(labels), len(target)) * classes**2))
    parts = [
        _priors(source, labels, target, (weights[0][first : first + at_once], weights[1][first : first + at_once]))
        for first in range(0, draws, at_once)
    ]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    if len(chosen) < every[0] or len(pool) < every[1]:  # the sample's own estimate is a little off
        middle = _priors(source, labels, target, _even(labels, target))
        drawn = {name: np.clip(values + whole[name] - middle[name], 0, 1) for name, values in drawn.items()}
    return {name: _interval(whole[name][0], drawn[name]) for name in whole}


def _even(*domains: Floats | Ints) -> tuple[Floats, ...]:
    """Return the weighting (1, N) of each domain's rows in which all weigh the same."""
    return tuple(np.full((1, len(rows)), 1 / len(rows)) for rows in domains)


def _priors(source: Floats, labels: Ints, target: Floats, weights: tuple[Floats, ...]) -> dict[str, Floats]:
    """Return the class shares (D, C) by both ways for every weighting (D, S) and (D, R) of source and target rows."""
    on_source, on_target = weights
    shares = np.maximum(on_source @ np.eye(source.shape[1])[labels], SMALLEST)  # (D, C)
    scale, bias = _fit(_logs(source), labels, on_source)
    calibrated = _softmax(scale[:, None, None] * _logs(target) + bias[:, None, :])  # (D, R, C)
    by_em = _em(calibrated / shares[:, None, :], on_target, shares, 2000, 1e-6)
    return {"em": by_em, "confusion": _inverted(source, labels, target, (on_source, on_target))}


def _few_of_each(labels: Ints, generator: np.random.Generator) -> Ints:
    """Return `ROWS` rows or all (n,): of each class its share, at least one."""
    if len(labels) <= ROWS:
        return np.arange(len(labels))
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([_few(rows, max(1, ROWS * len(rows) // len(labels)), generator) for rows in groups])


def _few(rows: Ints, most: int, generator: np.random.Generator) -> Ints:
    return rows if len(rows) <= most else np.sort(generator.choice(rows, most, replace=False))


def doubt(shares: Mapping[str, Mapping[str, float]], source: Mapping[str, float]) -> str:
    """Return why estimated class shares (label -> estimate, low, high) say nothing of the domain; "" where they may.

    >>> doubt({"a": {"estimate": 0.0, "low": 0.0, "high": 0.1}}, {"a": 0.5})
    'they leave out a, as those of a model do that leans to the other classes there'
    """
    widest = max(shares.values(), key=lambda share: share["high"] - share["low"])
    if widest["high"] - widest["low"] > VAGUE:
        low, high = f"{widest['low']:.0%}", f"{widest['high']:.0%}"
        return f"an interval reaches from {low} to {high}: the model hardly tells the classes apart"
    absent = [name for name, share in shares.items() if share["estimate"] < ABSENT <= source[name] / 5]
    if absent:
        return f"they leave out {', '.join(absent)}, as those of a model do that leans to the other classes there"
    return ""


def withheld(prior: Mapping[str, Any], source: Mapping[str, float]) -> str:
    """Return why guessed class shares, as guidebook.json has them, are not to be relied on; "" where they may be.

    Guidebooks of older versions do not say it themselves: theirs are judged by `doubt` alone.
    """
    return str(prior.get("withheld") or doubt(prior["em"], source))


def _interval(estimate: Floats, draws: Floats) -> Prior:
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return Prior(estimate, np.minimum(low, estimate), np.maximum(high, estimate))


def _logs(probabilities: Floats) -> Floats:
    return np.log(np.clip(probabilities, SMALLEST, None))


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))


def _fit(logs: Floats, labels: Ints, weights: Floats, steps: int = 50) -> tuple[Floats, Floats]:
    """Return scale (D,) and bias (D, C) of every weighting (D, N) of rows: Newton's method with halved steps."""
    draws, classes = len(weights), logs.shape[1]
    once = np.eye(classes)[labels]  # (N, C)
    slopes = np.concatenate(
        [logs[:, :, None], np.broadcast_to(np.eye(classes)[None], (len(logs), classes, classes))], 2
    )
    slopes = np.delete(slopes, 1, axis=2)  # (N, C, K): of each logit by scale and by the biases after the first
    start = np.zeros(classes)
    start[0] = 1.0
    found = np.tile(start, (draws, 1))  # (D, K)

    def losses(at: Floats) -> tuple[Floats, Floats]:
        chances = _softmax(np.einsum("nck,dk->dnc", slopes, at))
        fit = -np.einsum("dn,dnc,nc->d", weights, np.log(np.maximum(chances, 1e-300)), once)
        return fit + RIDGE / 2 * ((at - start) ** 2).sum(1), chances

    value, chances = losses(found)
    for _ in range(steps):
        residual = (chances - once) * weights[:, :, None]  # (D, N, C)
        gradient = np.einsum("dnc,nck->dk", residual, slopes) + RIDGE * (found - start)
        mean = np.einsum("dnc,nck->dnk", chances, slopes)
        curve = np.einsum("dn,dnc,nck,ncj->dkj", weights, chances, slopes, slopes, optimize=True)
        curve -= np.einsum("dn,dnk,dnj->dkj", weights, mean, mean, optimize=True)
        step = np.linalg.solve(curve + RIDGE * np.eye(classes), gradient[:, :, None])[:, :, 0]
        factor = np.ones((draws, 1))
        for _ in range(20):
            tried, tried_chances = losses(found - factor * step)
            worse = tried > value + 1e-12
            if not worse.any():
                break
            factor[worse] /= 2
        better = ~worse
        found[better] -= (factor * step)[better]
        value[better], chances[better] = tried[better], tried_chances[better]
        if np.abs(factor * step).max() < 1e-8:
            break
    return found[:, 0], np.concatenate([np.zeros((draws, 1)), found[:, 1:]], 1)


def _em(ratios: Floats, weights: Floats, start: Floats, steps: int, tolerance: float, *, pull: float = 0.0) -> Floats:
    """Return the shares (D, C) that EM reaches from p / source share (D, N, C) with row weights (D, N)."""
    shares = first = np.maximum(start, SMALLEST) / np.maximum(start, SMALLEST).sum(1, keepdims=True)
    for _ in range(steps):
        joint = ratios * shares[:, None, :]
        new = np.einsum("dn,dnc->dc", weights, joint / np.maximum(joint.sum(2, keepdims=True), 1e-300))
        new = (new + pull * first) / (1 + pull)
        moved = np.abs(new - shares).max()
        shares = new
        if moved < tolerance:
            break
    return np.asarray(shares)


def _inverted(source: Floats, labels: Ints, target: Floats, weights: tuple[Floats, Floats]) -> Floats:
    """Return BBSE's shares (D, C) for every weighting of source rows (D, S) and target rows (D, R)."""
    classes = source.shape[1]
    once, said = np.eye(classes)[labels], np.eye(classes)[source.argmax(1)]
    joint = np.einsum("ds,sp,sc->dpc", weights[0], said, once, optimize=True)  # (D, predicted, true)
    there = weights[1] @ np.eye(classes)[target.argmax(1)]  # (D, C)
    ratio = (np.linalg.pinv(joint) @ there[:, :, None])[:, :, 0]
    shares = np.clip(ratio * (weights[0] @ once), 0, None)
    total = shares.sum(1, keepdims=True)
    return np.asarray(np.where(total > 0, shares / np.maximum(total, 1e-12), 1 / classes))
