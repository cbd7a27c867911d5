"""Guidebooks on the Hugging Face Hub: one small file is asked for first, then only what predicting needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guidebook.artifact_schema import FACTS, read_facts
from guidebook.errors import InputError

NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
OLD_FILES = ["*.safetensors", "adapters/*", "source_only/*"]
"""What a guidebook from before its files were listed may hold."""


def is_name(item: str) -> bool:
    """Return whether a text may name a repository of the Hub, with a revision or without.

    >>> is_name("ann/kitchen"), is_name("ann/kitchen@v1"), is_name("./kitchen"), is_name("runs/a/b")
    (True, True, False, False)
    """
    return NAME.fullmatch(item) is not None


def fetch(item: str, *, maybe_base: bool = False) -> Path | None:
    """Return the local copy of a guidebook on the Hub.

    Args:
        item: "owner/name", or "owner/name@revision".
        maybe_base: The repository may be a base: then None is returned where it holds no guidebook, and where the Hub
            cannot be asked; loading the base says what is wrong.

    Raises:
        InputError: no such repository or revision, one that is private, gated, gone or of another kind, one without
            a guidebook, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    match = NAME.fullmatch(item)
    assert match is not None
    repo, revision = match["repo"], match["revision"]
    with _clear(item):
        try:
            place = Path(hf_hub_download(repo, FACTS, revision=revision))
        except LocalEntryNotFoundError:
            if maybe_base:
                return None
            raise
        except EntryNotFoundError as error:
            if maybe_base:
                return None
            raise InputError(
                f"{item}: the repository on the Hub is not a guidebook: it has no {FACTS}. If it is a base, name it "
                "before the guidebook: load(base, guidebook)."
            ) from error
        files = read_facts(place).get("files")
        wanted = [FACTS, "audit.json", *(files if files is not None else OLD_FILES)]
        commit = place.parent.name  # the branch may move on between the two
        return Path(snapshot_download(repo, revision=commit, allow_patterns=[_literal(name) for name in wanted]))


def _literal(name: str) -> str:
    """Return a pattern that matches a file's name alone, unless it is one of OLD_FILES.

    >>> _literal("adapters/task-[1]/a.safetensors")
    'adapters/task-[[]1]/a.safetensors'
    """
    return name if name in OLD_FILES else re.sub(r"([\[*?])", r"[\1]", name)


@contextmanager
def _clear(item: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one clear error each."""
    from huggingface_hub import errors

    where = f"{item}: there is no such folder here, and on the Hub"
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{item}: its owner on the Hub wants conditions to be accepted first. Accept them on its page, then log "
            "in: hf auth login."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{where} {_missing(item)}") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{item}: the repository on the Hub has no such revision (or nothing in it yet). Name a branch, a tag or a "
            "commit of it after the @."
        ) from error
    except errors.DisabledRepoError as error:
        raise InputError(f"{item}: the Hub has disabled access to this repository. Ask its owner.") from error
    except errors.HFValidationError as error:
        raise InputError(f"{where} no repository can have that name. Correct it.") from error
    except Exception as error:  # of the connection, of a proxy's answer, of the cache: nothing of ours is in here
        status = _status(error)
        raise InputError(_unreachable(item, error) if status is None else _refused(item, status)) from error


def _missing(item: str) -> str:
    """Return that a repository is missing, is private or is of another kind; the Hub tells only the last apart."""
    from huggingface_hub import HfApi

    for kind in ("dataset", "space"):
        try:
            if HfApi().repo_exists(item.partition("@")[0], repo_type=kind):
                return f"that name belongs to a {kind}, not to a guidebook. Name a repository with a {FACTS}."
        except Exception:
            continue
    return "no repository of that name can be seen: it does not exist, or it is private. Correct it, or: hf auth login."


def _unreachable(item: str, error: BaseException) -> str:
    cause = error.__cause__ or error
    why = str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
    return (
        f"{item}: there is no such folder here, and the Hub cannot be reached ({why}), nor is a copy kept from before. "
        "Go online (HF_HUB_OFFLINE unset), or name a folder."
    )


def _status(error: BaseException | None) -> int | None:
    """Return the status of the Hub's answer; the client hides it behind an error of its cache."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _refused(item: str, status: int) -> str:
    advice = {
        401: "The login is not valid (any more). Log in: hf auth login.",
        403: "This login may not read it. Ask its owner, or log in as someone else: hf auth login.",
        410: "It is gone. Ask its owner where it is now.",
        429: "The Hub has had too many requests from here. Wait a while, or log in: hf auth login.",
    }.get(status, "Try again later.")
    return f"{item}: the Hub refuses it (status {status}). {advice}"
