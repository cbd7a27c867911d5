"""Which number format multiplies faster on this processor: raced once per machine, then read from the cache."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from guidebook.evaluation.records import cpu_field, cpu_has_bf16
from guidebook.training.store import default_root, key_of

ROWS, INPUTS, OUTPUTS = 512, 384, 1536
"""The race's matrices: a batch of tokens through the widest projection of a small encoder."""
ROUNDS = 5
WORTH_IT = 1.2
"""How many times as fast bf16 must be: what it costs in rounding and in casts has to come back."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rates:
    """What one thread multiplies, in GFLOP/s."""

    float32: float
    bfloat16: float

    @property
    def bf16_is_faster(self) -> bool:
        """Whether training gains from bf16."""
        return self.bfloat16 >= WORTH_IT * self.float32


def has_bf16() -> bool:
    """Return whether the device that computes multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()


def dtype_of(facts: Mapping[str, Any]) -> str:
    """Return the number type that a guidebook was trained and measured in, from its guidebook.json.

    Where it was chosen by `auto` and this device has no units for it, it is float32, and a warning says so.
    """
    asked = str(facts["recipe"]["train"]["dtype"])
    stored = str(facts.get("dtype") or asked)  # guidebooks of before say only what was asked
    if stored == "bfloat16" and asked == "auto" and not has_bf16():
        warnings.warn(
            "This guidebook was trained and measured in bfloat16, which this machine only emulates, a hundred times "
            "slower. It answers in float32: probabilities differ by rounding from those that were measured.",
            stacklevel=2,
        )
        return "float32"
    return stored


def race(clock: Clock = time.thread_time) -> Rates:
    """Return the best of a few matrix products in each format, taken in turn, on one thread, in about 50 ms.

    One thread, so that the verdict does not hang on how many a run is given; its processor time, so that it does not
    hang on what else the machine does; in turn, so that a moment in which it is throttled meets both.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = {dtype: torch.ones(ROWS, INPUTS, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
        weight = {dtype: torch.ones(OUTPUTS, INPUTS, dtype=dtype) for dtype in rows}
        best = dict.fromkeys(rows, float("inf"))
        for _ in range(ROUNDS + 1):  # the first round prepares the kernels
            for dtype, values in rows.items():
                began = clock()
                torch.nn.functional.linear(values, weight[dtype])
                best[dtype] = min(best[dtype], max(clock() - began, 1e-9))
    finally:
        torch.set_num_threads(threads)
    work = 2 * ROWS * INPUTS * OUTPUTS / 1e9
    return Rates(*(round(work / best[dtype], 1) for dtype in (torch.float32, torch.bfloat16)))


def measured_rates(root: Path, clock: Clock = time.thread_time) -> Rates | None:
    """Return this processor's rates: those kept under `root`, else of a race, which are then kept.

    The first race counts, also among processes that race at once, so that a machine decides once. Where `root` cannot
    be written the race stands for this process alone. None on a processor without bf16 units: there bf16 is emulated,
    about a hundred times slower, and not worth a race.
    """
    if not cpu_has_bf16():
        return None
    facts = (cpu_field("model name"), cpu_field("flags") or cpu_field("Features"), torch.__version__)
    place = root / "machine" / f"{key_of({'processor': facts, 'race': (ROWS, INPUTS, OUTPUTS, ROUNDS)})}.json"
    if (kept := _kept(place)) is not None:
        return kept
    found = race(clock)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        own = place.with_name(f"{place.stem}.{os.getpid()}.new")
        own.write_text(json.dumps(asdict(found)), encoding="utf8")
        try:
            os.link(own, place)  # unlike a rename, never replaces what another process has kept
        except FileExistsError:
            if _kept(place) is None:
                own.replace(place)
        own.unlink(missing_ok=True)
    return _kept(place) or found


def _kept(place: Path) -> Rates | None:
    try:
        return Rates(**json.loads(place.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError):
        return None


@cache
def rates() -> Rates | None:
    """Return `measured_rates` of the store's folder, asked once per process."""
    return measured_rates(default_root())
