"""The terminal: answers go to stdout, everything about the run to stderr."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from guidebook.strict_json import dumps
from guidebook.training.listener import Listener

WORTH_A_BAR = 2.0  # seconds; what is shorter leaves no line behind
BETWEEN_LINES = 15.0  # seconds between two plain lines where there is no terminal
WIDTH_WITHOUT_TERMINAL = 120


def stdout() -> Console:
    """Return the console of answers, without colour when it is not a terminal or NO_COLOR is set."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)


def stderr() -> Console:
    """Return the console of everything about a run."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)


def print_json(value: object) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(dumps(value, indent=2) + "\n")


def print_text(text: str) -> None:
    """Write text to stdout as it is."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def fail(message: str) -> None:
    """Write an error to stderr: the word in red, the message as it is."""
    stderr().print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)


def remark(text: str) -> None:
    """Write a side remark to stderr."""
    stderr().print(f"[dim]{escape(text)}[/]", soft_wrap=True)


def quiet_libraries() -> None:
    """Silence what transformers, peft and the Hub's client say about themselves; a value that the user set wins."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for module in ("transformers", "peft", "torch", "accelerate", "huggingface_hub", "sklearn"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")


class _Remarks(logging.Handler):
    """Writes what a logger says as side remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


def hear_fetching(quiet: bool) -> None:
    """Write to stderr what is fetched and unpacked, unless the command is to be quiet."""
    logger = logging.getLogger("guidebook.bases")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.handlers = [_Remarks()]


def table(*headings: str, title: str | None = None) -> Table:
    """Return an empty table of the house's plain look; a heading that ends in `>` is a column of numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        right = heading.endswith(">")
        made.add_column(heading.rstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return made


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(3.4), duration(130), duration(7_500)
    ('3 s', '2 min 10 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def amount(number: float) -> str:
    """Return a count for people, to three figures.

    >>> amount(950), amount(48_200), amount(22_700_000)
    ('950', '48.2 k', '22.7 M')
    """
    for unit, word in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{word}"
    return f"{number:.0f}"


def figures_text(figures: Mapping[str, float]) -> str:
    """Return named figures on one line.

    >>> figures_text({"tokens_per_second": 3412.0, "lm": 2.3456})
    '3,412 tokens/s · lm 2.346'
    """
    parts = []
    for name, value in figures.items():
        if name.endswith("_per_second"):
            parts.append(f"{value:,.0f} {name.removesuffix('_per_second').replace('_', ' ')}/s")
        else:
            parts.append(f"{name.replace('_', ' ')} {value:.4g}")
    return " · ".join(parts)


def plan_table(stages: Sequence[Mapping[str, Any]]) -> Table:
    """Return the announced stages as a table."""
    rows = table("arm", "stage", "targets", "tokens>", "steps>", "time>")
    for stage in stages:
        cached = bool(stage.get("cached"))
        rows.add_row(
            escape(str(stage.get("arm", ""))),
            escape(str(stage.get("name", ""))),
            escape(", ".join(stage.get("targets") or ()) or "-"),
            amount(stage.get("tokens", 0)),
            f"{stage.get('steps', 0):,}",
            "stored" if cached else duration(stage.get("seconds", 0.0)),
        )
    return rows


def plan_text(estimate: Mapping[str, Any]) -> str:
    """Return the sums of an announcement in one sentence."""
    stages = estimate.get("stages", ())
    stored = sum(bool(stage.get("cached")) for stage in stages)
    text = f"{len(stages)} stages, {amount(estimate.get('tokens', 0))} tokens"
    text += f", about {duration(estimate.get('seconds', 0.0))} on this machine"
    if stored:
        text += f" ({'all' if stored == len(stages) else stored} stored from an earlier run)"
    if estimate.get("parameters"):
        trained = estimate.get("trainable_parameters", 0)
        text += f"; {amount(trained)} of {amount(estimate['parameters'])} parameters are trained"
    if estimate.get("memory_megabytes"):
        text += f"; about {estimate['memory_megabytes']:,.0f} MB of memory"
    return text + "."


def memory_text(memory: Mapping[str, Any]) -> str:
    """Return what a causal base's training takes, in one sentence.

    >>> names = ("weights", "gradients", "optimiser", "activations", "logits", "adapter")
    >>> memory_text({"parameters": 6e9, "trainable_parameters": 1e8, "total": 27e3, **dict.fromkeys(names, 400.0)})
    'Memory 27,000 MB: weights 400, gradients 400, optimiser 400, activations 400, logits 400; 6 G parameters, \
100 M trained, a file of 400 MB.'
    """
    parts = ", ".join(
        f"{name} {memory[name]:,.0f}" for name in ("weights", "gradients", "optimiser", "activations", "logits")
    )
    trained = f"{amount(memory['parameters'])} parameters, {amount(memory['trainable_parameters'])} trained"
    return f"Memory {memory['total']:,.0f} MB: {parts}; {trained}, a file of {memory['adapter']:,.0f} MB."


def print_plan(console: Console, estimate: Mapping[str, Any]) -> None:
    """Print what a run will do: its stages, then the sums."""
    if memory := estimate.get("memory"):
        console.print(escape(memory_text(memory)), soft_wrap=True)
    if "available_megabytes" in estimate:
        too_little = f"This machine has {estimate['available_megabytes']:,.0f} MB free"
        too_little += ": nothing was loaded, and no time measured."
        console.print(f"[bold red]{escape(too_little)}[/] Raise train.micro_batches, or lower train.max_length.")
        return
    console.print(plan_table(estimate.get("stages", ())))
    console.print(f"[bold]{escape(plan_text(estimate))}[/]", soft_wrap=True)


class Terminal(Listener):
    """Draws a run on stderr: bars on a terminal, a plain line now and then elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = stderr()
        self.quiet = quiet
        self.open: dict[str, tuple[TaskID, float | None, float, float]] = {}  # bar, total, began, last line
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[figures]}"),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        """Print one line."""
        if not self.quiet:
            self.console.print(escape(text), soft_wrap=True)

    def announce(self, estimate: Mapping[str, Any]) -> None:
        """Print the stages and what they cost in all."""
        if not self.quiet:
            print_plan(self.console, estimate)

    def start(self, name: str, total: float | None) -> None:
        """Open a bar."""
        bar = self.bars.add_task(escape(name), total=total, figures="")
        now = time.monotonic()
        self.open[name] = (bar, total, now, now)

    def advance(self, name: str, done: float, **figures: float) -> None:
        """Move a bar, or print a line when the last one is long ago."""
        if name not in self.open:  # a watcher never breaks a run
            self.start(name, None)
        bar, total, began, last = self.open[name]
        self.bars.update(bar, completed=done, figures=escape(figures_text(figures)))
        now = time.monotonic()
        if self.bars.disable and not self.quiet and now - last >= BETWEEN_LINES:
            self.open[name] = (bar, total, began, now)
            share = f"{done / total:.0%}" if total else amount(done)
            left = f"{duration((now - began) * (total - done) / done)} left" if total and done else ""
            self._line(name, share, left, figures_text(figures))

    def finish(self, name: str, **figures: float) -> None:
        """Close a bar; what took long leaves a line."""
        if name not in self.open:
            self.start(name, None)
        bar, _, began, _ = self.open.pop(name)
        self.bars.remove_task(bar)
        seconds = time.monotonic() - began
        figures.pop("seconds", None)
        if not self.quiet and seconds >= WORTH_A_BAR:
            self._line(name, f"done in {duration(seconds)}", figures_text(figures))

    def _line(self, name: str, *parts: str) -> None:
        self.console.print(f"{escape(name)}: " + escape(", ".join(part for part in parts if part)), soft_wrap=True)
