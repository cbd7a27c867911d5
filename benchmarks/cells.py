"""Cells of a study: runs that start from the same data and base are prepared once, in one process where that can be."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from guidebook.adaptation import prepare
from guidebook.compare.work import Share, claim
from guidebook.recipe import Recipe
from guidebook.training.engine import Engine
from guidebook.training.listener import Listener
from guidebook.training.run import Material


@dataclass
class Prepared:
    """Data and base of the newest cell: recipes that differ in nothing but the method start from the same."""

    cell: Hashable = None
    made: list[tuple[Material, Engine]] = field(default_factory=list)

    def for_cell(self, cell: Hashable, recipe: Recipe) -> tuple[Material, Engine]:
        """Return what a recipe of the cell starts from, made once."""
        if cell != self.cell or not self.made:
            self.cell, self.made = cell, [prepare(recipe, Listener())]
        return self.made[0]


def share_of(jobs: Sequence[Any], cells: Sequence[Hashable], share: Share) -> list[Any]:
    """Return one part of the jobs; those of one cell stay together.

    >>> share_of([1, 2, 3, 4], ["a", "b", "a", "c"], Share(1, 2))
    [1, 3, 4]
    """
    places = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    return [job for job, cell in zip(jobs, cells, strict=True) if places[cell] % share.parts == share.part - 1]


@dataclass
class Claims:
    """Who does what among processes that share a machine: a lock for every cell and run, let go of by any death.

    A process keeps to its cell while there is something to do in it, then takes one that nobody has. When all are
    taken it helps out with the last runs of a cell, which its owner comes to last.
    """

    folder: Path | None
    """Where the locks are; None: one process does everything, in order."""
    held: dict[str, ExitStack] = field(default_factory=dict)
    """Name of a cell or run -> what lets go of it."""

    def next_of(self, todo: Sequence[Any]) -> Any | None:
        """Return the job to do now, claimed; None where others are doing all that is left. Jobs have a `cell`."""
        if self.folder is None:
            return todo[0]
        cells: dict[Hashable, list[Any]] = {}
        for job in todo:
            cells.setdefault(job.cell, []).append(job)
        for cell in sorted(cells, key=lambda cell: self._name("cell", cell) not in self.held):
            if self._take("cell", cell) and (job := self._first(cells[cell])) is not None:
                return job
        return self._first(list(reversed(todo)))

    def _first(self, jobs: Sequence[Any]) -> Any | None:
        return next((job for job in jobs if self._take("run", job)), None)

    def give_up(self, job: Any) -> None:
        """Tell the others that a run failed, so that none of them tries it again or waits for it."""
        if self.folder is not None:
            (self.folder / self._name("failed", job)).touch()

    def given_up(self, job: Any) -> bool:
        """Return whether some process failed at a run."""
        return self.folder is not None and (self.folder / self._name("failed", job)).exists()

    def _name(self, kind: str, what: Hashable) -> str:
        return f"{kind}-{xxhash.xxh3_64_hexdigest(repr(what).encode())}"

    def _take(self, kind: str, what: Hashable) -> bool:
        """Lock something until this process ends; a run is taken once, a cell is kept."""
        assert self.folder is not None
        name = self._name(kind, what)
        if name in self.held:
            return kind == "cell"
        with ExitStack() as stack:
            if not stack.enter_context(claim(self.folder, name)):
                return False
            self.held[name] = stack.pop_all()
        return True


def in_processes(count: int) -> int:
    """Run the script that runs now in several processes that share its work; return how many of them failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *sys.argv, "--processes", "1", "--claims", folder]
        running = [subprocess.Popen(command) for _ in range(count)]
        return sum(process.wait() != 0 for process in running)


def done(records: Sequence[dict[str, Any]], job: Any, budget: Any) -> bool:
    """Return whether a job (a dataclass) has its record, made with this budget (another)."""
    wanted, spent = asdict(job), asdict(budget)
    return any(all(r.get(k) == v for k, v in wanted.items()) and r["budget"] == spent for r in records)
