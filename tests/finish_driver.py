"""Run `guidebook.adapt` and die by SIGKILL at moments after the training; started by test_finish.py in its own process.

    python finish_driver.py BASE FOLDER BEFORE   ->  one JSON line per kill

The parent imports and trains once and forks: each child is a run of the same command, killed at its moment.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from guidebook import adaptation, completion, folders, writing
from guidebook.adaptation import adapt
from guidebook.artifact import load
from guidebook.training.engine import Engine
from tiny import TEXTS, tiny_recipe

torch.set_num_threads(1)
PERSONS = {"notes.txt": "mine", "audit-kitchen.csv": "row,text,label\n0,a,1\n", "adapters/task/why.md": "because"}
AUDIT = {"kitchen": {"plan": {"rows": []}, "labels": {"0": 1}, "verdict": "ship", "more": 0}}
KILLS = 16
SWAPPING = ("_swap", "_exchanged", "rename", "rmtree", "write_guidebook")
seen: list[str] = []
deadly: list[int] = []


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


def install() -> None:
    """Put the moments in place, in this child only."""
    for name in ("note", "_carry", "fsync_folder", "_swap", "_link", "_exchanged", "replace_file"):
        around(folders, name)
    for name in ("account", "label_free", "evidence", "write_guidebook"):
        around(adaptation, name)
    for name in ("save_file", "facts_json", "retire_audit"):
        around(writing, name)
    around(completion, "put")
    around(Engine, "predict")
    around(Path, "rename")
    around(Path, "replace")
    around(shutil, "rmtree")


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run work in a forked child; return its wait status and what it returned, as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as file:
                json.dump(work(), file)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(text) if text else None


def run(base: str, out: Path, at: int | None) -> list[str]:
    """Run the command with the moments in place; return those it passed."""
    deadly.extend([at] if at is not None else [])
    install()
    adapt(tiny_recipe(base), out=out)
    return seen


def answers(path: Path) -> list[list[float]]:
    """Return what a guidebook says of some texts."""
    found: list[list[float]] = np.asarray(load(path).predict_proba(TEXTS, domain="kitchen")).tolist()
    return found


def persons_there(path: Path) -> bool:
    """Whether everything that a person wrote is in the folder, and the audit's labels too."""
    entry = json.loads((path / "audit.json").read_text())["kitchen"]
    kept = entry if "labels" in entry else entry["earlier"][-1]
    return kept == AUDIT["kitchen"] and all((path / name).read_text() == text for name, text in PERSONS.items())


def main(base: str, folder: Path, before: str) -> None:
    if "no exchange" in before:
        folders._exchanged = lambda one, other: False
    os.environ["GUIDEBOOK_CACHE"] = str(folder / "cache")
    adapt(tiny_recipe(base), out=folder / "undisturbed")
    new = in_child(lambda: answers(folder / "undisturbed"))[1]
    names = sorted(path.name for path in (folder / "undisturbed").iterdir())
    old, earlier = None, folder / "earlier"
    if before != "nothing":
        adapt(tiny_recipe(base, seed=1), out=earlier)
        old = in_child(lambda: answers(earlier))[1]
        for name, text in PERSONS.items():
            (earlier / name).write_text(text)
        (earlier / "audit.json").write_text(json.dumps(AUDIT))

    def place(name: str) -> Path:
        made = folder / name / "book"
        made.parent.mkdir()
        if before != "nothing":
            shutil.copytree(earlier, made)
        return made

    _, moments = in_child(lambda: run(base, place("whole"), None))
    first = moments.index("after write_guidebook") if before == "nothing" else moments.index("before write_guidebook")
    kinds: dict[str, list[int]] = {}
    for number in range(first, len(moments)):
        kinds.setdefault(moments[number], []).append(number)
    picked = sorted({number for numbers in kinds.values() for number in (numbers[0], numbers[-1])})
    swapping = {numbers[0] for name, numbers in kinds.items() if name.split()[1] in SWAPPING}
    for at in sorted({*swapping, *picked[:: max(1, len(picked) // KILLS)]}):
        book = place(f"kill{at}")
        (book.parent / "cache").symlink_to(folder / "cache")
        status, _ = in_child(lambda at=at, book=book: run(base, book, at))
        _, said = in_child(lambda book=book: answers(book))
        _, persons = in_child(lambda book=book: before == "nothing" or persons_there(book))
        again, _ = in_child(lambda book=book: run(base, book, None))
        _, finally_said = in_child(lambda book=book: answers(book))
        there = sorted(path.name for path in book.iterdir())
        extra = sorted({*PERSONS, "audit.json", "adapters"} - {"adapters/task/why.md"}) if before != "nothing" else []
        facts = {
            "moment": f"{at} {moments[at]}",
            "died": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "answers": {json.dumps(new): "new", json.dumps(old): "old"}.get(json.dumps(said), "others"),
            "persons": persons and (before == "nothing" or persons_there(book)),
            "completed": again == 0 and finally_said == new and there == sorted({*names, *extra}),
            "more": sorted({*there} ^ {*names, *extra}),
            "left": sorted(item.name for item in book.parent.iterdir()),
        }
        print(json.dumps(facts), flush=True)
        shutil.rmtree(book.parent)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
