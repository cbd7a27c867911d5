"""Do two trainings on one machine slow each other down more than by sharing its cores?

One process alone, and two at once, each training the same adapter on the same text of the packaged base `mini` with as
many threads as there are cores; with OpenMP's own waiting (threads spin) and with waiting asleep, as the command line
sets it. The four cases take turns, so that what else the machine does meets all of them.

    python benchmarks/two_processes/bench.py --repeats 5 --tokens 20000
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from guidebook.evaluation.records import append_record, machine, read_records, versions
from guidebook.reports.marks import fill
from guidebook.threads import PASSIVE, cores

HERE = Path(__file__).parent
RECORDS = HERE / "records.jsonl"
REVIEWS = HERE.parents[1] / "examples" / "reviews"


def train(tokens: int) -> None:
    """Train one stage in this process and print its real tokens per second."""
    from guidebook.adaptation import prepare
    from guidebook.recipe import Recipe
    from guidebook.training.listener import Listener
    from guidebook.training.run import Run

    recipe = Recipe(
        base="mini",
        source=str(REVIEWS / "books.csv"),
        targets=[str(REVIEWS / "kitchen.csv")],
        method="target_mlm",
        train={"dtype": "float32", "tokens_per_batch": 1024, "fuse": {"tokens": tokens}},
    )
    material, engine = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], engine.seed, None)
    figures = engine.train_or_reuse(next(recipe.method.plan(run)), {}).figures
    print(json.dumps({"tokens_per_second": figures["tokens_per_second"]}))


def at_once(processes: int, asleep: bool, tokens: int) -> list[float]:
    """Return the tokens per second of each of several processes that start together."""
    environment = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    environment |= {"OMP_NUM_THREADS": str(cores()), **(PASSIVE if asleep else {})}
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--train", str(tokens)],
                env={**environment, "GUIDEBOOK_CACHE": str(Path(folder) / str(number))},
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("a training failed; its message stands above")
    return [float(json.loads(text.splitlines()[-1])["tokens_per_second"]) for text in said]


def page(records: list[dict[str, Any]]) -> str:
    """Return the table: medians and the spread over the repeats, tokens per second of each process."""
    about = records[0]
    lines = [
        f"Base `mini`, {about['machine']['cores']} cores ({about['machine']['cpu']}), {about['repeats']} repeats; "
        f"{about['load']:.1f} other threads were running on average when it began.",
        "",
        "| processes | waiting threads | tokens/s of each, median | spread |",
        "|---|---|---|---|",
    ]
    for processes in (1, 2):
        for asleep in (False, True):
            found = [r["tokens_per_second"] for r in records if (r["processes"], r["asleep"]) == (processes, asleep)]
            rates = [rate for run in found for rate in run]
            lines.append(
                f"| {processes} | {'asleep' if asleep else 'spinning'} | {statistics.median(rates):,.0f} "
                f"| {min(rates):,.0f} … {max(rates):,.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, replace the records and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--train", type=int, help="(for the child processes)")
    given = parser.parse_args()
    if given.train is not None:
        train(given.train)
        return
    load = os.getloadavg()[0]
    shared = {"repeats": given.repeats, "tokens": given.tokens, "load": load, "machine": machine()}
    shared["versions"] = versions()
    made = RECORDS.with_suffix(".new")
    made.unlink(missing_ok=True)
    for _ in range(given.repeats):
        for processes in (1, 2):
            for asleep in (False, True):
                rates = at_once(processes, asleep, given.tokens)
                append_record(made, {"processes": processes, "asleep": asleep, "tokens_per_second": rates, **shared})
                print(processes, "asleep" if asleep else "spinning", rates, flush=True)
    made.replace(RECORDS)
    fill(HERE / "README.md", "waiting", page(read_records(RECORDS)))


if __name__ == "__main__":
    main()
