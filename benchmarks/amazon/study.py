"""Does fusing the domains help? Four arms at equal tokens, steps and learning rate, on Amazon reviews.

    none             the task alone
    general          a fusion stage on general text first: the placebo
    source+targets   a fusion stage on all four domains' unlabelled reviews first (domain fusion, scope all)
    target           a fusion stage on the target's unlabelled reviews first

Beside them, on the same labels: tf-idf with a logistic regression, and a linear probe of the base.

The few-label regime draws 200 source labels; draw, head, and data order are the same in every arm. `none` and
`source+targets` are one model per source and draw, so their stages are trained once and found in the store.
Killed anywhere, the same command goes on; the table is right at any time.

    nice python benchmarks/amazon/study.py --data amazon_reviews.jsonl.xz --general corpus_wikipedia_en_2.jsonl.xz
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guidebook.account import scores
from guidebook.adaptation import follow
from guidebook.adapters.host import Host
from guidebook.compare.draw import draw_rows
from guidebook.compare.work import Share
from guidebook.data.corpus import labels_of
from guidebook.data.domains import Domain
from guidebook.evaluation.records import append_record, machine, read_records, versions
from guidebook.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import Prepared, share_of
from domains import Data, read, read_general, take

DOMAINS = ("books", "dvd", "electronics", "kitchen")
ARMS = {
    "none": "source_only",
    "general": "general_mlm",
    "source+targets": "domain_fusion",
    "target": "target_mlm",
    "tf-idf": "tfidf",
    "linear probe": "linear_probe",
}
WITHOUT_ADAPTER = ("tf-idf", "linear probe")
"""Arms that are the same for every kind of adapter: run beside the first alone."""
KINDS: dict[str, dict[str, Any]] = {
    "houlsby": {"adapter": {"kind": "houlsby", "reduction": 4}, "fuse": 1e-3, "task": (1e-4, 3e-4, 1e-3, 3e-3)},
    "lora": {"adapter": {"kind": "lora"}, "fuse": 1e-3, "task": (1e-4, 3e-4, 1e-3, 3e-3)},
    "full": {"adapter": {"kind": "full"}, "fuse": 1e-4, "task": (2e-5, 5e-5, 1e-4, 3e-4)},
}
PHASES = ("few", "all", "curve")
CURVE = (50, 400, 100)
"""Numbers of source labels beside 200 and all, the ends first: what does fusion gain by their number?"""
CHOOSE_ON = ("books", "kitchen")
"""Sources whose dev sets choose each kind's learning rate."""


@dataclass(frozen=True)
class Job:
    """One model on one direction (or, for the choice of the learning rate, on its own dev set)."""

    phase: str
    kind: str
    arm: str
    source: str
    target: str
    draw: int
    labels: int
    learning_rate: float

    @property
    def cell(self) -> tuple[Any, ...]:
        """What jobs have in common that start from the same data and base."""
        return (self.phase, self.kind, self.source, self.draw, self.learning_rate)


@dataclass(frozen=True)
class Budget:
    """What the study spends."""

    base: str
    fuse_tokens: int
    epochs: int
    test_rows: int
    general_articles: int


def directions() -> Iterator[tuple[str, str]]:
    """Yield the twelve (source, target)."""
    yield from itertools.permutations(DOMAINS, 2)


def choosing_jobs(kinds: list[str], labels: int) -> Iterator[Job]:
    """Yield the runs that choose learning rates: source labels only, source dev sets only."""
    for kind in kinds:
        for source, rate in itertools.product(CHOOSE_ON, KINDS[kind]["task"]):
            yield Job("choose", kind, "none", source, source, 0, labels, rate)


def main_jobs(kinds: list[str], rates: dict[str, float], draws: int) -> Iterator[Job]:
    """Yield the study, most informative part first."""
    parts = [
        *(("few", "houlsby", draw, 200) for draw in range(draws)),
        *(("few", kind, 0, 200) for kind in ("full", "lora")),
        ("all", "houlsby", 0, 1700),
        *(("curve", "lora", 0, count) for count in CURVE),
        *(("few", kind, draw, 200) for kind in ("lora", "full") for draw in range(1, draws)),
    ]
    for phase, kind, draw, labels in parts:
        for (source, target), arm in itertools.product(directions(), ARMS):
            if phase == "curve" and arm not in ("none", "source+targets"):
                continue
            if kind in kinds and draw < draws and (arm not in WITHOUT_ADAPTER or kind == "houlsby"):
                yield Job(phase, kind, arm, source, target, draw, labels, rates[kind])


def recipe_for(job: Job, budget: Budget, reviews: Data, general: list[str], saw: list[str] | None) -> Recipe:
    """Return the recipe of a job; `saw` is what the base had seen, if it is not a packaged one."""
    labelled = reviews.of(job.source, "train")
    rows = draw_rows(np.array(labelled["labels"]), job.labels, job.draw)
    targets = [name for name in DOMAINS if name != job.source]
    return Recipe(
        base=budget.base,
        base_saw=saw,
        source=Domain(
            job.source,
            **take(labelled, rows),
            test=Domain(f"{job.source}-dev", **reviews.of(job.source, "dev")),
        ),
        unlabelled=[Domain(f"{job.source}-pool", **reviews.pool(job.source))],
        targets=[
            Domain(name, **reviews.pool(name), test=Domain(f"{name}-test", **reviews.test(name, budget.test_rows)))
            for name in targets
        ],
        general=[Domain("wikipedia", texts=general)],
        task={"max_length": 128},
        adapter=KINDS[job.kind]["adapter"],
        method=ARMS[job.arm],
        train={
            "fuse": {"tokens": budget.fuse_tokens, "learning_rate": KINDS[job.kind]["fuse"]},
            "task": {"epochs": budget.epochs, "rows_per_batch": 16, "learning_rate": job.learning_rate},
        },
        seed=job.draw,
    )


def run_job(
    job: Job, budget: Budget, reviews: Data, general: list[str], saw: list[str] | None, *, prepared: Prepared
) -> dict[str, Any]:
    """Train (or find) the job's model and return its record."""
    began = time.monotonic()
    recipe = recipe_for(job, budget, reviews, general, saw)
    if job.phase != "choose":  # the source's dev rows are read only to choose the learning rate
        recipe = recipe.replace(source=replace(recipe.source[0], test=None), task=replace(recipe.task, dev=0.0))
    material, engine = prepared.for_cell(job.cell, recipe)
    corpus = material.corpus
    target = next(p for p in corpus.targets if p.name == job.target or job.phase == "choose")
    outcome = follow(job.arm, recipe.method, target, material, engine)
    if job.phase == "choose":
        gold, found = labels_of(corpus.dev), outcome.predictions["source"]
    else:
        hidden = corpus.tests[target.name].hidden
        assert hidden is not None
        gold, found = corpus.labels.encode(hidden.reveal("final evaluation")), outcome.predictions["target"]
    brief = scores(found, gold, corpus.labels.names)
    engine.clear()
    engine.host.check_base()
    return {
        **asdict(job),
        "budget": asdict(budget),
        "rows": len(gold),
        "accuracy": brief["accuracy"],
        "macro_f1": brief["macro_f1"],
        "calibration_error": brief["calibration_error"],
        "correct": "".join("01"[int(hit)] for hit in found.argmax(1) == gold),
        "stages": [{"key": t.key, "cached": t.cached, **t.figures} for t in outcome.stages],
        "seconds": round(time.monotonic() - began, 1),
        "base_fingerprint": engine.host.fingerprint,
        "base_saw": list(recipe.base_saw),
        "versions": versions(),
        "machine": machine(),
    }


def choose_rates(records: list[dict[str, Any]], kinds: list[str]) -> dict[str, float]:
    """Return the learning rate of each kind with the best mean accuracy on the source dev sets."""
    rates = {}
    for kind in kinds:
        means = {}
        for rate in KINDS[kind]["task"]:
            found = [r["accuracy"] for r in records if r["kind"] == kind and r["learning_rate"] == rate]
            means[rate] = float(np.mean(found))
        rates[kind] = max(means, key=lambda rate: means[rate])
    return rates


def done(records: list[dict[str, Any]], job: Job, budget: Budget) -> bool:
    """Return whether a job has its record; the choice of a learning rate depends on base and epochs alone."""
    spent = asdict(budget)
    fields = ("base", "epochs") if job.phase == "choose" else tuple(spent)
    return any(
        all(record.get(key) == value for key, value in asdict(job).items())
        and all(record["budget"].get(key) == spent[key] for key in fields)
        for record in records
    )


def of_base(path: Path, fingerprint: str) -> list[dict[str, Any]]:
    """Return the records made on exactly this base: a base that was trained further is another one."""
    return [record for record in read_records(path) if record["base_fingerprint"] == fingerprint]


def main() -> None:
    """Run what has no record yet, saying how long it still takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--general", type=Path, required=True)
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    parser.add_argument("--base", default="mini")
    parser.add_argument("--saw", nargs="*", help="what the base had seen, if it is not a packaged one")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument(
        "--phases", nargs="*", default=list(PHASES), choices=PHASES, help="200 labels; all; other numbers"
    )
    parser.add_argument("--fuse-tokens", type=int, default=400_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--share", type=Share.of, default=Share(), help="part of the work, for example 2/4")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(arguments.base, arguments.fuse_tokens, arguments.epochs, arguments.test_rows, 1000)
    reviews, general = read("amazon", arguments.data), read_general(arguments.general, budget.general_articles)
    fingerprint = Host.load(budget.base).fingerprint

    def work(jobs: list[Job]) -> None:
        records = of_base(arguments.records, fingerprint)
        mine = share_of(jobs, [job.cell for job in jobs], arguments.share)
        todo = [job for job in mine if not done(records, job, budget)]
        spent: list[float] = []
        prepared = Prepared()
        for number, job in enumerate(todo):
            record = run_job(job, budget, reviews, general, arguments.saw, prepared=prepared)
            append_record(arguments.records, record)
            spent.append(record["seconds"])
            left = float(np.mean(spent[-24:])) * (len(todo) - number - 1) / 3600
            print(
                f"{number + 1}/{len(todo)} {job} accuracy {record['accuracy']:.3f}, {left:.2f} hours left", flush=True
            )

    choosing = list(choosing_jobs(arguments.kinds, 200))
    work(choosing)
    print("waiting until every part has chosen its learning rates", flush=True)
    while not all(done(chosen := of_base(arguments.records, fingerprint), job, budget) for job in choosing):
        time.sleep(1)
    rates = choose_rates(
        [r for r in chosen if r["phase"] == "choose" and r["budget"]["epochs"] == budget.epochs], arguments.kinds
    )
    print(f"learning rates {rates}", flush=True)
    jobs = main_jobs(arguments.kinds, rates, arguments.draws)
    work([job for job in jobs if job.arm in arguments.arms and job.phase in arguments.phases])


if __name__ == "__main__":
    main()
