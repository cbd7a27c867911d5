"""`guidebook import-adapterhub` and `export-adapterhub`: adapters of AdapterHub's package, to ours and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guidebook.cli.console import remark


def import_adapterhub(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What AdapterHub's `save_adapter` wrote.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New folder for the adapter in PEFT's layout.")],
) -> None:
    """Turn an adapter of AdapterHub's package into one of guidebook's.

    Bottleneck and invertible adapters; heads stay behind. It loads on the same base with plain PEFT after
    `import guidebook.peft`.

    [bold]guidebook import-adapterhub downloads/sst2 --out adapters/sst2[/]
    """
    from guidebook.adapters.adapterhub import import_adapterhub as convert

    remark(f"{out}: an adapter of kind {convert(folder, out)}.")


def export_adapterhub(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An adapter: runs/kitchen/adapters/domain.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New folder for the adapter in AdapterHub's layout.")],
    name: Annotated[str, typer.Option("--name", help="What the adapter is called there.")] = "guidebook",
) -> None:
    """Turn an adapter of guidebook's into one that AdapterHub's package loads.

    Bottleneck adapters, alone or together with invertible ones. `model.load_adapter(folder, use_safetensors=True)`
    reads it.

    [bold]guidebook export-adapterhub runs/kitchen/adapters/domain --out kitchen[/]
    """
    from guidebook.adapters.adapterhub import export_adapterhub as convert

    remark(f"{convert(folder, out, name)}: load it with use_safetensors=True.")
