"""`--base`, for every command that loads a guidebook."""

from __future__ import annotations

from typing import Annotated

import typer

BasePlace = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="FOLDER",
        help="The guidebook's base, where it is not in the folder it was in; its weights must be the same.",
        show_default=False,
    ),
]
