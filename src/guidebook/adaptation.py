"""The whole flow, top to bottom.

read -> hide the targets' labels -> tokens -> frozen base -> for every stage of the method: plan batches, train or
reuse -> evaluate -> save. Every other file is one idea whose name you meet here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.account import account, scores
from guidebook.adapters.host import Host
from guidebook.artifact import Guidebook, load
from guidebook.data.corpus import Corpus, read_corpus
from guidebook.data.documents import Split, read_documents_corpus
from guidebook.data.domains import Domain, LabelSet, Population, load_target
from guidebook.data.tags import TagSet, flat
from guidebook.errors import InputError
from guidebook.evidence import evidence
from guidebook.label_free import broken_assumptions, label_free
from guidebook.recipe import Recipe, name_of
from guidebook.training import processes
from guidebook.training.engine import Engine, Outcome, Trained
from guidebook.training.estimate import estimate_stages
from guidebook.training.generation import require_causal
from guidebook.training.layers import check_layers
from guidebook.training.listener import Listener
from guidebook.training.memory import available_megabytes, memory_needed
from guidebook.training.prediction import Rows
from guidebook.training.run import Material, Run
from guidebook.training.scoring import start_token
from guidebook.training.store import Store, default_root, full_disk_explained, key_of
from guidebook.training.trainer import bf16_is_fast, check_arguments
from guidebook.writing import check_out, write_guidebook

BASELINES = ("tfidf", "linear_probe", "source_only")


@full_disk_explained()
def adapt(recipe: Recipe, out: str | Path | None = None, listener: Listener | None = None) -> Guidebook:
    """Adapt the recipe's base to its targets without their labels and return the guidebook.

    Args:
        recipe: What to adapt, to what, how.
        out: Folder of the artifact; it must be new, empty, or a guidebook (which is then replaced as a whole).
            Without it the guidebook stands in the cache.
        listener: Hears of the progress.

    Raises:
        InputError: the data or the recipe is wrong; nothing was trained.
        RunError: the run failed; the same call goes on from the last complete checkpoint.
    """
    began = time.monotonic()
    processes.join()
    listener = (listener if processes.is_first() else None) or Listener()
    folder = check_out(Path(out)) if out is not None else None
    if processes.is_first():
        bf16_is_fast()  # a race of two products whose verdict is kept: run once, or processes could disagree
    processes.wait()
    material, engine = prepare(recipe, listener)
    listener.announce(plan_ahead(recipe, material, engine))

    outcomes = []
    for arm, method in arms(recipe):
        for target in material.corpus.targets:
            outcomes.append(follow(arm, method, target, material, engine))
    results = account(recipe, material, engine, outcomes)
    closer, known = None, None
    if recipe.task.labelled:
        results["scores"], known = label_free(material, engine, outcomes)
        for name, notes in broken_assumptions(recipe.method, results["scores"]).items():
            results["notes"].setdefault(f"{results['method']} for {name}", []).extend(notes)
            listener.note(f"{name}: {notes[0]}")
        closer = evidence(recipe, material, engine, outcomes)
    engine.clear()
    engine.host.check_base()
    results["seconds"] = round(time.monotonic() - began, 1)
    folder = folder or engine.store.root / "guidebooks" / recipe_key(recipe, material, outcomes)
    if processes.is_first():
        write_guidebook(folder, results, outcomes, closer, known)
    processes.wait()
    return load(folder)


def prepare(recipe: Recipe, listener: Listener) -> tuple[Material, Engine]:
    """Read the data, hide the targets' labels, load the base and fix what all arms share."""
    if not recipe.targets:
        raise InputError(
            "The recipe has no target. Name unlabelled text: `targets: [kitchen.csv]`, --target kitchen.csv."
        )
    check_arguments(recipe.trainer)
    corpus = read(recipe)
    for population in (*corpus.everything, *corpus.dev):
        chosen = {role: name for role, name in vars(population.columns).items() if name}
        listener.note(
            f"{population.name} ({population.role}): {len(population.texts)} rows, columns {chosen or 'text'}"
        )
        for why, count in population.dropped.items():
            listener.note(f"{population.name}: {count} rows dropped: {why}")
    dropout = recipe.train.base_dropout or recipe.adapter.kind == "full"
    host = Host.load(
        recipe.base,
        recipe.base_dtype,
        dropout,
        getattr(recipe.adapter, "modules", {}),
        quantise=recipe.quantise,
        needs_lm_head=False,  # what models text asks for it when it is planned
    )
    host.check_length(max(recipe.train.max_length, recipe.task.max_length))
    if not recipe.task.labelled:
        require_causal(host)
        start_token(host)
    check_layers(host, recipe.train)
    if host.dtype != "float32" and not bf16_is_fast():
        listener.note(f"base_dtype {host.dtype} halves the base's memory; on this machine it is slower than float32")
    engine = Engine(
        host=host,
        adapter=recipe.adapter,
        task=recipe.task,
        classes=len(corpus.labels.names),
        train=recipe.train,
        seed=recipe.seed,
        store=Store(default_root()),
        trainer=recipe.trainer,
        listener=listener,
    )
    material = Material(
        corpus,
        host.tokenizer,
        length=recipe.train.max_length,
        task_length=recipe.task.max_length,
        causal=host.placement.kind == "causal",
        words=recipe.task.words,
        cache=engine.store.root / "tokens",
    )
    return material, engine


def read(recipe: Recipe) -> Corpus:
    """Read every domain the recipe names, as its task wants them."""
    if not recipe.task.labelled:
        if recipe.source or recipe.unlabelled:
            raise InputError(f"The task {recipe.task.kind} has no labels, so it takes no source. Name targets alone.")
        task = recipe.task
        held = (task.validation_split_ratio, task.split_seed, task.group)
        split = Split(*held, task.max_train_documents, task.max_validation_documents)
        return read_documents_corpus(recipe.targets, recipe.general, split)
    if not recipe.source:
        raise InputError("The recipe has no source. Name labelled data: `source: books.csv` or --source books.csv.")
    return read_corpus(
        recipe.source,
        recipe.targets,
        unlabelled=recipe.unlabelled,
        general=recipe.general,
        labels=recipe.task.labels,
        dev=recipe.task.dev,
        seed=recipe.seed,
        words=recipe.task.words,
    )


def arms(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Yield the baselines that are in every table (without labels there is but the base), then the recipe's method."""
    chosen = name_of(recipe.method)
    for name in BASELINES if recipe.task.labelled else ():
        if name != chosen:
            yield name, recipe.replace(method=name).method
    yield chosen, recipe.method


def follow(arm: str, method: Any, target: Population, material: Material, engine: Engine) -> Outcome:
    """Run one method for one target: its plan, stage by stage, then its predictions."""
    outcome = Outcome(arm, target.name)
    run = Run(material, target, engine.seed, _Predictions(engine, outcome))
    made: dict[str, Trained] = {}
    for stage in method.plan(run):
        trained = engine.train_or_reuse(stage, made)
        made |= dict.fromkeys(stage.makes, trained)
        outcome.stages.append(trained)
    if run.has_task and not run.predictions and outcome.stages:
        run.submit(_Predictions(engine, outcome).latest)
    outcome.predictions, outcome.head = run.predictions, run.head
    return outcome


@dataclass
class _Predictions:
    """What a run may ask of the engine."""

    engine: Engine
    outcome: Outcome

    def pooled(self, rows: Rows) -> np.ndarray:
        return self.engine.pooled(rows)

    def probe(self, tensors: Mapping[str, Any], rows: Rows) -> np.ndarray:
        return self.engine.probe(tensors, rows)

    def latest(self, rows: Rows) -> np.ndarray:
        return self.engine.predict(self.outcome.stages[-1], rows)

    def note(self, text: str) -> None:
        self.outcome.notes.append(text)
        self.engine.listener.note(f"{self.outcome.arm} for {self.outcome.target}: {text}")


def plan_ahead(recipe: Recipe, material: Material, engine: Engine) -> dict[str, Any]:
    """Return what the run will do before it does it: stages, tokens, seconds, parameters, memory."""
    plans = []
    for arm, method in arms(recipe):
        if arm in BASELINES[:2]:
            continue
        for target in material.corpus.targets:
            made: dict[str, Trained] = {}
            for stage in method.plan(Run(material, target, engine.seed, None)):
                planned = engine.planned(stage, made)
                made |= dict.fromkeys(stage.makes, planned)
                if stage.losses or stage.combine:
                    plans.append((arm, target.name, planned))
    return estimate_stages(engine, plans)


def estimate(recipe: Recipe, listener: Listener | None = None) -> dict[str, Any]:
    """Return what `adapt` would do, without training: the `--dry-run`.

    A causal base's memory is told first, from its configuration; where there is too little, nothing is loaded.

    Raises:
        InputError: the data or the recipe is wrong.
    """
    needed = memory_needed(recipe.base, recipe.adapter, recipe.train, recipe.base_dtype, recipe.quantise)
    there = available_megabytes()
    if needed is not None and there is not None and needed["total"] > there:
        return {"stages": [], "seconds": 0.0, "tokens": 0, "memory": needed, "available_megabytes": round(there, 1)}
    plan = plan_ahead(recipe, *prepare(recipe, listener or Listener()))
    return plan if needed is None else {**plan, "memory": needed}


def evaluate(book: Guidebook, domain: Domain, which: str | None = None) -> dict[str, Any]:
    """Return the scores of a guidebook on labelled rows of a domain, by variant.

    Args:
        book: One guidebook.
        domain: Labelled rows.
        which: A target it serves, to score only what serves that target; otherwise every variant is scored.

    Raises:
        InputError: no labels, or none that the guidebook knows.
    """
    words = book.meta["task"]["pooling"] == "tokens"
    population = load_target(domain, words=words)
    if population.hidden is None:
        raise InputError(f"{population.path or domain.name}: no label column, so there is nothing to score against.")
    labels = TagSet(tuple(book.labels)) if words else LabelSet(tuple(book.labels))
    raw = population.hidden.reveal("final evaluation")
    gold = labels.encode(raw)
    if not (flat(gold) >= 0).any():
        raise InputError(f"{population.path or domain.name}: none of its labels is one of {book.labels}.")
    found = {}
    for variant in [book.meta["serves"].get(which, which)] if which else list(book.meta["variants"]):
        probabilities = book.predict_proba(population.texts, population.text_pairs, domain=variant)
        found[variant] = scores(np.concatenate(list(probabilities)) if words else probabilities, gold, labels.names)
    return {"rows": int((flat(gold) >= 0).sum()), "unknown_labels": labels.unknown(raw), "scores": found}


def recipe_key(recipe: Recipe, material: Material, outcomes: list[Outcome]) -> str:
    """Return a folder name for a guidebook that was given no `out`: a hash of what was asked, read and trained."""
    stages = [[outcome.arm, outcome.target, [stage.key for stage in outcome.stages]] for outcome in outcomes]
    texts = [population.fingerprint for population in (*material.corpus.targets, *material.corpus.tests.values())]
    return key_of({"recipe": recipe.resolved(), "stages": stages, "texts": texts})
