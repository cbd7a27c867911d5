"""Measuring in a process of one's own, so that peak memory is that of what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def figures_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Run Python with a script and its arguments; return the JSON object that it prints in its last line.

    Raises:
        RuntimeError: it failed; with its arguments and the end of what it wrote to stderr, "killed" if that is nothing.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}:\n{done.stderr.strip()[-2000:] or 'killed'}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
