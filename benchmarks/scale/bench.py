"""How much memory does a large unlabelled target take? Corpora are generated, each is adapted to in its own process.

python benchmarks/scale/bench.py --rows 10_000 1_000_000 10_000_000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from guidebook.evaluation.records import append_record, machine, versions
from guidebook.training.listener import Listener

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "reviews"
WORDS = (8, 12)  # a row has from so many to so many words
SHARD = 100_000  # rows generated at a time
SEED = 0


def vocabulary() -> list[str]:
    """Return the different words of the example reviews, in order."""
    text = " ".join(path.read_text(encoding="utf8") for path in sorted(EXAMPLES.glob("*.csv")))
    return sorted({word for word in text.lower().split() if word.isalpha()})


def generate(path: Path, rows: int) -> None:
    """Write rows of words drawn at random, few often and many seldom, as CSV with one column."""
    words = np.array(vocabulary())
    share = 1 / np.arange(1, len(words) + 1)
    bounds = np.cumsum(share / share.sum())
    rng = np.random.default_rng(SEED)
    with path.open("w", encoding="utf8") as file:
        file.write("text\n")
        for start in range(0, rows, SHARD):
            sizes = rng.integers(WORDS[0], WORDS[1] + 1, min(SHARD, rows - start))
            drawn = words[np.minimum(np.searchsorted(bounds, rng.random(int(sizes.sum()))), len(words) - 1)].tolist()
            ends = np.cumsum(sizes).tolist()
            file.writelines(
                " ".join(drawn[end - size : end]) + "\n" for end, size in zip(ends, sizes.tolist(), strict=True)
            )


class Stopwatch(Listener):
    """Notes when a run says something, and how much memory it has then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.events: list[dict[str, Any]] = []

    def mark(self, event: str) -> None:
        """Note one event."""
        seconds = round(time.monotonic() - self.began, 1)
        self.events.append({"event": event, "seconds": seconds, "resident_mb": resident(), "peak_mb": peak()})
        print(self.events[-1], file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """What was read."""
        self.mark(text)

    def announce(self, estimate: Any) -> None:
        """The plan is made."""
        self.mark("planned")

    def start(self, name: str, total: float | None) -> None:
        """Something begins."""
        self.mark(f"start {name}")

    def finish(self, name: str, **figures: float) -> None:
        """Something ended."""
        self.mark(f"finish {name}")


def resident() -> float:
    """Return the memory of this process in megabytes, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf8").split()[1])
    except OSError:
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def peak() -> float:
    """Return the most memory this process ever had, in megabytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3), 1)


def work(corpus: Path, tokens: int, out: Path) -> None:
    """Adapt to a corpus in this process and print what it took, as JSON."""
    watch = Stopwatch()
    import torch

    from guidebook.adaptation import adapt
    from guidebook.recipe import Recipe

    torch.set_num_threads(1)
    watch.mark("imported")
    recipe = Recipe(
        base="mini",
        source=str(EXAMPLES / "books.csv"),
        targets={"name": "large", "path": str(corpus), "test": str(EXAMPLES / "kitchen.csv")},
        train={"fuse": {"tokens": tokens}, "task": {"epochs": 1}, "max_length": 64},
        task={"max_length": 64},
    )
    book = adapt(recipe, out=out, listener=watch)
    watch.mark("done")
    target = next(entry for entry in book.meta["domains"] if entry["name"] == "large")
    fused = next(stage for stage in book.meta["stages"] if stage["name"] == "fuse")
    print(
        json.dumps(
            {
                "rows": target["rows"],
                "tokens": target["tokens"],
                "duplicates": target["duplicates"],
                "fused_tokens": fused["tokens"],
                "seconds": book.meta["seconds"],
                "peak_megabytes": peak(),
                "events": watch.events,
            }
        )
    )


def measure(rows: int, tokens: int, folder: Path) -> dict[str, Any]:
    """Generate a corpus, adapt to it in a process of its own, and return what that took."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        corpus = Path(name) / "corpus.csv"
        began = time.monotonic()
        generate(corpus, rows)
        generated = time.monotonic() - began
        environment = {
            **os.environ,
            "GUIDEBOOK_CACHE": str(Path(name) / "cache"),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, __file__, "--worker", str(corpus), "--tokens", str(tokens)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        size = sum(path.stat().st_size for path in (Path(name) / "cache" / "tokens").rglob("*") if path.is_file())
        return {
            **json.loads(done.stdout.splitlines()[-1]),
            "corpus_megabytes": round(corpus.stat().st_size / 1e6, 1),
            "tokens_on_disk_megabytes": round(size / 1e6, 1),
            "generated_seconds": round(generated, 1),
        }


def main() -> None:
    """Measure every size and append one record each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--tokens", type=int, default=40_000, help="tokens of the fusion stage")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the corpora go")
    parser.add_argument("--out", type=Path, default=HERE / "records.jsonl")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        work(asked.worker, asked.tokens, asked.worker.parent / "book")
        return
    for rows in asked.rows:
        found = measure(rows, asked.tokens, asked.folder)
        append_record(asked.out, {"asked": rows, **found, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main()
