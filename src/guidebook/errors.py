"""The one exception tree: what was found, what was expected, what to do, and the place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


class GuidebookError(Exception):
    """Anything guidebook raises on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(GuidebookError):
    """The input is wrong: data, recipe, names, a missing package. Nothing was changed."""

    exit_code = 2


class LabelError(InputError):
    """The labels of a file cannot be read; its texts can."""


class RunError(GuidebookError):
    """The run failed on its own, such as by a loss that is not finite. The last complete checkpoint is kept."""


class MachineError(RunError):
    """The machine failed the run, which says nothing about what was run: a full disk, a lock that stays held."""


class OutOfMemory(MachineError):  # noqa: N818  # as torch and Python call it
    """There was too little memory, now and here."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name most like `name`, or "".

    >>> nearest("housby", ["houlsby", "lora"])
    " Did you mean 'houlsby'?"
    """
    found = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or its type where it has none.

    >>> first_line(ValueError("bad\nvery bad")), first_line(KeyError())
    ('bad', 'KeyError')
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Return an optional module, imported.

    Args:
        module: Its name.
        extra: The package's extra that brings it.
        purpose: What needs it, as the start of a sentence.

    Raises:
        InputError: it is not installed; the message holds the command that installs it.

    >>> require("json", "files", "This example").__name__
    'json'
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f"{purpose} needs the package {package}, which is not installed ({error}). "
            f"Install it: pip install 'guidebook[{extra}]'"
        ) from error
