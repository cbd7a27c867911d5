"""Where the domain gap is real: methods on tweets of six disasters, and the same on reviews and on developers' texts.

    design      four named directions, on which everything is chosen: rates, epochs, what runs on the others
    held        the other directions, run once with what was chosen
    gaps        how far apart the domains of every direction are, before anything is trained (gaps.jsonl)

Draw, head and order of rows are the same for all methods of a cell, and stages that methods share are trained once.
Killed anywhere, the same command goes on. Methods come in the order of METHODS, one draw of all directions after the
other, so that the tables, which compare cells that both methods have, are right at any time.

    nice python benchmarks/crisis/study.py --data crisis --path crisis_tweets.jsonl.xz \
        --general corpus_wikipedia_en_2.jsonl.xz --base minilm-mlm --saw allnli amazon-qa wikipedia-en
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
import traceback
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
from guidebook.inspection.look import inspect
from guidebook.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cells import Claims, Prepared, done, in_processes, share_of
from domains import Data, read, read_general, take
from measuring import hours_left, measured, processor

METHODS: dict[str, dict[str, Any]] = {
    "tfidf": {"name": "tfidf"},
    "zero_shot": {"name": "zero_shot"},
    "linear_probe": {"name": "linear_probe"},
    "source_only": {"name": "source_only"},
    "general_mlm": {"name": "general_mlm"},
    "fusion_pair": {"name": "domain_fusion", "scope": "pair"},
    "co_training": {"name": "co_training"},
    "self_training": {"name": "self_training"},
    "fusion_all": {"name": "domain_fusion", "scope": "all"},
    "co_training_fused": {"name": "co_training", "start": "domain_fusion"},
    "mixed": {"name": "mixed"},
    "udapter_two_step": {"name": "udapter_two_step"},
    "dann": {"name": "dann"},
    "target_oracle": {"name": "target_oracle"},
}
DESIGN = {
    "crisis": (("sandy", "boston"), ("queensland", "oklahoma"), ("westtexas", "alberta"), ("oklahoma", "sandy")),
    "amazon": (("books", "electronics"), ("electronics", "books"), ("dvd", "kitchen"), ("kitchen", "dvd")),
    "developers": (("github", "so"), ("jira", "github")),
}
"""Data -> directions on which settings and methods are chosen."""
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
    labels: int
    """Labelled source rows, drawn class by class."""

    @property
    def cell(self) -> tuple[Any, ...]:
        """What jobs have in common that start from the same data and base."""
        return (self.data, self.source, self.target, self.draw, self.labels)


@dataclass(frozen=True)
class Budget:
    """What the study spends, and on which base."""

    base: str = "mini"
    rank: int = 8
    """Of LoRA."""
    layers: str = "all"
    fuse_tokens: int = 150_000
    epochs: float = 6.0
    fuse_rate: float = 1e-3
    task_rate: float = 1e-3
    tokens_per_batch: int = 1024
    rows_per_batch: int = 16
    max_length: int = 64
    test_rows: int = 2000
    general_articles: int = 400


def jobs_of(data: Data, methods: Sequence[str], phases: Sequence[str], draws: int, labels: int) -> Iterator[Job]:
    """Yield one data set's jobs: one draw of the design directions, then of the others, then the next draw."""
    design = DESIGN[data.name]
    others = [pair for pair in itertools.permutations(data.domains, 2) if pair not in design]
    for draw, (phase, pairs) in itertools.product(range(draws), {"design": design, "held": others}.items()):
        if phase in phases:
            for (source, target), method in itertools.product(pairs, methods):
                yield Job(phase, data.name, method, source, target, draw, labels)


def recipe_for(job: Job, budget: Budget, data: Data, general: list[str], saw: list[str] | None) -> Recipe:
    """Return the recipe of a job; `saw` is what the base had read, if it is not a packaged one."""
    labelled = data.of(job.source, "train")
    labelled = take(labelled, draw_rows(np.array(labelled["labels"]), job.labels, job.draw))
    test = Domain(f"{job.target}-test", **data.test(job.target, budget.test_rows))
    targets = [
        Domain(name, **data.pool(name), test=test if name == job.target else None)
        for name in data.domains
        if name != job.source
    ]
    return Recipe(
        base=budget.base,
        base_saw=saw,
        source=Domain(job.source, **labelled),
        unlabelled=[Domain(f"{job.source}-pool", **data.pool(job.source))],
        targets=targets,
        general=[Domain("wikipedia", texts=general)],
        task={"max_length": budget.max_length},
        adapter={"kind": "lora", "rank": budget.rank, "layers": budget.layers},
        method=METHODS[job.method],
        train={
            "max_length": budget.max_length,
            "tokens_per_batch": budget.tokens_per_batch,
            "fuse": {"tokens": budget.fuse_tokens, "learning_rate": budget.fuse_rate},
            "task": {
                "epochs": budget.epochs,
                "rows_per_batch": budget.rows_per_batch,
                "learning_rate": budget.task_rate,
            },
        },
        seed=job.draw,
    )


def run_job(
    job: Job, budget: Budget, data: Data, general: list[str], prepared: Prepared, *, saw: list[str] | None
) -> Record:
    """Train (or take from the cache) the job's model and return its record."""
    began = time.monotonic()
    recipe = recipe_for(job, budget, data, general, saw)
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
        "recipe": recipe.resolved(),
        "seconds": round(time.monotonic() - began, 1),
        "base_saw": list(recipe.base_saw),
    }


def measure_gaps(data: Data, base: str, path: Path) -> None:
    """Append what `inspect` says of every direction that has no line for this base yet: no label, nothing trained."""
    fingerprint = Host.load(base).fingerprint
    known = {
        (record["data"], record["source"], record["target"], record["base_fingerprint"])
        for record in read_records(path)
    }
    for source in data.domains:
        others = [name for name in data.domains if name != source]
        if all((data.name, source, name, fingerprint) in known for name in others):
            continue
        domains = [Domain(name, **data.pool(name)) for name in (source, *others)]
        facts = inspect(domains, base=base)
        losses = {entry["name"]: entry["lm_loss"] for entry in facts["domains"]}
        for pair in facts["pairs"]:
            same = {"data": data.name, "base": Path(base).name, "base_fingerprint": fingerprint}
            kept = {key: pair[key] for key in ("source", "target", "content", "vocabulary", "mmd")}
            loss = {"source_loss": losses[pair["source"]], "target_loss": losses[pair["target"]]}
            append_record(path, {**same, **kept, **loss, "machine": machine()})
            print(f"{data.name}: {pair['source']} to {pair['target']} measured", flush=True)


def main() -> None:
    """Run what has no record yet, saying how long it still takes."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=list(DESIGN), required=True)
    parser.add_argument("--path", type=Path, required=True, help="the data set: JSON lines, compressed by xz")
    parser.add_argument("--general", type=Path, required=True)
    parser.add_argument("--records", type=Path, default=here / "records.jsonl")
    parser.add_argument("--gaps", type=Path, default=here / "gaps.jsonl")
    parser.add_argument("--phases", nargs="*", default=["design", "held"], choices=["design", "held", "gaps"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--share", type=Share.of, default=Share(), help="part of the work, for example 2/4")
    parser.add_argument("--processes", type=int, default=1, help="how many share this machine, for example 24 on a GPU")
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)  # of the processes that --processes starts
    parser.add_argument("--hours", type=float, default=math.inf, help="start no run later than this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--saw", nargs="*", help="what the base had read, if it is not a packaged one")
    for item in Budget.__dataclass_fields__.values():
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    options = parser.parse_args()
    if options.processes > 1:
        raise SystemExit(in_processes(options.processes))
    torch.set_num_threads(options.threads)
    data = read(options.data, options.path)
    if "gaps" in options.phases:
        measure_gaps(data, options.base, options.gaps)
    work(options, data, read_general(options.general, options.general_articles))


def work(options: argparse.Namespace, data: Data, general: list[str]) -> None:
    """Do the jobs of this share that have no record; one that fails is named with its traceback and left."""
    budget = Budget(**{name: getattr(options, name) for name in Budget.__dataclass_fields__})
    stored = {**asdict(budget), "base": Path(budget.base).name}  # a record names no folder of a machine
    host = Host.load(budget.base)
    fingerprint = host.fingerprint
    methods = [name for name in options.methods if name != "zero_shot" or host.placement.kind == "causal"]
    del host
    jobs = list(jobs_of(data, methods, options.phases, options.draws, options.labels))
    jobs = share_of(jobs, [job.cell for job in jobs], options.share)
    failed: set[Job] = set()
    prepared, claims, began = Prepared(), Claims(options.claims), time.monotonic()
    while True:
        records = [
            record
            for record in read_records(options.records)
            if record["budget"] == stored and record["base_fingerprint"] == fingerprint
        ]
        named = Budget(**stored)
        todo = [job for job in jobs if not done(records, job, named)]
        todo = [job for job in todo if job not in failed and not claims.given_up(job)]
        here = [record for record in records if processor(record["machine"]) == processor(machine())]
        hours = f"{hours_left(todo, here):.1f} hours left" if here or not todo else "hours unknown before the first run"
        print(f"{len(todo)} of {len(jobs)} runs to do, {hours}", flush=True)
        if not todo and failed:
            raise SystemExit(f"{len(failed)} runs failed, see above")
        if not todo or time.monotonic() - began > 3600 * options.hours:
            return
        if (job := claims.next_of(todo)) is None:
            return  # others do what is left
        try:
            record = run_job(job, budget, data, general, prepared, saw=options.saw)
        except Exception:
            failed.add(job)
            claims.give_up(job)
            print(f"{job} failed", traceback.format_exc(), sep="\n", flush=True)
            continue
        text = json.dumps(record).replace(str(budget.base), Path(budget.base).name)
        append_record(options.records, json.loads(text))
        print(f"{job} accuracy {record['accuracy']:.3f} in {record['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
