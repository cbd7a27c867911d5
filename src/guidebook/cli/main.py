"""The command `guidebook`: its sub-commands, and what happens when one fails."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from guidebook import __version__
from guidebook.cli.adapt import adapt
from guidebook.cli.adapterhub import export_adapterhub, import_adapterhub
from guidebook.cli.audit import audit
from guidebook.cli.bases import bases
from guidebook.cli.compare import compare
from guidebook.cli.console import fail, hear_fetching, print_text, quiet_libraries, remark
from guidebook.cli.doctor import doctor
from guidebook.cli.evaluate import evaluate
from guidebook.cli.generate import generate
from guidebook.cli.inspect import inspect
from guidebook.cli.jumpstart import jumpstart
from guidebook.cli.listing import ls
from guidebook.cli.predict import predict
from guidebook.cli.recipe import recipe
from guidebook.cli.report import report
from guidebook.errors import GuidebookError
from guidebook.threads import wait_asleep

INTERRUPTED = 130

app = typer.Typer(
    name="guidebook",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("adapt")(adapt)
app.command("predict")(predict)
app.command("generate")(generate)
app.command("evaluate")(evaluate)
app.command("compare")(compare)
app.command("report")(report)
app.command("audit")(audit)
app.command("inspect")(inspect)
app.command("ls")(ls)
app.command("doctor")(doctor)
app.command("import-adapterhub")(import_adapterhub)
app.command("export-adapterhub")(export_adapterhub)
app.add_typer(bases, name="bases")
app.add_typer(recipe, name="recipe")
recipe.command("jumpstart")(jumpstart)


def _show_version(asked: bool) -> None:
    if asked:
        print_text(f"guidebook {__version__}")
        raise typer.Exit


@app.callback()
def guidebook(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hand a frozen language model a small book for a new place.

    Labelled text in one domain, only raw text in others: guidebook trains
    an adapter of a few megabytes per domain and leaves the model untouched.

    A first run: [bold]guidebook adapt examples/quickstart.yaml[/]
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 the run failed, 2 the input is wrong, 130 stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    quiet_libraries()
    wait_asleep()
    hear_fetching(quiet="--quiet" in given or "-q" in given)
    try:
        app(args=given, prog_name="guidebook")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        if code == INTERRUPTED:
            again = " The same command goes on from where it was." if given[:1] in (["adapt"], ["compare"]) else ""
            remark(f"Stopped.{again}")
        return code
    except GuidebookError as error:
        fail(str(error))
        return error.exit_code
    except Exception:
        traceback.print_exc()
        remark(
            "This is a mistake in guidebook. Please report it with the lines above and what `guidebook doctor` prints."
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
