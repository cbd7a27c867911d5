"""How the threads of one process share the processor with other processes.

Torch's threads wait for each other many times in every step, in OpenMP. By default a waiting thread spins: it keeps its
core busy. That is the fastest way as long as every thread has a core to itself. When another busy process wants the
cores, the threads spin for one that was put to sleep, and both processes run many times slower. Told to sleep instead,
they share the cores. OpenMP reads its settings once, when torch is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""The standard's setting, GNU's own and that of Intel's and LLVM's runtime."""


def missing_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what must be set so that waiting threads sleep: nothing where the user has chosen one of these settings.

    >>> missing_settings({"GOMP_SPINCOUNT": "1000"})
    {}
    """
    return {} if any(name in environment for name in PASSIVE) else dict(PASSIVE)


def wait_asleep() -> None:
    """Let this process's threads sleep while they wait, if torch is not loaded yet and the user said nothing else.

    For programs, not for a library: it changes the environment.
    """
    if "torch" not in sys.modules:
        os.environ.update(missing_settings(os.environ))


@contextmanager
def children_wait_asleep() -> Iterator[None]:
    """Let the processes that are started meanwhile wait asleep; this process's environment is as before afterwards."""
    added = missing_settings(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def waiting(environment: Mapping[str, str]) -> str:
    """Return in words how threads wait under an environment.

    >>> waiting({})[:29]
    'spinning, which slows several'
    >>> waiting({"OMP_WAIT_POLICY": "passive"})
    'asleep (OMP_WAIT_POLICY=passive)'
    """
    chosen = ", ".join(f"{name}={environment[name]}" for name in PASSIVE if name in environment)
    if not chosen:
        return "spinning, which slows several busy processes down: set OMP_WAIT_POLICY=PASSIVE before torch is loaded"
    policy = environment.get("OMP_WAIT_POLICY", "").strip().lower()
    asleep = policy == "passive" or "0" in (environment.get("GOMP_SPINCOUNT"), environment.get("KMP_BLOCKTIME"))
    return f"{'asleep' if asleep and policy != 'active' else 'as set'} ({chosen})"


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
