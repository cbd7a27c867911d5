"""Cells of a study: runs that start from the same data and base are prepared once, and stay in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from guidebook.adaptation import prepare
from guidebook.compare.work import Share
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


def in_processes(count: int) -> int:
    """Run the script that runs now in several processes, each with its share; return how many of them failed."""
    parts = [["--processes", "1", "--share", f"{part}/{count}"] for part in range(1, count + 1)]
    running = [subprocess.Popen([sys.executable, *sys.argv, *part]) for part in parts]
    return sum(process.wait() != 0 for process in running)


def done(records: Sequence[dict[str, Any]], job: Any, budget: Any) -> bool:
    """Return whether a job (a dataclass) has its record, made with this budget (another)."""
    wanted, spent = asdict(job), asdict(budget)
    return any(all(r.get(k) == v for k, v in wanted.items()) and r["budget"] == spent for r in records)
