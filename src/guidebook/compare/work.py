"""Run what has no record yet. Killed anywhere, the same call goes on; several processes may work on one folder."""

from __future__ import annotations

import contextlib
import datetime
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.adaptation import follow, prepare
from guidebook.compare.draw import drawn_source
from guidebook.compare.grid import OF_THE_RUN, Comparison, Group, Job, made_with
from guidebook.compare.scores import forgotten, label_free_scores
from guidebook.data.gold import reveal_gold
from guidebook.errors import InputError, MachineError, OutOfMemory, RunError
from guidebook.evaluation.records import Keys, append_record, machine, read_records, versions
from guidebook.evaluation.task_scores import ACCURACY, by_row, metric_of, recorded, scores
from guidebook.locks import claimed
from guidebook.recipe import Recipe, name_of
from guidebook.training.disk import disk_explained
from guidebook.training.engine import Engine, Outcome
from guidebook.training.listener import Listener
from guidebook.training.memory import memory_explained, peak_megabytes
from guidebook.training.run import Material
from guidebook.training.store import key_of

RECORDS = "records.jsonl"
WAIT = 0.5  # seconds between two looks at what other processes still work on


@dataclass(frozen=True)
class Share:
    """One of several parts of the work, for machines that share no disk.

    >>> Share.of("2/3")
    Share(part=2, parts=3)
    """

    part: int = 1
    parts: int = 1

    @classmethod
    def of(cls, text: str) -> Share:
        """The share that `2/3` stands for.

        Raises:
            InputError: it does not read like that.
        """
        part, _, parts = text.partition("/")
        if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            raise InputError(f"share: found {text!r}, expected a part and a number of parts, such as 2/3.")
        return cls(int(part), int(parts))


@disk_explained()
def work(comparison: Comparison, folder: Path, share: Share | None = None, listener: Listener | None = None) -> None:
    """Do every job that has no record, group by group; groups that another process works on are left to it.

    Returns when every job of the share has a record.

    Raises:
        InputError: data or recipe are wrong, or the folder holds records of another base.
        MachineError: the disk is full, or some runs had too little memory.
    """
    listener, share = listener or Listener(), share or Share()
    groups: dict[str, list[Job]] = {}
    for job in comparison.jobs():
        groups.setdefault(_group_key(job.group), []).append(job)
    mine = list(groups.items())[share.part - 1 :: share.parts]
    known, failed = Keys(folder / RECORDS), dict[str, OutOfMemory]()

    def without_record(jobs: list[Job]) -> list[Job]:
        done = known.now()
        return [job for job in jobs if job.key not in done and job.key not in failed]

    while open_groups := [(key, jobs) for key, jobs in mine if without_record(jobs)]:
        worked = False
        for key, jobs in open_groups:
            with claim(folder, key) as claimed:
                if claimed and (todo := without_record(jobs)):
                    failed |= _run_group(comparison, todo, folder, listener)
                    worked = True
        if not worked:
            time.sleep(WAIT)
    if failed:
        raise OutOfMemory(
            f"{len(failed)} of the runs had too little memory and have no record; the same command tries them again, "
            f"all others are done. The first: {next(iter(failed.values()))}"
        )


def _group_key(group: Group) -> str:
    return key_of({"source": group.source.name, "drawn": [group.rows, group.draw, group.seed]})


@contextlib.contextmanager
def claim(folder: Path, key: str) -> Iterator[bool]:
    """Yield whether no other process has this key, and keep it meanwhile; a process that dies lets go."""
    with claimed(folder / "claims" / key) as mine:
        yield mine


def _run_group(comparison: Comparison, jobs: list[Job], folder: Path, listener: Listener) -> dict[str, OutOfMemory]:
    """Do jobs of one group, and return by key those that had too little memory, which says nothing about them."""
    group, failed = jobs[0].group, dict[str, OutOfMemory]()
    source = drawn_source(group.source, group.rows, group.draw, comparison.recipe)
    settings, material, engine = None, None, None
    for number, job in enumerate(jobs):
        recipe = _recipe(job, source)
        wanted = {name: value for name, value in recipe.resolved().items() if name not in OF_THE_RUN}
        if engine is None or material is None or wanted != settings:
            settings, (material, engine) = wanted, prepare(recipe, _Quiet(listener))
            _check_base(engine, folder)
            _check_labels(material)
        name = f"{job.candidate.name}, {group.source.name} to {job.target}"
        listener.start(name, None)
        try:
            with memory_explained(name, recipe.train):
                record = _record(job, recipe, material, engine)
        except OutOfMemory as error:
            failed[job.key], material, engine = error, None, None
            _let_go()
            continue
        append_record(folder / RECORDS, {**record, "flagship": comparison.flagship})
        listener.finish(name)
        listener.advance("records", number + 1)
    if engine is not None:
        engine.clear()
        engine.host.check_base()
    return failed


def _let_go() -> None:
    """Give the memory of what is no longer held back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Quiet(Listener):
    """Passes on how far a stage is, and nothing of what every single run says."""

    def __init__(self, listener: Listener) -> None:
        self.start, self.advance, self.finish = listener.start, listener.advance, listener.finish  # type: ignore[method-assign]


def _recipe(job: Job, source: Any) -> Recipe:
    group, recipe = job.group, job.candidate.recipe
    dev = recipe.task.dev if source.test is None else 0.0
    return recipe.replace(
        source=source,
        targets=group.targets,
        unlabelled=group.unlabelled,
        seed=group.seed,
        task=replace(recipe.task, dev=dev),
    )


def _check_labels(material: Material) -> None:
    """Refuse targets that candidates cannot be compared on, before any is trained; no label is read."""
    for name, test in material.corpus.tests.items():
        if test.hidden is None:
            why = f" ({test.note})" if test.note else ""
            raise InputError(
                f"{test.path or name}: no labels to compare candidates on. Name rows with labels: `test:`.{why}"
            )


def _check_base(engine: Engine, folder: Path) -> None:
    for record in read_records(folder / RECORDS):
        if record["base"] == engine.host.base_id and record["base_fingerprint"] != engine.host.fingerprint:
            raise InputError(
                f"{folder / RECORDS} holds records of {record['base']} with other weights "
                f"({record['base_fingerprint'][:12]}, now {engine.host.fingerprint[:12]}). Choose another --out."
            )


def _record(job: Job, recipe: Recipe, material: Material, engine: Engine) -> dict[str, Any]:
    """Train, or find, one model and return everything that tables need to know of it."""
    began = time.monotonic()
    group, target = job.group, next(p for p in material.corpus.targets if p.name == job.target)
    shared = {
        "key": job.key,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "candidate": job.candidate.name,
        "method": name_of(recipe.method),
        "source": group.source.name,
        "target": job.target,
        "labelled_rows": group.rows,
        "draw": group.draw,
        "seed": group.seed,
        "base": engine.host.base_id,
        "base_fingerprint": engine.host.fingerprint,
        "base_saw": list(recipe.base_saw),
        "base_quantised_from": engine.host.quantised_from,
    }
    outcome: Outcome | None = None
    try:
        outcome = follow(name_of(recipe.method), recipe.method, target, material, engine)
        measured = {
            **_measured(outcome, material, target.name),
            **_costs(outcome, engine),
            **label_free_scores(material, engine, outcome),
            "forgetting": forgotten(material, engine, outcome),
        }
    except MachineError:
        raise  # of the machine, not of the candidate: it is tried again
    except RunError as error:  # a candidate that diverges is a result: it stays in the table as failed
        measured = {"failed": str(error)}
    return {
        **shared,
        **measured,
        "seconds": round(time.monotonic() - began, 2),
        "memory_megabytes": peak_megabytes(),
        "recipe": recipe.replace(source=group.source).resolved(),
        "fingerprints": {p.name: p.fingerprint for p in (*material.corpus.everything, *material.corpus.tests.values())},
        **made_with(job.candidate.recipe),
        "versions": versions(),
        "machine": machine(),
    }


def _measured(outcome: Outcome, material: Material, target: str) -> dict[str, Any]:
    """Return the metrics; target labels are revealed here, for the final evaluation."""
    corpus = material.corpus
    test = corpus.tests[target]
    gold = reveal_gold(test, corpus.labels)
    if gold is None:
        raise InputError(f"{test.path or target}: no labels to compare candidates on. Name rows with labels.")
    if not gold.known.any():
        found = ", ".join(map(repr, list(gold.unknown)[:5])) or "missing"
        raise InputError(f"{test.path or target}: its labels ({found}) are none of {list(corpus.labels.names)}.")
    predicted = outcome.predictions["target"]
    brief = scores(predicted, gold.rows, corpus.labels.names, gold.tags)
    values = by_row(predicted, gold, corpus.labels.names)
    on_source = None
    if corpus.dev and "source" in outcome.predictions:
        held_out = np.concatenate([population.labels for population in corpus.dev if population.labels is not None])
        on_source = scores(outcome.predictions["source"], held_out, corpus.labels.names)
    return {
        "rows": int(gold.known.sum()),
        "texts": int(gold.labelled.sum()),
        "without_label": gold.without,
        "unknown_labels": gold.unknown,
        **recorded(brief, on_source),
        "transductive": corpus.overlaps[target].transductive,
        "overlap": corpus.overlaps[target].plain(),
        "accuracy": brief["accuracy"],
        "accuracy_low": brief["accuracy_low"],
        "accuracy_high": brief["accuracy_high"],
        "macro_f1": brief["macro_f1"],
        "calibration_error": brief["calibration_error"],
        "confusion": brief["confusion"],
        "source_accuracy": on_source["accuracy"] if on_source else None,
        "source_rows": on_source["rows"] if on_source else 0,
        **_by_row(values, metric_of(brief)),
    }


def _by_row(values: np.ndarray, metric: str) -> dict[str, Any]:
    """Return what each row says: whether it was right, or, of texts with tags, its part in entity F1."""
    if metric == ACCURACY:
        return {"correct": "".join("01"[int(value)] for value in values)}
    return {"by_text": [round(float(value), 9) for value in values]}


def _costs(outcome: Outcome, engine: Engine) -> dict[str, Any]:
    """Return what the model cost to train, whether or not it was trained just now, and what it weighs."""
    figures = [trained.figures for trained in outcome.stages]
    last = outcome.stages[-1] if outcome.stages else None
    places = [last.places[name] for name in last.stack] if last else []
    weights = [path for place in places for path in place.glob("*.safetensors")]
    return {
        "megabytes_per_domain": round(sum(path.stat().st_size for path in weights) / 1e6, 3),
        "trained_parameters": max((f["trainable_parameters"] for f in figures), default=0),
        "trained_share": max((f["trainable_parameters"] for f in figures), default=0) / engine.host.base_parameters,
        "training_seconds": round(sum(f["seconds"] for f in figures), 2),
        "training_tokens": sum(f["tokens"] for f in figures),
        "stages": [
            {"key": trained.key, "name": trained.stage.name, "cached": trained.cached, "seconds": f["seconds"]}
            for trained, f in zip(outcome.stages, figures, strict=True)
        ],
    }
