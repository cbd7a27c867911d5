"""What does adapting a generative base give, and what does it forget? Adapters and all weights at equal tokens.

Two domains, from files with one JSON object a line:

    calls     earnings calls, split by company: trained on some companies, measured on others (columns text, split)
    filings   annual filings of one company: trained on all but the last, measured on the last, its copied and its novel
              parts apart (columns text, id)

Every run trains one kind of adapter at one learning rate with one share of general text mixed in, on the same number of
tokens, and is measured on held-out text of the domain and on general text. A run that has a record is not run again:
stop and start as you like.

    python benchmarks/causal/study.py --data DATA --base mini-gptj --minutes 60
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import lzma
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import guidebook as gb
from guidebook.compare.work import Share
from guidebook.evaluation.records import append_record, machine, read_records, versions

HERE = Path(__file__).parent
CALLS = "corpus_earnings_calls.jsonl.xz"
FILINGS = "corpus_sec_10k.jsonl.xz"
GENERAL = "corpus_wikipedia_en_2.jsonl.xz"
NOT_READ = 100
"""Last articles of the general text: the packaged bases have not read them, forgetting is measured on them."""
RATES = {
    "houlsby": (1e-4, 3e-4, 1e-3, 3e-3),
    "lora": (1e-4, 3e-4, 1e-3, 3e-3),
    "full": (1e-5, 3e-5, 1e-4, 3e-4),
}
SHARES = (0.0, 0.1, 0.3)
DOMAINS = ("calls", "filings")


@dataclass(frozen=True)
class Run:
    """One point of the study."""

    domain: str
    kind: str
    learning_rate: float
    general: float
    tokens: int
    base: str
    seed: int = 0


def runs(base: str, tokens: int, seeds: int) -> Iterator[Run]:
    """Yield the runs, those that answer most first: every kind at its middle rates, then the rest of the grid."""
    for seed in range(seeds):
        for place, domain in itertools.product((1, 2, 0, 3), DOMAINS):
            for kind, rates in RATES.items():
                yield Run(domain, kind, rates[place], 0.0, tokens, base, seed)
        for share, place in itertools.product(SHARES[1:], (1, 2, 0, 3)):
            for kind, rates in RATES.items():
                yield Run("calls", kind, rates[place], share, tokens, base, seed)


@functools.cache
def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, in order."""
    with lzma.open(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def target(domain: str, data: Path, characters: int) -> gb.Domain:
    """Return a domain with its held-out documents; calls begin with `characters` characters and end there."""
    if domain == "calls":
        rows = rows_of(data / CALLS)
        train, test = ([r["text"][:characters] for r in rows if r["split"] == split] for split in ("train", "test"))
        return gb.Domain("calls", train, test=gb.Domain("calls test", test))
    # by path: the parts that stand in the training text are looked up there
    path, ids = str(data / FILINGS), [row["id"] for row in rows_of(data / FILINGS)]
    last = gb.Domain("last filing", path=path, where={"id": ids[-1]})
    return gb.Domain("filings", path=path, where={"id": ids[:-1]}, test=last)


def general(data: Path, characters: int) -> gb.Domain:
    """Return the beginnings of general articles, and those of the held-out ones."""
    texts = [row["text"][:characters] for row in rows_of(data / GENERAL)]
    return gb.Domain("wikipedia", texts[:-NOT_READ], test=gb.Domain("wikipedia test", texts[-NOT_READ:]))


def recipe_of(run: Run, data: Path, settings: argparse.Namespace) -> gb.Recipe:
    """Return the recipe of a run."""
    adapter: dict[str, Any] = {"kind": run.kind}
    return gb.Recipe(
        base=run.base,
        task={
            "kind": "causal_lm",
            "max_train_documents": settings.documents,
            "max_validation_documents": settings.measured,
        },
        targets=[target(run.domain, data, settings.characters)],
        general=[general(data, settings.characters)],
        adapter=adapter,
        method={"name": "domain_fusion", "general": run.general},
        train={
            "max_length": settings.length,
            "tokens_per_batch": settings.tokens_per_batch,
            "fuse": {"tokens": run.tokens, "learning_rate": run.learning_rate},
        },
        seed=run.seed,
    )


def measure(run: Run, data: Path, settings: argparse.Namespace) -> dict[str, Any]:
    """Train a run and return its record."""
    began = time.monotonic()
    out = settings.work / f"{run.domain}-{run.kind}-{run.learning_rate:g}-{run.general:g}-{run.seed}"
    book = gb.adapt(recipe_of(run, data, settings), out=out)
    meta = book.meta
    held, general = meta["evaluation"]["targets"][0], meta["evaluation"]["general"][0]
    method = meta["method"]
    record = {
        "run": asdict(run),
        "before": held["scores"]["base"],
        "after": held["scores"][method],
        "gain": held["changes"][method],
        "trained_on": held["trained_on"]["changes"][method],
        "general_before": general["scores"]["base"],
        "forgetting": general["changes"][method],
        "trainable": meta["stages"][0]["trainable_parameters"],
        "megabytes": meta["size"]["megabytes_per_domain"],
        "tokens_per_second": meta["stages"][0]["tokens_per_second"],
        "training_seconds": meta["stages"][0]["seconds"],
        "samples": meta["evaluation"]["samples"],
    }
    if run.domain == "filings":
        found = gb.evaluate_text(book, [target("filings", data, settings.characters).test], prompts=settings.prompts)  # type: ignore[list-item]
        record |= {"spans": found["on"]["last filing"]["spans"], "memorisation": found["memorisation"]}
    about = {"fingerprint": meta["base"]["fingerprint"], "saw": meta["base"]["saw"]}
    return {
        **record,
        "base": about,
        "settings": {name: getattr(settings, name) for name in ("length", "characters", "documents", "measured")},
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine(),
        "versions": versions(),
    }


def main() -> None:
    """Run what has no record yet until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the three files")
    parser.add_argument("--base", default="mini-gptj")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="tokens of every run")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--characters", type=int, default=6000, help="of a call or an article that are read")
    parser.add_argument("--documents", type=int, default=400, help="documents of a domain to train on at most")
    parser.add_argument("--measured", type=int, default=40, help="held-out documents that are measured at most")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--domains", nargs="*", default=list(DOMAINS), choices=DOMAINS)
    parser.add_argument("--minutes", type=float, default=60.0, help="no run is started after so many")
    parser.add_argument("--share", type=Share.of, default=Share(), help="part of the runs, for example 2/4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=None, help="runs to do at most")
    parser.add_argument("--records", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--work", type=Path, default=Path("runs/causal"))
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    done = {json.dumps(record["run"], sort_keys=True) for record in read_records(settings.records)}
    began, count = time.monotonic(), 0
    every = [run for run in runs(settings.base, settings.tokens, settings.seeds) if run.domain in settings.domains]
    for run in every[settings.share.part - 1 :: settings.share.parts]:
        if json.dumps(asdict(run), sort_keys=True) in done:
            continue
        if time.monotonic() - began > 60 * settings.minutes or count == settings.most:
            break
        append_record(settings.records, measure(run, settings.data, settings))
        count += 1


if __name__ == "__main__":
    main()
