"""A comparison on several processes of one machine, each with its device where there are any."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from guidebook.compare.grid import Comparison
from guidebook.compare.work import Share, work
from guidebook.errors import MachineError
from guidebook.threads import children_wait_asleep, cores


def work_in_processes(comparison: Comparison, folder: Path, processes: int, share: Share | None = None) -> None:
    """Do what has no record, on `processes` processes that share the cores, and the devices in turn.

    Raises:
        InputError: as `work`.
        MachineError: as `work`, or a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and the device's state
    with (
        _without_main(),
        ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool,
    ):
        with children_wait_asleep():  # every submission may start a process
            futures = [pool.submit(_work, comparison, folder, share, number, processes) for number in range(processes)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        except BrokenProcessPool as error:
            raise MachineError(
                "A process ended before it was done: it was killed, perhaps for its memory, or it could not start (the "
                "lines above say so). The same command goes on from the records; with fewer --processes it needs less."
            ) from error


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module's file while processes start, where there is none: a program read from stdin.

    A new process runs the main module's file again, to find what was defined there; nothing that these need is.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or Path(file).is_file():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, killed or not: its queue would never tell."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)  # records and stages are complete or absent, as after any kill

    threading.Thread(target=watch, daemon=True).start()


def _work(comparison: Comparison, folder: Path, share: Share | None, number: int, processes: int) -> None:
    import torch

    devices = torch.cuda.device_count()
    if devices:
        torch.cuda.set_device(number % devices)
    torch.set_num_threads(max(1, cores() // processes))
    work(comparison, folder, share)
