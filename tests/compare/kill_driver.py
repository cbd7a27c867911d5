"""Run a comparison and die by SIGKILL at chosen moments; started by test_work.py in a process of its own.

python kill_driver.py RECIPE FOLDER   ->  one JSON line per experiment, with the records that a second run completes
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from guidebook.compare import work as work_module
from guidebook.compare.grid import load_comparison
from guidebook.evaluation.records import read_records
from guidebook.training import engine, store, trainer

torch.set_num_threads(1)
seen: list[str] = []
deadly: list[int] = []


def moment(name: str) -> None:
    """Pass a moment, or die there."""
    if len(seen) in deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(name)


def after(owner: Any, name: str) -> None:
    """Make the moment after every call of a function."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*arguments: Any, **settings: Any) -> Any:
        result = original(*arguments, **settings)
        moment(f"after {name}")
        return result

    setattr(owner, name, call)


def torn(path: Path, record: Any) -> None:
    """Die with half of a record on the disk, or write it as a whole."""
    if len(seen) in deadly:
        with open(path, "ab") as file:
            file.write(json.dumps(record, default=str).encode()[:200])
    moment("half of append_record")
    append_record(path, record)


append_record = work_module.append_record


def run(recipe: Path, folder: Path, at: int | None) -> tuple[int, list[str]]:
    """Run the comparison in a child that dies at a moment; return its wait status and the moments it passed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            deadly.extend([at] if at is not None else [])
            os.environ["GUIDEBOOK_CACHE"] = str(folder / "cache")
            work_module.append_record = torn
            after(work_module, "append_record")
            after(work_module, "prepare")
            after(work_module, "follow")
            after(trainer.StageTrainer, "training_step")
            after(engine.Engine, "train_or_reuse")
            after(store.Store, "put")
            after(store.Store, "array")
            work_module.work(load_comparison(recipe, ["train.checkpoint_seconds=0"]), folder / "out")
            with os.fdopen(writer, "w") as file:
                json.dump(seen, file)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(text) if text else []


def chosen(names: list[str]) -> list[int]:
    """Return one moment of every kind, early and late ones in turn, and some more steps of the training."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return sorted(found[(len(found) * (2 * turn + 1) // 7) % len(found)] for turn, found in enumerate(places.values()))


def main(recipe: Path, folder: Path) -> None:
    _, names = run(recipe, folder / "undisturbed", None)
    print(json.dumps({"records": read_records(folder / "undisturbed" / "out" / "records.jsonl")}), flush=True)
    for at in chosen(names):
        place = folder / f"kill{at}"
        status, _ = run(recipe, place, at)
        run(recipe, place, None)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        records = read_records(place / "out" / "records.jsonl")
        print(json.dumps({"moment": f"{at} {names[at]}", "died": died, "records": records}), flush=True)
    place, died = folder / "chain", True
    for at in (9, 7, 5):  # one run after the other is killed
        status, _ = run(recipe, place, at)
        died = died and os.WIFSIGNALED(status)
    run(recipe, place, None)
    records = read_records(place / "out" / "records.jsonl")
    print(json.dumps({"moment": "a chain", "died": died, "records": records}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
