"""`guidebook compare`: methods by directions by draws from one recipe, into one table with intervals."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group as Stack
from rich.live import Live
from rich.markup import escape
from rich.table import Table as Drawn
from rich.text import Text

from guidebook.cli.adapt import split_words
from guidebook.cli.console import Terminal, duration, print_json, print_text, remark, stderr, stdout, table
from guidebook.cli.report import write_page
from guidebook.errors import InputError

if TYPE_CHECKING:
    from guidebook.compare.grid import Comparison, Job

REFRESH = 2.0  # seconds between two looks at the records


def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE.yaml|key=value",
            help="A recipe, with a section compare: if more than its own domains and method are compared.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the records. Empty: runs/, the recipe's name, -compare.", show_default=False),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the work, and the devices in turn.")] = 1,
    share: Annotated[
        str, typer.Option(help="Only a part of the work, such as 2/3, for machines that share no disk.")
    ] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is compared and what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; print only the folder.")] = False,
) -> None:
    """Compare methods on all directions between domains, over several draws of labels.

    Only what has no record is run; stages that several runs share are trained
    once. Killed at any time, the same command goes on. Further processes may
    run the same command on the same folder.

    [bold]guidebook compare recipe.yaml compare.draws=3 --processes 2[/]
    """
    recipe_path, overrides = split_words(words or ())
    if recipe_path is None:
        raise InputError("compare needs a recipe: guidebook compare recipe.yaml.")
    from guidebook.compare.grid import load_comparison

    comparison = load_comparison(recipe_path, overrides)
    folder = out or Path("runs") / f"{recipe_path.stem}-compare"
    left = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    if left - {"claims", ".records.jsonl.lock"} and "records.jsonl" not in left:
        raise InputError(f"{folder}: is not empty and holds no records. Choose another --out.")
    jobs = comparison.jobs()
    if dry_run:
        _print_plan(comparison, jobs, folder)
        return
    _say_stale(jobs, folder)
    with _watched(jobs, folder, quiet):
        _run(comparison, folder, processes, share, quiet)
    _print_results(folder, as_json, quiet)


def _say_stale(jobs: Sequence[Job], folder: Path) -> None:
    """Say that records of the same runs were made with other code, number type or versions, and do not count."""
    from guidebook.evaluation.records import read_records

    keys = {job.key for job in jobs}
    asked = {
        (job.group.source.name, job.target, job.candidate.name, job.group.rows, job.group.draw, job.group.seed)
        for job in jobs
    }
    fields = ("source", "target", "candidate", "labelled_rows", "draw", "seed")
    stale = [
        record
        for record in read_records(folder / "records.jsonl")
        if record.get("key") not in keys and tuple(record.get(name) for name in fields) in asked
    ]
    if stale:
        remark(
            f"{len(stale):,} records in {folder} are of these runs, but were made from other content or settings, or "
            "with other code, number type or versions of the libraries. They are kept, in tables of their own; the "
            "runs are made again."
        )


def _run(comparison: Comparison, folder: Path, processes: int, share: str, quiet: bool) -> None:
    from guidebook.compare.work import Share, work

    if processes > 1:
        from guidebook.compare.processes import work_in_processes

        work_in_processes(comparison, folder, processes, Share.of(share))
        return
    with Terminal(quiet or stderr().is_terminal) as listener:  # on a terminal the live table tells how far it is
        work(comparison, folder, Share.of(share), listener)


def _print_results(folder: Path, as_json: bool, quiet: bool) -> None:
    from guidebook.evaluation.comparison import comparisons
    from guidebook.evaluation.records import read_records
    from guidebook.reports.comparison import heading, overlap_lines, render_comparison, tables_of, verdict

    records = read_records(folder / "records.jsonl")
    found = comparisons(records)
    report = folder / "report.html"
    write_page(report, render_comparison(records), is_own=True)
    if as_json:
        print_json([item.plain() for item in found])
        return
    if quiet:
        print_text(str(folder))
        return
    for item in found:
        stdout().print(f"[bold]{escape(heading(item))}[/]")
        for part in tables_of(item):
            print_text("")
            print_text(part.text())
        print_text("")
        for line in [verdict(item), *overlap_lines(item)]:
            stdout().print(escape(line), soft_wrap=True)
        print_text("")
    print_text(f"records:   {folder / 'records.jsonl'}\nreport:    {report}")


def _print_plan(comparison: Comparison, jobs: Sequence[Job], folder: Path) -> None:
    from guidebook.evaluation.records import read_records

    done = {record.get("key") for record in read_records(folder / "records.jsonl")}
    rows = table("candidate", "runs>", "have a record>")
    for candidate in comparison.candidates:
        own = [job for job in jobs if job.candidate.name == candidate.name]
        rows.add_row(escape(candidate.name), f"{len(own):,}", f"{sum(job.key in done for job in own):,}")
    stdout().print(rows)
    missing = sum(job.key not in done for job in jobs)
    directions = len({(job.group.source.name, job.target) for job in jobs})
    draws = len({(job.group.rows, job.group.draw, job.group.seed) for job in jobs})
    print_text(
        f"{len(comparison.candidates)} candidates, {directions} directions, {draws} draws: {len(jobs):,} runs, "
        f"{missing:,} without a record."
    )


@contextlib.contextmanager
def _watched(jobs: Sequence[Job], folder: Path, quiet: bool) -> Iterator[None]:
    """Keep a table of what the records say on the terminal, where there is one."""
    console = stderr()
    if quiet or not console.is_terminal:
        if not quiet:
            remark(f"{len(jobs):,} runs; records in {folder}")
        yield
        return
    watch = Watch(jobs, folder)
    with Live(get_renderable=watch.drawn, console=console, refresh_per_second=1 / REFRESH, transient=True):
        yield


class Watch:
    """A live table: mean score so far by candidate and direction, how much is done, how long it takes."""

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        self._keys = {job.key for job in jobs}
        self._names = list(dict.fromkeys(job.candidate.name for job in jobs))
        self._directions = list(dict.fromkeys((job.group.source.name, job.target) for job in jobs))
        self._records = folder / "records.jsonl"
        self._began, self._before = time.monotonic(), len(self._known())

    def _known(self) -> list[dict[str, Any]]:
        from guidebook.evaluation.records import read_records

        return [record for record in read_records(self._records) if record.get("key") in self._keys]

    def drawn(self) -> Stack:
        """Return the table and a line below it."""
        records = self._known()
        means: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for record in records:
            if "accuracy" in record:
                means[record["candidate"], record["source"], record["target"]].append(
                    record.get("score", record["accuracy"])
                )
        rows: Drawn = table("direction", *(f"{name}>" for name in self._names))
        for source, target in self._directions:
            cells = [means.get((name, source, target), []) for name in self._names]
            shown = [f"{100 * sum(values) / len(values):.1f}" if values else "·" for values in cells]
            rows.add_row(escape(f"{source} → {target}"), *shown)
        made, spent = len(records) - self._before, time.monotonic() - self._began
        left = f", about {duration(spent / made * (len(self._keys) - len(records)))} left" if made else ""
        return Stack(rows, Text(f"{len(records):,} of {len(self._keys):,} runs{left}", style="bold"))
