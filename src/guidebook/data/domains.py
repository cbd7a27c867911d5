"""Domains and their rows. A target's labels are taken away here, in `HiddenLabels`, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from guidebook.data.describe import describe
from guidebook.data.fingerprints import hash_texts, text_keys
from guidebook.data.labels import LabelSet
from guidebook.data.read import Columns, Table, read_table, stem
from guidebook.errors import InputError, RunError, nearest

__all__ = [
    "Domain",
    "HiddenLabels",
    "LabelSet",
    "Population",
    "describe",
    "domain_from",
    "load_source",
    "load_sources",
    "load_target",
    "load_text",
    "select_rows",
    "split_rows",
]

PURPOSES = ("final evaluation", "oracle")


@dataclass(frozen=True)
class Domain:
    """A named population of texts, in memory or in a file.

    >>> Domain("kitchen", ["the pan warped", "it boils fast"]).name
    'kitchen'
    """

    name: str
    """Name of the domain in reports and in `predict(domain=…)`."""
    texts: Sequence[str] | None = None
    """The texts, if they are in memory."""
    text_pairs: Sequence[str] | None = None
    """Second texts, for tasks on pairs."""
    labels: Sequence[object] | None = None
    """Labels; those of a target are only read by the final evaluation."""
    path: str | None = None
    """The file, if the texts are in one: .csv, .jsonl or .txt, plain or .gz, .xz."""
    where: Mapping[str, object] = field(default_factory=dict)
    """Keep only the rows of the file whose column has this value, or one of these."""
    columns: Columns = Columns()
    """Names of the file's columns; those not named are found by alias."""
    test: Domain | None = None
    """Other rows of the domain for the final evaluation; without it the domain's own rows are evaluated."""


def domain_from(value: str | Path | Mapping[str, Any] | Domain, default_name: str | None = None) -> Domain:
    """Return the domain that a path or a mapping of its fields stands for; its name defaults to the file's stem.

    A `test` without a path is in the same file, and its `where` is added to the domain's own.

    Raises:
        InputError: an unknown field, both or neither of texts and path, columns of unequal length.

    >>> domain_from("data/books.csv.gz")
    Domain(name='books', texts=None, text_pairs=None, labels=None, path='data/books.csv.gz', where={}, \
columns=Columns(text=None, text_pair=None, label=None), test=None)
    """
    if isinstance(value, Domain):
        domain = value
    elif isinstance(value, str | Path):
        domain = Domain(stem(Path(value)), path=str(value))
    elif isinstance(value, Mapping):
        domain = _from_mapping(value, default_name)
    else:
        raise InputError(f"{value!r} is not a domain. Give a path, a mapping with `path:`, or a guidebook.Domain.")
    _refuse_wrong_fields(domain)
    return domain


def _from_mapping(value: Mapping[str, Any], default_name: str | None) -> Domain:
    fields = _strict(value, Domain, "a domain")
    if fields.get("path") is not None:
        fields["path"] = str(fields["path"])
    file_name = stem(Path(fields["path"])) if fields.get("path") else None
    name = fields.get("name") or file_name or default_name
    if name is None:
        raise InputError(f"a domain with {', '.join(fields) or 'no fields'} has no name. Add `name:`.")
    fields["name"] = str(name)
    if isinstance(fields.get("columns"), Mapping):
        fields["columns"] = Columns(**_strict(fields["columns"], Columns, f"columns of {name!r}"))
    test = fields.get("test")
    if isinstance(test, str | Path):
        test = {"path": test}
    if isinstance(test, Mapping):
        inherited: dict[str, Any] = {"name": f"{name} test", "columns": fields.get("columns", Columns())}
        if "path" not in test and "texts" not in test:
            both = {**(fields.get("where") or {}), **(test.get("where") or {})}
            inherited |= {"path": fields.get("path"), "where": both}
            test = {key: item for key, item in test.items() if key != "where"}
        fields["test"] = domain_from({**inherited, **test})
    return Domain(**{key: item for key, item in fields.items() if item is not None})


def _strict(value: Mapping[str, Any], kind: type, what: str) -> dict[str, Any]:
    known = [item.name for item in dataclasses.fields(kind)]
    for key in value:
        if key not in known:
            raise InputError(f"unknown key {key!r} in {what}.{nearest(str(key), known)} Known: {', '.join(known)}.")
    return dict(value)


def _refuse_wrong_fields(domain: Domain) -> None:
    place = f"domain {domain.name!r}"
    if (domain.texts is None) == (domain.path is None):
        found = "neither texts nor a path" if domain.texts is None else "both texts and a path"
        raise InputError(f"{place}: {found}, expected one of them. Give a file under path, or texts in memory.")
    if not isinstance(domain.where, Mapping) or not isinstance(domain.columns, Columns):
        raise InputError(f"{place}: where and columns are mappings, for example where: {{split: train}}. Correct them.")
    if domain.texts is None:
        if domain.labels is not None or domain.text_pairs is not None:
            raise InputError(f"{place}: labels or text_pairs in memory beside a path. Name them under columns instead.")
        return
    if isinstance(domain.texts, str):
        raise InputError(f"{place}: texts is one string, expected a list of texts. For a file write path=.")
    if domain.where or domain.columns != Columns():
        raise InputError(f"{place}: where and columns choose from a file, but the texts are in memory. Leave them out.")
    for name, column in (("text_pairs", domain.text_pairs), ("labels", domain.labels)):
        if column is not None and len(column) != len(domain.texts):
            raise InputError(f"{place}: {len(column):,} {name} for {len(domain.texts):,} texts. Give one per text.")
    if domain.test is not None:
        _refuse_wrong_fields(domain.test)


class HiddenLabels:
    """Labels of a target that only `reveal` reads.

    They cannot be iterated, indexed, counted, printed, copied or pickled, and their values are not looked at before.

    Attributes:
        reveals: The purpose of every reveal so far.
    """

    __slots__ = ("_read", "reveals")

    def __init__(self, labels: Sequence[object], rows: Sequence[int] | None = None) -> None:
        """Hide labels; `rows` are the positions of those that belong to kept rows (None: all)."""

        def read() -> list[object]:
            values = list(labels)
            return values if rows is None else [values[row] for row in rows]

        self._read: Callable[[], list[object]] = read
        self.reveals: list[str] = []

    def reveal(self, purpose: str) -> list[object]:
        """Return the raw labels, one per row, and note why they were read.

        Raises:
            RunError: the purpose is not "final evaluation" or "oracle".
        """
        if purpose not in PURPOSES:
            raise RunError(f"target labels were asked for {purpose!r}, expected one of {list(PURPOSES)}. Train without them.")
        self.reveals.append(purpose)
        return self._read()

    def take(self, rows: Sequence[int]) -> HiddenLabels:
        """Return the hidden labels of some rows; reveals are noted in the same list."""
        taken = HiddenLabels((), rows)
        read = self._read
        taken._read = lambda: [values[row] for values in [read()] for row in rows]
        taken.reveals = self.reveals
        return taken

    def __repr__(self) -> str:
        return f"HiddenLabels(reveals={self.reveals!r})"

    def _refuse(self, *_: object) -> NoReturn:
        raise RunError('target labels are hidden: they cannot be copied, pickled or read but by reveal("final evaluation").')

    __iter__ = __getitem__ = __len__ = __contains__ = __array__ = _refuse
    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _refuse  # type: ignore[assignment]
    __bool__ = lambda self: True  # noqa: E731
