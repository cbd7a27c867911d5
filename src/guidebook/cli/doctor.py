"""`guidebook doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from guidebook import __version__
from guidebook.cli.console import print_json, stdout, table
from guidebook.threads import cores, waiting

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "scikit-learn")
PURPOSES = {
    "parquet": "reads .parquet files",
    "zst": "reads .zst files",
    "hub": "reads hf:OWNER/NAME",
    "tensorboard": "trainer.report_to",
    "mlflow": "trainer.report_to",
    "wandb": "trainer.report_to",
    "benchmarks": "draws the benchmarks' figures",
    "test": "runs the tests",
    "dev": "checks and changes the package",
}
"""Extra -> what it is for, in a few words."""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has: versions, cores, memory, GPU, which number format is fast, extras, cache, disk.

    Worth adding to every report of a problem.
    """
    facts = examine()
    if as_json:
        print_json(facts)
        return
    listed = table("", "")
    for name, value in facts.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for key, text in inner:
            listed.add_row(name.replace("_", " ") + (f" {key}" if key else ""), escape(str(text)))
    stdout().print(listed)


def examine() -> dict[str, Any]:
    """Return the facts about this machine, by name."""
    return {
        "guidebook": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "library": {name: version_of(name) for name in LIBRARIES},
        "cores": cores(),
        "waiting_threads": waiting(os.environ),
        **memory(),
        **accelerators(),
        "extra": extras(),
        **store(),
    }


def version_of(name: str) -> str:
    """Return an installed version, or that there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"missing: pip install {name}"


def memory() -> dict[str, str]:
    """Return how much memory there is, and how much of it is free; nothing where the system does not say."""
    try:
        size, pages, free = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return {}
    return {"memory": f"{size * pages / 2**30:.1f} GiB, {size * free / 2**30:.1f} GiB unused"}


def accelerators() -> dict[str, str]:
    """Return torch's threads, the GPU and which format trains faster; what does not import says why."""
    try:
        import torch

        from guidebook.training.trainer import bf16_is_fast
    except ImportError as error:
        return {"threads": f"torch or transformers does not import: {error}"}
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: training runs on the processor"
    chosen = "bfloat16" if bf16_is_fast() else "float32"
    return {
        "threads": threads_state(torch.get_num_threads(), cores()),
        "gpu": gpu,
        "bf16": f"{bf16_state(torch.cuda.is_available())}: train.dtype auto is {chosen}",
    }


def threads_state(threads: int, available: int) -> str:
    """Return torch's threads, and what to do where they do not fit the cores.

    >>> threads_state(2, 2), threads_state(1, 4)
    ('2', '1 of 4 cores: OMP_NUM_THREADS=4 trains faster')
    """
    if threads < available:
        return f"{threads} of {available} cores: OMP_NUM_THREADS={available} trains faster"
    return str(threads) if threads == available else f"{threads} on {available} cores: OMP_NUM_THREADS={available}"


def bf16_state(gpu: bool) -> str:
    """Return what is known of bf16 on the device that trains: the rates of the processor's race, if there was one."""
    from guidebook.training.precision import rates

    if gpu:
        return "as the GPU supports it"
    found = rates()
    if found is None:
        return "not in hardware"
    return f"one thread multiplies {found.bfloat16:,.0f} GFLOP/s in bf16, {found.float32:,.0f} in float32"


def extras() -> dict[str, str]:
    """Return for every extra of the package what it is for, and whether it is there or what installs it."""
    try:
        requirements = metadata.requires("guidebook") or []
    except metadata.PackageNotFoundError:
        return {"": "guidebook is not installed: pip install -e ."}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        match = re.match(r"\s*([\w.-]+)[^;]*;(.*)\bextra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and match[1].lower() != "guidebook" and is_wanted(match[2]):
            found.setdefault(match[3], []).append(match[1])
    return {extra: extra_state(extra, names) for extra, names in found.items()}


def is_wanted(marker: str) -> bool:
    """Return whether a requirement is one of this Python: "" or "python_version < '3.14' and".

    >>> is_wanted(" python_version < '3.0' and "), is_wanted(" ")
    (False, True)
    """
    bound = re.search(r"python_version\s*<\s*['\"](\d+)\.(\d+)['\"]", marker)
    return bound is None or sys.version_info < (int(bound[1]), int(bound[2]))


def extra_state(extra: str, names: list[str]) -> str:
    """Return what an extra is for, and that it is there, or what is missing of it and how to install it."""
    missing = [name for name in names if version_of(name).startswith("missing")]
    state = f"missing {', '.join(missing)}: pip install 'guidebook[{extra}]'" if missing else "complete"
    return f"{state} ({PURPOSES[extra]})" if extra in PURPOSES else state


def store() -> dict[str, str]:
    """Return where trained stages are kept, how large that is, and how much room is left on its disk."""
    from guidebook.data.cache import cache_root, require_cache
    from guidebook.errors import InputError

    try:
        root = require_cache()
    except InputError as error:
        return {"cache": str(error), "disk": f"{shutil.disk_usage(existing(cache_root())).free / 1e9:,.1f} GB free"}
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) if root.is_dir() else 0
    return {
        "cache": f"{root} ({size / 1e6:,.0f} MB); another folder: GUIDEBOOK_CACHE",
        "disk": f"{shutil.disk_usage(existing(root)).free / 1e9:,.1f} GB free",
    }


def existing(path: Path) -> Path:
    """Return the nearest folder above that exists."""
    while not path.exists():
        path = path.parent
    return path
