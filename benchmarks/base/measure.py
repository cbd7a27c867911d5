"""What a base is worth: in-domain accuracy and transfer on Amazon reviews and MNLI genres, beside tf-idf.

For every source and method one model, learned from the source's labels alone and scored on the source's own dev rows
and on the test rows of every other domain; the difference is the gap that adaptation has to close.

    tfidf          words and word pairs, no base
    linear_probe   the base as it is
    houlsby        adapters in the frozen base
    full           every weight

Killed anywhere, the same command goes on. Records say what the base had seen.

    python benchmarks/base/measure.py --base mini --amazon amazon_reviews.jsonl.xz --mnli mnli_genres.jsonl.xz
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from guidebook.account import scores
from guidebook.adaptation import follow, prepare
from guidebook.adapters.host import Host
from guidebook.data.corpus import labels_of
from guidebook.data.domains import Domain
from guidebook.evaluation.records import append_record, machine, read_records, versions
from guidebook.recipe import Recipe
from guidebook.training.listener import Listener

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from domains import Data, read

METHODS: dict[str, dict[str, Any]] = {
    "tfidf": {"method": "tfidf"},
    "linear_probe": {"method": "linear_probe"},
    "houlsby": {"method": "source_only", "adapter": {"kind": "houlsby", "reduction": 4}, "rate": 1e-3},
    "full": {"method": "source_only", "adapter": {"kind": "full"}, "rate": 1e-4},
}


def recipe_for(options: argparse.Namespace, data: Data, source: str, method: str) -> Recipe:
    """Return the recipe of one model."""
    settings = METHODS[method]
    return Recipe(
        base=options.base,
        base_saw=options.saw,
        source=Domain(source, **data.of(source, "train"), test=Domain(f"{source}-dev", **data.of(source, "dev"))),
        targets=[Domain(name, **data.of(name, *data.tests)) for name in data.domains if name != source],
        method=settings["method"],
        adapter=settings.get("adapter", "houlsby"),
        train={"task": {"epochs": options.epochs, "rows_per_batch": 16, "learning_rate": settings.get("rate", 1e-3)}},
    )


def measure(options: argparse.Namespace, data: Data, source: str, method: str) -> Iterator[dict[str, Any]]:
    """Yield one record for the source's dev rows and one for every other domain."""
    began = time.monotonic()
    recipe = recipe_for(options, data, source, method)
    material, engine = prepare(recipe, Listener())
    corpus = material.corpus
    found = []
    for target in corpus.targets:
        outcome = follow(METHODS[method]["method"], recipe.method, target, material, engine)
        if not found:
            found.append((source, outcome.predictions["source"], labels_of(corpus.dev)))
        assert target.hidden is not None
        gold = corpus.labels.encode(target.hidden.reveal("final evaluation"))
        found.append((target.name, outcome.predictions["target"], gold))
    for name, probabilities, gold in found:
        brief = scores(probabilities, gold, corpus.labels.names)
        yield {
            "data": data.name,
            "base": options.base,
            "base_fingerprint": engine.host.fingerprint,
            "base_saw": list(recipe.base_saw),
            "method": method,
            "source": source,
            "target": name,
            "rows": len(gold),
            **{key: brief[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")},
            "recipe": {key: value for key, value in recipe.resolved().items() if key in ("adapter", "method", "train")},
            "seconds": round(time.monotonic() - began, 1),
            "machine": machine(),
            "versions": versions(),
        }


def main() -> None:
    """Measure what has no record yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amazon", type=Path)
    parser.add_argument("--mnli", type=Path)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--saw", nargs="*", help="what the base had seen, if it is not a packaged one")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fingerprint = Host.load(options.base, needs_lm_head=False).fingerprint
    places = {"amazon": options.amazon, "mnli": options.mnli}
    for data in (read(name, path) for name, path in places.items() if path is not None):
        for method in options.methods:
            for source in data.domains:
                records = read_records(options.records)
                wanted = {"data": data.name, "method": method, "source": source, "base_fingerprint": fingerprint}
                if any(all(record[key] == value for key, value in wanted.items()) for record in records):
                    continue
                for record in list(measure(options, data, source, method)):
                    append_record(options.records, record)
                    line = f"{data.name} {method} {source} -> {record['target']}: {record['accuracy']:.3f}"
                    print(line, f"({record['seconds']:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
