"""How far can the guesses be trusted that need no target label? Models that take seconds, on Amazon reviews.

Two methods (tf-idf and a linear probe of the base), twelve directions, 200 labels in three draws and all 1,700, and
three worlds: targets as they are, and their labelled rows resampled to 85 to 15 and to 50 to 50. Of every model: each
estimate of its accuracy with a 90 % interval; in the two worlds whose class shares are known, these by EM and BBSE with
a 95 % interval; and what they try to tell, from test rows that no guess has read.

The base reads every text once; methods look its rows up. Killed anywhere, the same command goes on. Several processes
take parts of the work (`--share 1/2`, …) into one file of records.

    nice python benchmarks/trust/study.py --amazon amazon_reviews.jsonl.xz
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guidebook.adaptation import prepare
from guidebook.adapters.host import Host
from guidebook.compare.draw import draw_rows
from guidebook.compare.work import Share
from guidebook.data.corpus import labels_of
from guidebook.data.domains import Domain
from guidebook.evaluation.estimates import estimates
from guidebook.evaluation.prior import PULL, calibrate, corrected, em_prior, estimated_priors
from guidebook.evaluation.records import append_record, machine, read_records, versions
from guidebook.evaluation.seen import Seen
from guidebook.inspection.overlap import vocabulary_overlap
from guidebook.preparation import read as read_recipe
from guidebook.recipe import Recipe
from guidebook.training.engine import Engine, head_from
from guidebook.training.listener import Listener
from guidebook.training.material import Material
from guidebook.training.prediction import Rows, averaged, make_rows
from guidebook.training.run import Run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from catalogue.study import SHIFTS, shifted_rows, target_of
from cells import done, share_of
from domains import POOL, Data, read, take

METHODS = ("tfidf", "linear_probe")
DRAWS = {200: 3, None: 1}
"""Draws of so many labelled source rows; None: all."""
AS_IT_IS = ""
LEVEL = 0.9
"""Of the estimates' intervals; those of class shares are 95 %."""
RESAMPLES = 100
"""Of class shares; half of what `adapt` takes, since they are most of this study's time."""
CHUNK = 512
"""Windows that the base reads before they are kept."""
Floats = np.ndarray
Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One model on one direction in one world: one record."""

    method: str
    source: str
    target: str
    draw: int
    labels: int | None
    shift: str

    @property
    def cell(self) -> tuple[Any, ...]:
        """What jobs have in common that other draws are compared with."""
        return (self.source, self.target, self.labels, self.shift)


@dataclass(frozen=True)
class Budget:
    """What the study spends, and on which base."""

    base: str = "mini"
    pool_rows: int = 700
    test_rows: int = 1000
    max_length: int = 128


def everything(domains: Sequence[str], methods: Sequence[str] = METHODS) -> Iterator[Job]:
    """Yield all jobs, the first draw of everything first; few labels before all, targets as they are before others."""
    for draw, labels, shift in itertools.product(range(max(DRAWS.values())), DRAWS, (AS_IT_IS, *SHIFTS)):
        for (source, target), method in itertools.product(itertools.permutations(domains, 2), methods):
            if draw < DRAWS[labels]:
                yield Job(method, source, target, draw, labels, shift)


def with_small_pools(data: Data, rows: int) -> Data:
    """Return the data with a fixed random part of every domain's unlabelled texts."""
    cut = dict(data.rows)
    for domain in data.domains:
        columns = data.rows[domain, POOL]
        chosen = np.sort(np.random.default_rng(0).permutation(len(columns["texts"]))[:rows])
        cut[domain, POOL] = take(columns, chosen)
    return replace(data, rows=cut)


def recipe_for(job: Job, budget: Budget, data: Data) -> Recipe:
    """Return the recipe of a job: the target's pool is what guesses read, its test rows what they are held against."""
    labelled = data.of(job.source, "train")
    if job.labels is not None:
        labelled = take(labelled, draw_rows(np.array(labelled["labels"]), job.labels, job.draw))
    return Recipe(
        base=budget.base,
        source=Domain(job.source, **labelled, test=Domain(f"{job.source}-dev", **data.of(job.source, "dev"))),
        targets=[target_of(job, budget, data)],  # type: ignore[arg-type]  # it reads target, shift and test_rows alone
        task={"max_length": budget.max_length},
        method=job.method,
        train={"max_length": budget.max_length},
        seed=job.draw,
    )


@dataclass
class Looked:
    """What a run may ask of the base, looked up by text in rows that it has read once."""

    pooling: str
    known: dict[str, Floats] = field(default_factory=dict)
    """Text -> its pooled windows (W, H)."""

    def read(self, engine: Engine, texts: Sequence[str], length: int) -> None:
        """Let the base read texts; what it has read before is found in the store."""
        rows = make_rows(texts, None, engine.host.tokenizer, length, cache=engine.store.root / "tokens")
        parts = []
        for start in range(0, len(rows.tokens), CHUNK):
            chosen = np.arange(start, min(start + CHUNK, len(rows.tokens)))
            part = Rows([""] * len(chosen), None, rows.tokens.take(chosen), np.arange(len(chosen)))
            parts.append(engine.pooled(part))
        ends = np.cumsum(np.bincount(rows.owner, minlength=len(texts)))[:-1]
        self.known |= dict(zip(texts, np.split(np.concatenate(parts), ends), strict=True))

    def pooled(self, rows: Rows) -> Floats:
        """Return pooled rows (N, H), as `Engine.pooled` does."""
        return averaged(self._windows(rows), rows)

    def probe(self, tensors: Mapping[str, Any], rows: Rows) -> Floats:
        """Return probabilities (N, C) of a head, as `Engine.probe` does: the mean over a text's windows."""
        head: Any = head_from(tensors, self.pooling).head
        with torch.no_grad():
            found = head(torch.tensor(self._windows(rows)).float()).float().softmax(-1)
        return averaged(found.numpy().astype(np.float64), rows)

    def latest(self, rows: Rows) -> Floats:
        """No stage is trained here."""
        raise NotImplementedError

    def note(self, text: str) -> None:
        """Nothing is kept."""

    def _windows(self, rows: Rows) -> Floats:
        return np.concatenate([self.known[text] for text in rows.texts])


class PoolRun(Run):
    """A run that also predicts the target's pool."""

    def submit(self, predict: Callable[[Rows], Floats]) -> None:
        """Predict evaluation rows, held-out source rows and the pool."""
        super().submit(predict)
        self._submitted.append(lambda found: found.update(pool=predict(self._material.rows(self._target))))


@dataclass
class World:
    """Data, the base's rows, and the predictions of the newest cell."""

    budget: Budget
    data: Data
    engine: Engine
    looked: Looked
    whole: Data
    """The data with all unlabelled texts."""
    overlaps: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    cell: tuple[Any, ...] = ()
    made: dict[Job, tuple[Material, dict[str, Floats]]] = field(default_factory=dict)

    @classmethod
    def of(cls, budget: Budget, data: Data, methods: Sequence[str] = METHODS) -> World:
        """Return a world whose base has read every text of the study, if a method asks for that."""
        whole, data = data, with_small_pools(data, budget.pool_rows)
        first = next(everything(data.domains))
        _, engine = prepare(recipe_for(first, budget, data), Listener())
        looked = Looked(engine.pooling)
        for number, domain in enumerate(data.domains if "linear_probe" in methods else (), 1):
            for texts in (data.of(domain, "train", "dev")["texts"], data.pool(domain)["texts"]):
                looked.read(engine, texts, budget.max_length)
            print(f"the base has read {number} of {len(data.domains)} domains", flush=True)
        return cls(budget, data, engine, looked, whole)

    def overlap(self, source: str, target: str) -> dict[str, float]:
        """Return the share of frequent words that both have, and of the target's running words that the source has."""
        if (source, target) not in self.overlaps:
            found = vocabulary_overlap(self.whole.pool(source)["texts"], self.whole.pool(target)["texts"])
            self.overlaps[source, target] = dict(zip(("shared", "known"), found, strict=True))
        return self.overlaps[source, target]

    def predictions(self, job: Job) -> tuple[Material, dict[str, Floats]]:
        """Return what a job's model says of "source" (held out), "pool" and "target" (test rows)."""
        if job.cell != self.cell:
            self.cell, self.made = job.cell, {}
        if job not in self.made:
            recipe = recipe_for(job, self.budget, self.data)
            length = self.budget.max_length
            material = Material(
                read_recipe(recipe), self.engine.host.tokenizer, length=length, task_length=length, causal=False
            )
            run = PoolRun(material, material.corpus.targets[0], job.draw, self.looked)
            assert not list(recipe.method.plan(run)), "these methods train no stage"
            self.made[job] = material, run.predict()
        return self.made[job]


def run_job(job: Job, world: World) -> Record:
    """Fit the job's model and return its record."""
    began = time.monotonic()
    material, found = world.predictions(job)
    corpus = material.corpus
    hidden = corpus.tests[job.target].hidden
    assert hidden is not None
    gold, dev = corpus.labels.encode(hidden.reveal("final evaluation")), labels_of(corpus.dev)
    others = [replace(job, draw=draw) for draw in range(DRAWS[job.labels]) if draw != job.draw]
    draws = np.stack([world.predictions(other)[1]["pool"] for other in others]) if others else None
    guessed = estimates(Seen(found["source"], dev), Seen(found["pool"], seeds=draws), seed=job.draw, level=LEVEL)
    right = found["target"].argmax(1) == gold
    return {
        **asdict(job),
        "budget": asdict(world.budget),
        "rows": len(gold),
        "pool_rows": len(found["pool"]),
        "accuracy": right.mean(),
        "source_accuracy": (found["source"].argmax(1) == dev).mean(),
        "source_rows": len(dev),
        "estimates": {name: vars(interval) for name, interval in guessed.items()},
        **(class_shares(found, dev, gold, job.draw) if job.shift else {}),
        "pool_share": pool_share(job, world.data),
        "test_share": (gold == len(corpus.labels.names) - 1).mean(),
        "vocabulary": world.overlap(job.source, job.target),
        "seconds": round(time.monotonic() - began, 1),
        "base_fingerprint": world.engine.host.fingerprint,
        "base_saw": list(recipe_for(job, world.budget, world.data).base_saw),
        "versions": versions(),
        "machine": machine(),
    }


def class_shares(found: Mapping[str, Floats], dev: Floats, gold: Floats, seed: int) -> Record:
    """Return the last class's share as it is estimated, and accuracies after calibration and after correction by EM."""
    priors = estimated_priors(found["source"], dev, found["pool"], draws=RESAMPLES, seed=seed)
    here, fit = np.bincount(dev) / len(dev), calibrate(found["source"], dev)
    calm = fit(found["target"])
    pulled = em_prior(fit(found["pool"]), here, pull=PULL)
    return {
        "prior": {
            name: {"estimate": prior.estimate[-1], "low": prior.low[-1], "high": prior.high[-1]}
            for name, prior in priors.items()
        }
        | {"pulled": {"estimate": pulled[-1]}},
        "source_share": here[-1],
        "accuracy_calibrated": (calm.argmax(1) == gold).mean(),
        "accuracy_corrected": (corrected(calm, here, priors["em"].estimate).argmax(1) == gold).mean(),
        "accuracy_pulled": (corrected(calm, here, pulled).argmax(1) == gold).mean(),
    }


def pool_share(job: Job, data: Data) -> float | None:
    """Return the last class's share of the pool, which no guess sees; None where the pool has no labels at all."""
    if not job.shift:
        return None
    labels = data.of(job.target, *data.tests)["labels"]
    pool, _ = shifted_rows(labels, SHIFTS[job.shift])
    return float(np.mean([labels[row] == max(labels) for row in pool]))


def main() -> None:
    """Run what has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amazon", type=Path, required=True)
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--share", type=Share.of, default=Share(), help="part of the work, for example 2/4")
    parser.add_argument("--threads", type=int, default=1)
    for item in Budget.__dataclass_fields__.values():
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    budget = Budget(**{name: getattr(options, name) for name in Budget.__dataclass_fields__})
    work(options.records, options.share, budget, read("amazon", options.amazon), options.methods)


def work(place: Path, share: Share, budget: Budget, data: Data, methods: Sequence[str] = METHODS) -> None:
    """Do the jobs of this share that have no record; one that fails is named and left, the others go on."""
    fingerprint = Host.load(budget.base).fingerprint  # a base that was trained further is another one
    records = [record for record in read_records(place) if record["base_fingerprint"] == fingerprint]
    jobs = list(everything(data.domains, methods))
    jobs = share_of(jobs, [job.cell for job in jobs], share)
    todo = [job for job in jobs if not done(records, job, budget)]
    print(f"{len(todo)} of {len(jobs)} runs to do", flush=True)
    if not todo:
        return
    world, failed = World.of(budget, data, methods), 0
    for job in todo:
        try:
            record = run_job(job, world)
        except Exception:
            failed += 1
            print(f"{job} failed", traceback.format_exc(), sep="\n", flush=True)
            continue
        append_record(place, record)
        print(f"{job} accuracy {record['accuracy']:.3f} in {record['seconds']:.1f} s", flush=True)
    if failed:
        raise SystemExit(f"{failed} runs failed, see above")


if __name__ == "__main__":
    main()
