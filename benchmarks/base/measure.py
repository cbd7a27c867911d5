"""What a base knows before anything is trained inside it: linear probes on Amazon reviews, beside tf-idf.

In-domain accuracy on each domain's 300 dev rows and transfer to the other three domains, from the source's 1,700
labels. Records say what the base had seen.

    python benchmarks/base/measure.py --data amazon_reviews.jsonl.xz --base mini
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections import defaultdict
from pathlib import Path
from typing import Any

from guidebook.account import scores
from guidebook.adaptation import follow, prepare
from guidebook.data.corpus import labels_of
from guidebook.data.domains import Domain
from guidebook.evaluation.records import append_record, machine, versions
from guidebook.recipe import Recipe
from guidebook.training.listener import Listener

DOMAINS = ("books", "dvd", "electronics", "kitchen")


def read_labelled(path: Path) -> dict[tuple[str, str], dict[str, list[Any]]]:
    """Return (domain, split) -> {"texts", "labels"} of the labelled rows."""
    found: dict[tuple[str, str], dict[str, list[Any]]] = defaultdict(lambda: {"texts": [], "labels": []})
    with lzma.open(path, "rt", encoding="utf8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["split"] in ("train", "dev"):
                found[row["domain"], row["split"]]["texts"].append(row["text"])
                found[row["domain"], row["split"]]["labels"].append(row["label"])
    return found


def main() -> None:
    """Probe every source and append one record per source, target and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--saw", nargs="*", help="what the base had seen, if it is not a packaged one")
    parser.add_argument("--records", type=Path, default=Path(__file__).parent / "records.jsonl")
    options = parser.parse_args()
    reviews = read_labelled(options.data)
    for source in DOMAINS:
        tests = [Domain(name, **reviews[name, "train"]) for name in DOMAINS if name != source]
        recipe = Recipe(
            base=options.base,
            base_saw=options.saw,
            source=Domain(source, **reviews[source, "train"], test=Domain(f"{source}-dev", **reviews[source, "dev"])),
            targets=tests,
        )
        material, engine = prepare(recipe, Listener())
        corpus = material.corpus
        for method in ("tfidf", "linear_probe"):
            for target in corpus.targets:
                outcome = follow(method, recipe.replace(method=method).method, target, material, engine)
                assert target.hidden is not None
                gold = corpus.labels.encode(target.hidden.reveal("final evaluation"))
                pairs = [(target.name, outcome.predictions["target"], gold)]
                if target is corpus.targets[0]:
                    pairs.append((source, outcome.predictions["source"], labels_of(corpus.dev)))
                for name, found, labels in pairs:
                    brief = scores(found, labels, corpus.labels.names)
                    record = {
                        "base": options.base if method != "tfidf" else None,
                        "base_fingerprint": engine.host.fingerprint if method != "tfidf" else None,
                        "base_saw": list(recipe.base_saw),
                        "method": method,
                        "source": source,
                        "target": name,
                        "rows": len(labels),
                        **{key: brief[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")},
                        "machine": machine(),
                        "versions": versions(),
                    }
                    append_record(options.records, record)
                    print(f"{method} {source} -> {name}: {record['accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    main()
