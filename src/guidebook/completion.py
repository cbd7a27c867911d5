"""What a guidebook gets after it can predict, piece by piece: a piece that fails costs neither it nor the others."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors.numpy import save

from guidebook.artifact_schema import FACTS
from guidebook.errors import GuidebookError, RunError
from guidebook.folders import put, sealed
from guidebook.reports.card import render_card
from guidebook.reports.page import render
from guidebook.strict_json import dumps
from guidebook.training import processes
from guidebook.training.disk import disk_explained
from guidebook.training.listener import Listener
from guidebook.writing import CARD, EVIDENCE, KNOWN_ROWS, RECORDS, REPORT, facts_json, records

MISSING = "missing"
"""Key of guidebook.json: name of a piece that is not there -> why."""
NOT_YET = "the run ended before it"
UNLABELLED_SCORES = "scores without labels"
CLOSER_LOOK = "closer look"
PIECES = ("evaluation", UNLABELLED_SCORES, CLOSER_LOOK, "records", "model card", "report")
REPORT_PIECE = "report"


class Completion:
    """Adds pieces to a guidebook that is written; guidebook.json says at every moment which are missing, and why."""

    def __init__(self, folder: Path, facts: dict[str, Any], listener: Listener) -> None:
        self._folder = folder
        self._facts = facts
        self._listener = listener
        self._errors: list[Exception] = []

    @staticmethod
    def nothing_yet(labelled: bool) -> dict[str, str]:
        """Return what stands under "missing" in a guidebook that only predicts, of a task with labels or without."""
        return dict.fromkeys([piece for piece in PIECES if labelled or piece != UNLABELLED_SCORES], NOT_YET)

    @contextmanager
    def piece(self, name: str) -> Iterator[None]:
        """Do one piece; an exception is kept for `end`, and the run goes on. Ctrl-C ends it."""
        missing = self._facts[MISSING]
        try:
            with disk_explained():
                yield
                before = missing.pop(name, None)
                try:
                    self._save()
                except BaseException:
                    missing[name] = before or NOT_YET
                    raise
        except Exception as error:  # whatever it is, the guidebook is kept
            missing[name] = _reason(error)
            self._errors.append(error)
            with suppress(Exception):
                self._save()

    def leave_out(self, name: str, why: str) -> None:
        """Say of a piece that nobody asked for it; no failure."""
        self._facts[MISSING][name] = why

    def put(self, name: str, content: bytes) -> None:
        """Write a file of the guidebook; a person's file of that name stays beside it, which is said."""
        if processes.is_first() and (kept := put(self._folder / name, content)) is not None:
            self._listener.note(f"{self._folder / name} was changed by hand: your version is kept as {kept.name}.")

    def add_known_rows(self, known: Mapping[str, np.ndarray] | None) -> None:
        """Write the rows by which unknown ones are recognised."""
        if known:
            self.put(KNOWN_ROWS, content := save(dict(known)))
            self._facts["files"][KNOWN_ROWS] = xxhash.xxh3_128_hexdigest(content)

    def add_evidence(self, evidence: Mapping[str, Any] | None) -> None:
        """Write what the report shows beyond guidebook.json."""
        self.put(EVIDENCE, (dumps(evidence or {}) + "\n").encode())

    def add_records(self) -> None:
        """Write one record per arm and target."""
        self.put(RECORDS, "".join(dumps(record) + "\n" for record in records(self._facts)).encode())

    def add_card(self) -> None:
        """Write the model card; what it is made of is known to the process that writes."""
        if processes.is_first():
            self.put(CARD, render_card(self._so_far()).encode())

    def add_report(self, evidence: Mapping[str, Any] | None) -> None:
        """Write the report, in the process that writes."""
        if processes.is_first():
            self.put(REPORT, sealed(render(self._so_far(), evidence)).encode())

    def end(self) -> None:
        """Return if every piece is there.

        Raises:
            RunError: one is not; the message says which, why, and how to get it.
        """
        if not self._errors:
            return
        missing = self._facts[MISSING]
        pieces = "; ".join(f"{name} ({why})" for name, why in missing.items())
        only_report = f" For the report alone: guidebook report {self._folder}." if REPORT_PIECE in missing else ""
        raise RunError(
            f"The training is finished, and its guidebook is kept and predicts: {self._folder}. Missing: {pieces}. "
            f"Once the cause is gone, run the same command again: it trains nothing anew and adds what is missing."
            f"{only_report}"
        ) from self._errors[0]

    def _so_far(self) -> dict[str, Any]:
        """Return what guidebook.json says; of missing pieces only those that failed, since others may still come."""
        failed = {name: why for name, why in self._facts[MISSING].items() if why != NOT_YET}
        return {**self._facts, MISSING: failed}

    def _save(self) -> None:
        self.put(FACTS, facts_json(self._facts))


def _reason(error: Exception) -> str:
    """Return what went wrong, in one line, and where in this package if it was not raised on purpose."""
    if isinstance(error, GuidebookError):
        return " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "guidebook" in Path(frame.filename).parts]
    place = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}{place}"
