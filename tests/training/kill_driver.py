"""Run `guidebook.adapt` and die by SIGKILL at chosen moments; started by test_kill.py in a process of its own.

Every disk or training call that matters is a moment with a number. The parent imports everything once and forks: each
child is a run of the same command, killed at a moment or not.

    python kill_driver.py BASE FOLDER COUNT   ->  one JSON line per experiment
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from guidebook import folders, writing
from guidebook.adaptation import adapt
from guidebook.adapters import storage
from guidebook.training import engine, store, trainer
from tiny import tiny_recipe

torch.set_num_threads(1)
gc.collect = lambda *arguments: 0  # type: ignore[assignment]  # Trainer collects after every stage: half of the time here
seen: list[str] = []
deadly: list[int] = []
TRAIN = {
    "tokens_per_batch": 96,
    "max_length": 16,
    "dtype": "float32",
    "checkpoint_seconds": 0,
    "micro_batches": 2,
    "fuse": {"tokens": 250, "learning_rate": 1e-2},
    "task": {"epochs": 1, "rows_per_batch": 6, "learning_rate": 1e-2},
}


def moment(name: str) -> None:
    """Pass a moment, or die there."""
    if len(seen) in deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(name)


def around(owner: Any, name: str) -> None:
    """Make the moments before and after every call of a function."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*arguments: Any, **settings: Any) -> Any:
        moment(f"before {name}")
        result = original(*arguments, **settings)
        moment(f"after {name}")
        return result

    setattr(owner, name, call)


def half(owner: Any, name: str, place: Callable[..., Any]) -> None:
    """Make a moment at which the file that a function writes is only half there."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*arguments: Any, **settings: Any) -> Any:
        result = original(*arguments, **settings)
        if len(seen) in deadly:
            path = place(*arguments)
            os.truncate(path, os.path.getsize(path) // 2)
        moment(f"half of {name}")
        return result

    setattr(owner, name, call)


def install() -> None:
    """Put the moments in place, in this child only."""
    half(torch, "save", lambda value, path, *rest: path)
    for module in (trainer, storage, engine, writing):
        half(module, "save_file", lambda tensors, path, *rest: path)
    around(trainer.StageTrainer, "training_step")
    around(trainer.StageTrainer, "_save_checkpoint")
    around(trainer, "complete_checkpoint")
    around(trainer, "mark_complete")
    around(store, "fsync_folder")
    around(folders, "fsync_folder")
    around(engine.Engine, "train_or_reuse")
    around(engine.Engine, "predict")
    around(store.Store, "put")
    around(Path, "rename")
    around(shutil, "rmtree")
    around(writing, "facts_json")


def run(base: str, folder: Path, at: int | None) -> tuple[int, list[str]]:
    """Run the command in a child that dies at a moment; return its wait status and the moments it passed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            deadly.extend([at] if at is not None else [])
            os.environ["GUIDEBOOK_CACHE"] = str(folder / "cache")
            install()
            adapt(tiny_recipe(base, train=TRAIN), out=folder / "book")
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


def weights(folder: Path) -> dict[str, str]:
    """Return the hash of every weights file of the artifact."""
    found = sorted((folder / "book").rglob("*.safetensors"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def chosen(names: list[str], count: int) -> list[int]:
    """Return moments spread over the run, each kind of moment at least once if the count allows."""
    kinds: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        kinds.setdefault(name, []).append(place)
    artifact_begins = names.index("before facts_json")
    picked = [artifact_begins, artifact_begins + 1, names.index("before rename", artifact_begins)]
    turn = 0
    while len(picked) < min(count, len(names)):
        for index, places in enumerate(kinds.values()):
            left = [place for place in places if place not in picked]
            if left and len(picked) < count:
                picked.append(left[(index * 7 + turn * 3) % len(left)])
        turn += 1
    return sorted(picked)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main(base: str, folder: Path, count: int) -> None:
    _, names = run(base, folder / "undisturbed", None)
    say(moment="none", died=False, finished=True, weights=weights(folder / "undisturbed"), moments=len(names))
    for number, at in enumerate(chosen(names, count)):
        place = folder / f"kill{number}"
        status, _ = run(base, place, at)
        half_a_book = (place / "book").exists() and not (place / "book" / "guidebook.json").exists()
        again, _ = run(base, place, None)
        say(
            moment=f"{at} {names[at]}",
            died=os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            half=half_a_book,
            finished=again == 0,
            weights=weights(place),
            left=sorted(item.name for item in place.iterdir()),
        )
        shutil.rmtree(place)
    place, died = folder / "chain", 0
    for at in (40, 25, 60, 33, 50):  # one run after the other is killed, each a little further
        died += os.WIFSIGNALED(run(base, place, at)[0])
    again, _ = run(base, place, None)
    say(moment=f"a chain of {died}", died=died > 1, finished=again == 0, weights=weights(place))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
