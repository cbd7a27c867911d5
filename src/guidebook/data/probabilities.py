"""Probabilities of classes that somebody else gives for the rows of a target: a rule, another model, a crowd."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guidebook.data.labels import normalise
from guidebook.errors import InputError, nearest

TOLERANCE = 1e-2
"""How far from one the probabilities of a row may sum to, as written; they are divided by their sum."""


def read_probabilities(path: str, names: Sequence[str], rows: int) -> np.ndarray:
    """Return (N, C) float64 from a file of JSON lines, one per row of the target in its order.

    A line is a mapping from label names to probabilities (those left out are zero), or a list of them in the order of
    the classes. A mapping may also hold them under `probabilities`, as `guidebook predict` writes them.

    Raises:
        InputError: no such file, another number of lines, an unknown label, or numbers that are no probabilities.
    """
    place = Path(path)
    if not os.path.isfile(place):
        raise InputError(f"{path}: there is no such file. Give one line of probabilities per row of the target.")
    try:
        with place.open(
            encoding="utf-8-sig", newline="\n"
        ) as stream:  # other characters that end lines may be in a text
            lines = [(number, line) for number, line in enumerate(stream, 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Save it as UTF-8.") from error
    if len(lines) != rows:
        raise InputError(f"{path}: {len(lines):,} lines, but the target has {rows:,} rows. Give one per row, in order.")
    return np.array([_row(line, names, f"{path} line {number}") for number, line in lines])


def _row(line: str, names: Sequence[str], place: str) -> list[float]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}). Write a mapping from labels to probabilities.") from error
    if isinstance(found, dict) and isinstance(found.get("probabilities"), dict | list):
        found = found["probabilities"]
    if isinstance(found, dict):
        given = {normalise(key): value for key, value in found.items()}
        for key in given:
            if key not in names:
                raise InputError(f"{place}: label {key!r} is not one of {list(names)}.{nearest(str(key), names)}")
        found = [given.get(name, 0.0) for name in names]
    is_row = isinstance(found, list) and len(found) == len(names)
    if not is_row or not all(isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in found):
        raise InputError(f"{place}: {found!r}, expected {len(names)} probabilities from 0 to 1. Correct the line.")
    total = float(sum(found))
    if abs(total - 1) > TOLERANCE:
        raise InputError(f"{place}: the probabilities sum to {total:g}, expected 1. Correct the line.")
    return [float(p) / total for p in found]
