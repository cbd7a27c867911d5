"""What a run can say of its targets without their labels: scores, estimates, class shares, what rows look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guidebook.data.corpus import documents, labels_of
from guidebook.data.domains import Population, select_rows
from guidebook.data.streams import seed_for
from guidebook.evaluation.abstention import Reference, reference
from guidebook.evaluation.consistency import OTHER, doubt_of
from guidebook.evaluation.drift import TWIN
from guidebook.evaluation.estimates import estimates
from guidebook.evaluation.forgetting import has_language_loss, language_loss
from guidebook.evaluation.prior import PULL, Prior, calibrate, doubt, em_prior, estimated_priors
from guidebook.evaluation.seen import Floats, Ints, Seen
from guidebook.evaluation.validators import VALIDATORS, best, validate
from guidebook.second_opinion import WordView
from guidebook.training.engine import Engine, Outcome
from guidebook.training.run import Material

ROWS = 256  # of a domain, where the base has to run over them
FREE_ROWS = 2_000  # of a domain, where predictions are there already
LM_ROWS = 48
ACCURACY = "threshold_confidence"
"""The estimate of accuracy that a run reports."""


def label_free(
    material: Material, engine: Engine, outcomes: Sequence[Outcome], level: float = 0.95
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what stands under "scores" in guidebook.json, and the known rows that strange ones are told by.

    Everything is computed on a sample of the target's pool and on held-out source rows. No target label is read;
    methods that read them are left out. Without held-out source rows only what needs none is there, and nothing where
    words are labelled: the scores are those of whole rows. `level` is that of the estimates' intervals.
    """
    corpus = material.corpus
    if material.words:
        return {"calibration": {}, "targets": []}, {}
    gold = labels_of(corpus.dev) if corpus.dev else None
    arms = {outcome.arm: outcome.predictions["source"] for outcome in outcomes if "source" in outcome.predictions}
    facts: dict[str, Any] = {"calibration": {}, "targets": []}
    if gold is not None:
        facts["source_prior"] = _named(
            np.bincount(gold, minlength=len(corpus.labels.names)) / len(gold), corpus.labels.names
        )
        for arm, found in arms.items():
            fit = calibrate(found, gold)
            facts["calibration"][arm] = {"scale": fit.scale, "bias": fit.bias.tolist()}
    known = _kept("source", [engine.pooled(material.rows(population)) for population in corpus.sources])
    words = WordView(material) if gold is not None else None
    for target in corpus.targets:
        here = [o for o in outcomes if o.target == target.name and "oracle" not in o.arm]
        entry, rows = _target(target, (material, engine, words), here, gold, level)
        facts["targets"].append(entry)
        known |= _kept(f"target {target.name}", [rows])
    return facts, known


def broken_assumptions(method: object, scores: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, by target, that a method takes the class shares of source and target to be equal and they seem not to be.

    >>> entry = {"name": "kitchen", "prior": {"shifted": True, "em": {"good": {"estimate": 0.85}}}}
    >>> class Aligning: assumes_equal_priors = True
    >>> broken_assumptions(Aligning(), {"source_prior": {"good": 0.5}, "targets": [entry]})["kitchen"][0][:44]
    'This method assumes that the classes are as '
    """
    if not getattr(method, "assumes_equal_priors", False):
        return {}
    found = {}
    for entry in scores.get("targets", ()):
        if (prior := entry.get("prior")) and prior["shifted"]:
            there = ", ".join(f"{name} {share['estimate']:.2f}" for name, share in prior["em"].items())
            here = ", ".join(f"{name} {share:.2f}" for name, share in scores["source_prior"].items())
            found[entry["name"]] = [
                f"This method assumes that the classes are as frequent in the target as in the source ({here}), but "
                f"the estimate for the target is {there}. Aligned or balanced to wrong shares, rows move to the wrong "
                "side. Prefer self_training, mean_teacher or mixed, which do not assume it, or tell co_training the "
                "shares you know (method.shares)."
            ]
    return found


def _target(
    target: Population,
    made: tuple[Material, Engine, WordView | None],
    outcomes: Sequence[Outcome],
    gold: Ints | None,
    level: float,
) -> tuple[dict[str, Any], Floats]:
    """Return the entry of one target and pooled rows of a sample of its pool."""
    material, engine, words = made
    corpus = material.corpus
    read, chances = _on_pool(target, (material, engine), outcomes)
    few = _sample(target, min(ROWS, len(target.texts)), engine.seed)
    rows = engine.pooled(material.rows(few))
    source_rows = None
    if gold is not None:
        source_rows = np.concatenate([engine.pooled(material.rows(population)) for population in corpus.dev])
    losses = _language_losses(few, outcomes, engine)
    together = np.stack(list(chances.values())) if len(chances) > 2 else None
    sees = {
        outcome.arm: (
            None
            if gold is None or "source" not in outcome.predictions
            else Seen(outcome.predictions["source"], gold, source_rows, sum(len(p.texts) for p in corpus.sources)),
            Seen(
                chances[outcome.arm],
                rows=rows,
                total=len(target.texts),
                lm_loss=losses.get(outcome.arm),
                candidates=together,
            ),
        )
        for outcome in outcomes
        if outcome.arm in chances
    }
    found = {arm: validate(source or Seen(there.probabilities), there) for arm, (source, there) in sees.items()}
    guesses = {
        arm: {
            name: vars(interval) for name, interval in estimates(source, there, seed=engine.seed, level=level).items()
        }
        for arm, (source, there) in sees.items()
        if source is not None
    }
    entry: dict[str, Any] = {
        "name": target.name,
        "pool_rows": len(target.texts),
        "rows_read": len(read),
        "validators": found,
        "picks": _picks(found),
        "estimates": guesses,
    }
    if gold is None or words is None:
        return entry, rows
    on_source, on_pool = words.held_out, words.of(target, read)
    accuracy = float((on_source.argmax(1) == gold).mean())
    doubts = {
        arm: doubt_of(chances[arm], on_pool, guesses[arm][ACCURACY]["estimate"], accuracy)
        for arm in guesses
        if ACCURACY in guesses[arm]
    }
    entry["doubts"] = {arm: vars(found) for arm, found in doubts.items() if found is not None}
    alone = sees.get(TWIN, (None, None))[0]
    if alone is not None and (np.bincount(gold, minlength=len(corpus.labels.names)) > 0).all():
        views = {TWIN: (alone.probabilities, chances[TWIN]), OTHER: (on_source, on_pool)}
        entry["prior"] = _prior(views, gold, corpus.labels.names, engine.seed, doubted=TWIN in entry["doubts"])
    return entry, rows


def _prior(
    views: Mapping[str, tuple[Floats, Floats]], gold: Ints, names: Sequence[str], seed: int, *, doubted: bool
) -> dict[str, Any]:
    """Return the guessed class shares of a target by the source-only model, and why they are withheld, if they are.

    Args:
        views: Model -> its probabilities on held-out source rows (S, C) and on rows of the target (R, C).
        gold: (S,) classes of the source rows; each has one.
        names: Names of the classes.
        seed: Of the resamples.
        doubted: Whether the guessed accuracy of the source-only model is doubted.
    """
    shares = np.bincount(gold, minlength=len(names)) / len(gold)
    source, target = views[TWIN]
    priors = estimated_priors(source, gold, target, seed=seed)
    by_words = estimated_priors(views[OTHER][0], gold, views[OTHER][1], seed=seed)["em"]
    pulled = em_prior(calibrate(source, gold)(target), shares, pull=PULL)
    by_name = {name: _interval(prior, names) for name, prior in priors.items()}
    em = priors["em"]
    why = doubt(by_name["em"], _named(shares, names))
    if not why and doubted:
        why = "the model's accuracy there is doubted, and so are shares that are counted with it"
    if not why and ((by_words.low > em.high) | (by_words.high < em.low)).any():
        why = "a model of word counts gives other shares"
    moved = bool(((shares < em.low) | (shares > em.high)).any())
    return {
        "of": TWIN,
        **by_name,
        "pulled": _named(pulled, names),
        "withheld": why,
        "shifted": moved and not why,
    }


def _on_pool(
    target: Population, made: tuple[Material, Engine], outcomes: Sequence[Outcome]
) -> tuple[Ints, dict[str, Floats]]:
    """Return which rows of the pool were read (R,), and each arm's probabilities (R, C) on them."""
    material, engine = made
    test = material.corpus.tests[target.name]
    if test is target:  # the pool was predicted already
        chosen = _chosen(len(target.texts), FREE_ROWS, engine.seed)
        found = {o.arm: o.predictions["target"][chosen] for o in outcomes if "target" in o.predictions}
        return chosen, {arm: values for arm, values in found.items() if np.isfinite(values).all()}
    chosen = _chosen(len(target.texts), ROWS, engine.seed)
    rows = material.rows(select_rows(target, chosen))
    found = {}
    for outcome in outcomes:
        if outcome.stages and outcome.predictions:
            found[outcome.arm] = engine.predict(outcome.stages[-1], rows)
        elif outcome.head is not None:
            found[outcome.arm] = engine.probe(outcome.head, rows)
    return chosen, found


def _language_losses(few: Population, outcomes: Sequence[Outcome], engine: Engine) -> dict[str, float]:
    """Return the language-modelling loss of every trained model on texts of the pool; masked once for all.

    Nothing where the base cannot be asked for it.
    """
    texts = documents(few)[:LM_ROWS]
    found: dict[str, float] = {}
    if not has_language_loss(engine.host):
        return found
    engine.listener.start("language losses", len(outcomes))
    for done, outcome in enumerate(outcomes, start=1):
        engine.listener.advance("language losses", done)
        if outcome.stages:
            engine.attach(outcome.stages[-1])
            seed = seed_for(engine.seed, "language loss") % 2**32
            found[outcome.arm] = language_loss(
                engine.host, texts, length=engine.train.max_length, rows=LM_ROWS, seed=seed
            )
    engine.listener.finish("language losses")
    return found


def _picks(scores: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Return which of the models that all have a score each validator would choose."""
    found = {}
    for name in VALIDATORS:
        known = {arm: values[name] for arm, values in scores.items() if name in values}
        if len(known) > 1:
            found[name] = best(name, known)
    return found


def _chosen(rows: int, most: int, seed: int) -> Ints:
    return np.sort(np.random.default_rng(seed_for(seed, "label free") % 2**32).permutation(rows)[:most])


def _sample(population: Population, most: int, seed: int) -> Population:
    return select_rows(population, _chosen(len(population.texts), most, seed))


def _kept(name: str, parts: Sequence[Floats]) -> dict[str, np.ndarray]:
    found: Reference | None = reference(np.concatenate(parts)[: 8 * ROWS], most=ROWS)
    if found is None:
        return {}
    return {f"{name}/rows": found.rows.astype(np.float16), f"{name}/distances": found.distances.astype(np.float32)}


def _named(shares: Floats, names: Sequence[str]) -> dict[str, float]:
    return dict(zip(names, shares.tolist(), strict=True))


def _interval(prior: Prior, names: Sequence[str]) -> dict[str, dict[str, float]]:
    parts = zip(names, prior.estimate.tolist(), prior.low.tolist(), prior.high.tolist(), strict=True)
    return {name: {"estimate": estimate, "low": low, "high": high} for name, estimate, low, high in parts}
