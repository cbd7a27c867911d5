"""Every method of the catalogue, side by side on real directions.

    screening   every method, 200 source labels, four directions between Amazon's domains, two draws
    shifted     the same methods on targets of 85 to 15, beside as many rows of 50 to 50
    mnli        a few methods on three pairs of MNLI's genres
    finalists   three methods chosen without target labels, and the flagship: the other eight directions, three draws
    many        the same with 1,700 source labels

Draw, head and order of the rows are the same for all methods of a cell, and stages that methods share are trained
once. Killed anywhere, the same command goes on; the tables are right at any time, since they compare cells that both
methods have. `--processes 24` is for a GPU, which one run of this size does not fill: each takes the next cell that
nobody has. Several machines take parts of the work: `--share 1/4`, `--share 2/4`, and so on.

    nice python benchmarks/catalogue/study.py --amazon amazon_reviews.jsonl.xz --mnli mnli_genres.jsonl.xz \
        --general corpus_wikipedia_en_2.jsonl.xz
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guidebook.adaptation import follow
from guidebook.adapters.host import Host
from guidebook.compare.draw import draw_rows
from guidebook.compare.work import Share
from guidebook.data.domains import Domain
from guidebook.evaluation.records import append_record, machine, read_records
from guidebook.methods import METHODS
from guidebook.methods.tfidf import word_model
from guidebook.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import Claims, Prepared, done, in_processes, share_of
from domains import Data, read, read_general, take
from measuring import hours_left, measured, processor

FLAGSHIP, TWIN, PLACEBO = "co_training", "source_only", "general_mlm"
TOLD = f"{FLAGSHIP}_told"
"""The flagship that is told the target's class shares: on shifted targets only."""
TAKES_LABELS = ("few_target_labels", "teacher", "target_oracle", TOLD)
"""Methods that are given labels of the target, or its class shares: run like the others, no candidates of a choice."""
SIDE_BY_SIDE = [name for name in METHODS if name != "zero_shot"]
"""Methods that work with every base: a prompt needs a decoder, and is beside the others in benchmarks/crisis."""
WORDS = "tfidf"
BASELINES = (WORDS, "linear_probe", TWIN, PLACEBO)
SCREENED = (("books", "electronics"), ("electronics", "books"), ("dvd", "kitchen"), ("kitchen", "dvd"))
GENRES = (("fiction", "travel"), ("telephone", "government"), ("slate", "fiction"))
ON_GENRES = (WORDS, TWIN, "domain_fusion", "mixed", "udapter_joint", FLAGSHIP)
CHOSEN_BY = ("nuclear_norm", "source_accuracy")
"""Label-free scores whose mean rank over the screening's cells chooses the finalists."""
FINALISTS = 3
SHIFTS = {"85/15": 0.85, "50/50": 0.5}
ADAPTERS: dict[str, dict[str, Any]] = {"houlsby": {"kind": "houlsby", "reduction": 4}, "lora": {"kind": "lora"}}
FEW = 30
WAIT = 5.0
"""Seconds until a process with nothing to do looks again."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One method on one direction with one draw: one record."""

    phase: str
    data: str
    method: str
    source: str
    target: str
    draw: int
    labels: int | None
    """Labelled source rows; None: all."""
    shift: str = ""
    """Class shares of the target's rows: one of SHIFTS; "": as they are."""

    @property
    def cell(self) -> tuple[Any, ...]:
        """What jobs have in common that start from the same data and base."""
        return (self.data, self.source, self.target, self.draw, self.labels, self.shift)


@dataclass(frozen=True)
class Budget:
    """What the study spends, and on which base."""

    base: str = "mini"
    adapter: str = "houlsby"
    """One of ADAPTERS."""
    fuse_tokens: int = 400_000
    epochs: float = 8
    test_rows: int = 1000
    general_articles: int = 1000
    fuse_rate: float = 1e-3
    task_rate: float = 3e-4
    max_length: int = 128


def everything(methods: Sequence[str]) -> Iterator[Job]:
    """Yield what needs no choice: screening, shifted targets, genres; most informative part first."""
    for draw, (source, target), method in itertools.product(range(2), SCREENED, methods):
        yield Job("screening", "amazon", method, source, target, draw, 200)
    told = (TOLD,) if FLAGSHIP in methods else ()
    for shift, (source, target), method in itertools.product(SHIFTS, SCREENED, (*methods, *told)):
        yield Job("shifted", "amazon", method, source, target, 0, 200, shift)
    for draw, (source, target), method in itertools.product(range(2), GENRES, ON_GENRES):
        if method in methods:
            yield Job("mnli", "mnli", method, source, target, draw, None)


def finals(chosen: Sequence[str], domains: Sequence[str]) -> Iterator[Job]:
    """Yield the directions that nothing was chosen on, for the finalists, the flagship and what both must beat."""
    others = [pair for pair in itertools.permutations(domains, 2) if pair not in SCREENED]
    methods = dict.fromkeys((WORDS, TWIN, PLACEBO, FLAGSHIP, *chosen))
    for draw, (source, target), method in itertools.product(range(3), others, methods):
        yield Job("finalists", "amazon", method, source, target, draw, 200)
    for (source, target), method in itertools.product(others, methods):
        yield Job("many", "amazon", method, source, target, 0, None)


def finalists(records: Sequence[Record], methods: Sequence[str]) -> list[str]:
    """Return the methods with the best mean rank by label-free scores; empty while the screening is incomplete."""
    known = [method for method in methods if method not in (*BASELINES, *TAKES_LABELS, FLAGSHIP)]
    cells: dict[tuple[str, str, int], dict[str, Record]] = defaultdict(dict)
    for record in records:
        if record["phase"] == "screening" and record["method"] in known:
            cells[record["source"], record["target"], record["draw"]][record["method"]] = record
    if len(cells) < 2 * len(SCREENED) or any(len(cell) < len(known) for cell in cells.values()):
        return []
    places: dict[str, list[float]] = defaultdict(list)
    for cell, score in itertools.product(cells.values(), CHOSEN_BY):
        values = {name: label_free(record, score) for name, record in cell.items()}
        for name, value in values.items():
            better = sum(other > value for other in values.values())
            places[name].append(better + sum(other == value for other in values.values()) / 2)
    return sorted(known, key=lambda name: (float(np.mean(places[name])), name))[:FINALISTS]


def label_free(record: Record, score: str) -> float:
    """Return a label-free score of a record, higher is better; minus infinity where it has none."""
    found = record["label_free_scores"].get(score)
    if found is None:
        return -np.inf
    return float(found["value"] if found["higher_is_better"] else -found["value"])


def shifted_rows(labels: Sequence[str], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pool and test row ids: two halves of a target's labelled rows, the last class with its share in both.

    The labels make the world that is tested; no method sees them. Every share gives the same number of rows.
    """
    random, gold = np.random.default_rng(0), np.array(labels)
    first, last = sorted(set(labels))[0], sorted(set(labels))[-1]
    halves = [np.array_split(random.permutation(np.flatnonzero(gold == name)), 2) for name in (first, last)]
    largest = max(*SHIFTS.values())
    total = int(min(len(half) for pair in halves for half in pair) / largest)
    parts = []
    for few, many in zip(*halves, strict=True):
        most = round(share * total)
        parts.append(np.sort(np.concatenate([few[: total - most], many[:most]])))
    return parts[0], parts[1]


def target_of(job: Job, budget: Budget, data: Data) -> Domain:
    """Return the target of a job: pool texts, and test rows with labels for the final evaluation."""
    if job.shift:
        labelled = data.of(job.target, *data.tests)
        pool, test = shifted_rows(labelled["labels"], SHIFTS[job.shift])
        texts = {name: values for name, values in take(labelled, pool).items() if name != "labels"}
        return Domain(job.target, **texts, test=Domain(f"{job.target}-test", **take(labelled, test)))
    test = Domain(f"{job.target}-test", **data.test(job.target, budget.test_rows))
    return Domain(job.target, **data.pool(job.target), test=test)


def method_of(job: Job, data: Data, target: Domain, source: Domain, folder: Path) -> Any:
    """Return the method's name with what some are given of the target: labels, what tf-idf says, class shares."""
    if job.method == TOLD:
        first, last = sorted(set(source.labels or ()))
        return {"name": FLAGSHIP, "shares": {first: 1 - SHIFTS[job.shift], last: SHIFTS[job.shift]}}
    if job.method == "few_target_labels":
        labelled, tested = data.of(job.target, *data.tests), set((target.test or target).texts or ())
        free = [row for row, text in enumerate(labelled["texts"]) if text not in tested]
        rows = np.random.default_rng(job.draw).permutation(free)[:FEW]
        lines = [json.dumps({"text": labelled["texts"][row], "label": labelled["labels"][row]}) for row in rows]
    elif job.method == "teacher":
        lines = said_by_words(source, target)
    else:
        return job.method
    place = folder / f"{job.method}.jsonl"
    place.write_text("\n".join(lines) + "\n", encoding="utf8")
    return {"name": job.method, "path": str(place)}


def said_by_words(source: Domain, target: Domain) -> list[str]:
    """Return a line of probabilities for every target text by tf-idf and logistic regression on the source."""
    model = word_model().fit(source.texts, source.labels)
    names = [str(name) for name in model.classes_]
    return [json.dumps(dict(zip(names, row.tolist(), strict=True))) for row in model.predict_proba(target.texts)]


def recipe_for(
    job: Job, budget: Budget, data: Data, general: list[str], folder: Path, *, saw: list[str] | None = None
) -> Recipe:
    """Return the recipe of a job; `saw` is what the base had seen, if it is not a packaged one."""
    labelled, dev = data.of(job.source, "train"), data.of(job.source, "dev")
    if job.labels is not None:
        labelled = take(labelled, draw_rows(np.array(labelled["labels"]), job.labels, job.draw))
    source = Domain(job.source, **labelled, test=Domain(f"{job.source}-dev", **dev))
    target = target_of(job, budget, data)
    unlabelled = [Domain(f"{job.source}-pool", **data.pool(job.source))]
    alone = bool(job.shift) or data.name != "amazon"
    targets = [job.target] if alone else [name for name in data.domains if name != job.source]
    return Recipe(
        base=budget.base,
        base_saw=saw,
        source=source,
        unlabelled=unlabelled if data.name == "amazon" else [],
        targets=[target if name == job.target else Domain(name, **data.pool(name)) for name in targets],
        general=[Domain("wikipedia", texts=general)],
        task={"max_length": budget.max_length},
        adapter=ADAPTERS[budget.adapter],
        method=method_of(job, data, target, source, folder),
        train={
            "max_length": budget.max_length,
            "fuse": {"tokens": budget.fuse_tokens, "learning_rate": budget.fuse_rate},
            "task": {"epochs": budget.epochs, "rows_per_batch": 16, "learning_rate": budget.task_rate},
        },
        seed=job.draw,
    )


def run_job(
    job: Job, budget: Budget, data: Data, general: list[str], prepared: Prepared, *, saw: list[str] | None = None
) -> Record:
    """Train (or find) the job's model and return its record."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_for(job, budget, data, general, Path(folder), saw=saw)
        material, engine = prepared.for_cell(job.cell, recipe)
        target = next(population for population in material.corpus.targets if population.name == job.target)
        outcome = follow(job.method, recipe.method, target, material, engine)
    record = measured(outcome, target, material, engine)
    engine.clear()
    engine.host.check_base()
    return {
        **asdict(job),
        "budget": asdict(budget),
        **record,
        "label_free": getattr(recipe.method, "label_free", True),
        "recipe": without_folders(recipe.resolved()),
        "seconds": round(time.monotonic() - began, 1),
        "base_saw": list(recipe.base_saw),
    }


def without_folders(recipe: Record) -> Record:
    """Return a resolved recipe that names a file which was made for the run by its name alone."""
    path = recipe["method"].get("path")
    return {**recipe, "method": {**recipe["method"], "path": Path(path).name}} if path else recipe


def main() -> None:
    """Run what has no record yet, saying how long it still takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("amazon", "mnli", "general"):
        parser.add_argument(f"--{name}", type=Path, required=name != "mnli")
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    parser.add_argument("--phases", nargs="*", default=["screening", "shifted", "mnli", "finalists", "many"])
    parser.add_argument("--methods", nargs="*", default=SIDE_BY_SIDE, choices=list(METHODS))
    parser.add_argument("--share", type=Share.of, default=Share(), help="part of the work, for example 2/4")
    parser.add_argument("--processes", type=int, default=1, help="how many share this machine, for example 24 on a GPU")
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)  # of the processes that --processes starts
    parser.add_argument("--hours", type=float, default=math.inf, help="start no run later than this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--saw", nargs="*", help="what the base had seen, if it is not a packaged one")
    for item in Budget.__dataclass_fields__.values():
        kind, known = type(item.default), list(ADAPTERS) if item.name == "adapter" else None
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, default=item.default, choices=known)
    options = parser.parse_args()
    if options.processes > 1:
        raise SystemExit(in_processes(options.processes))
    torch.set_num_threads(options.threads)
    budget = Budget(**{name: getattr(options, name) for name in Budget.__dataclass_fields__})
    places = {"amazon": options.amazon, "mnli": options.mnli}
    data = {name: read(name, place) for name, place in places.items() if place is not None}
    general = read_general(options.general, budget.general_articles)
    work(options, budget, data, general)


def work(options: argparse.Namespace, budget: Budget, data: dict[str, Data], general: list[str]) -> None:
    """Do the jobs of this share that have no record; the finals once the screening has chosen.

    A job that fails is named with its traceback and left; the others go on.
    """
    fingerprint = Host.load(budget.base).fingerprint  # a base that was trained further is another one
    failed: set[Job] = set()
    prepared, claims, began = Prepared(), Claims(options.claims), time.monotonic()
    while True:
        records = [
            record
            for record in read_records(options.records)
            if record["budget"] == asdict(budget) and record["base_fingerprint"] == fingerprint
        ]
        chosen = finalists(records, options.methods)
        jobs = [*everything(options.methods), *(finals(chosen, data["amazon"].domains) if chosen else ())]
        jobs = [job for job in jobs if job.phase in options.phases and job.data in data]
        jobs = share_of(jobs, [job.cell for job in jobs], options.share)
        todo = [job for job in jobs if not done(records, job, budget)]
        todo = [job for job in todo if job not in failed and not claims.given_up(job)]
        here = [record for record in records if processor(record["machine"]) == processor(machine())]
        hours = (
            f"{hours_left(todo, here):.1f} hours left{' of all processes together' if options.claims else ''}"
            if here or not todo
            else "hours unknown before the first run here"
        )
        print(f"{len(todo)} of {len(jobs)} runs to do, {hours}", flush=True)
        if not chosen:
            print("the finalists are not chosen yet: the screening is not complete", flush=True)
        if not todo and failed:
            raise SystemExit(f"{len(failed)} runs failed, see above")
        if not todo or time.monotonic() - began > 3600 * options.hours:
            return
        if (job := claims.next_of(todo)) is None:  # others do what is left; the finals may come of it
            time.sleep(WAIT)
            continue
        try:
            record = run_job(job, budget, data[job.data], general, prepared, saw=options.saw)
        except Exception:
            failed.add(job)
            claims.give_up(job)
            print(f"{job} failed", traceback.format_exc(), sep="\n", flush=True)
            continue
        append_record(options.records, record)
        print(f"{job} accuracy {record['accuracy']:.3f} in {record['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
