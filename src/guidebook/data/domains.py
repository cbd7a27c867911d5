"""Domains and how their rows are loaded; a target's labels are taken away here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from guidebook.data.columns import Columns
from guidebook.data.describe import describe
from guidebook.data.files import bare_suffix
from guidebook.data.fingerprints import hash_texts
from guidebook.data.hub import HUB
from guidebook.data.in_memory import BROKEN, column_of, is_broken, is_missing
from guidebook.data.labels import MINUS_ONE, LabelSet
from guidebook.data.population import HiddenLabels, Population, select_rows, split_rows
from guidebook.data.read import Table, read_table, stem
from guidebook.data.readers import READERS
from guidebook.data.tags import TagSet, check_lengths, words_of
from guidebook.errors import InputError, LabelError, nearest

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
    "require_source",
    "select_rows",
    "split_rows",
]

LONGEST_NAME = 255  # bytes of a file's name, at most, wherever there is a file system
ENDS = tuple(".!?…。！？")
"""How sentences end and names of files do not."""


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
    """The file, the folder of files, or hf:OWNER/NAME[/CONFIG][:SPLIT], if the texts are in one."""
    where: Mapping[str, object] = field(default_factory=dict)
    """Keep only the rows of the file whose column has this value, or one of these."""
    columns: Columns = field(default_factory=Columns)
    """Names of the file's columns; those not named are found by alias."""
    test: Domain | None = None
    """Other rows of the domain for the final evaluation; without it the domain's own rows are evaluated."""

    def __post_init__(self) -> None:
        """Take columns of data frames, arrays and generators for the lists that they are.

        Raises:
            InputError: a table or a mapping where a column is expected.
        """
        for name in ("texts", "text_pairs", "labels"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, column_of(values, f"domain {self.name!r}: {name}"))


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
        _refuse_text_for_path(str(value))
        domain = Domain(stem(Path(value)), path=str(value))
    elif isinstance(value, Mapping):
        domain = _from_mapping(value, default_name)
    else:
        raise InputError(f"{value!r} is not a domain. Give a path, a mapping with `path:`, or a guidebook.Domain.")
    _refuse_wrong_fields(domain)
    return domain


def _refuse_text_for_path(value: str) -> None:
    """Raise InputError where a text stands in the place of a path to texts."""
    if value.startswith(HUB) or bare_suffix(Path(value)) in READERS or os.path.exists(value):
        return
    if len(value.split()) > 1 or len(value) > LONGEST_NAME or value[-1:] in ENDS:
        shown = value if len(value) <= 40 else f"{value[:40]}…"
        raise InputError(
            f"{shown!r} is neither a file nor a folder. Name one; texts in memory are a domain: "
            "Domain('kitchen', texts), or {name: kitchen, texts: […]}."
        )


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
    if domain.where or domain.columns != Columns():
        raise InputError(f"{place}: where and columns choose from a file, but the texts are in memory. Leave them out.")
    for name, column in (("text_pairs", domain.text_pairs), ("labels", domain.labels)):
        if column is not None and len(column) != len(domain.texts):
            raise InputError(f"{place}: {len(column):,} {name} for {len(domain.texts):,} texts. Give one per text.")
    if domain.test is not None:
        _refuse_wrong_fields(domain.test)


def require_source(sources: Sequence[Domain], place: str = "") -> None:
    """Raise InputError where no labelled domain is named; `place` stands before the message."""
    if not sources:
        raise InputError(
            f"{place}the recipe has no source. Name labelled data: `source: books.csv` or --source books.csv."
        )


def load_source(domain: Domain, declared_labels: Sequence[object] | None = None) -> tuple[Population, LabelSet]:
    """Return the labelled rows of a source and its classes; rows without a label are dropped and counted.

    Raises:
        InputError: what `read_table` refuses, no labels, fewer than two classes, a label that was not declared.
    """
    populations, labels = load_sources([domain], declared_labels)
    assert isinstance(labels, LabelSet)
    return populations[0], labels


def load_sources(
    domains: Sequence[Domain], declared_labels: Sequence[object] | None = None, *, words: bool = False
) -> tuple[list[Population], LabelSet | TagSet]:
    """Return the labelled rows of several sources and the classes they share; with `words`, tags of words."""
    kind = TagSet if words else LabelSet
    tables = [_read(domain, words=words) for domain in domains]
    raw = [_source_labels(domain, table) for domain, table in zip(domains, tables, strict=True)]
    places = [table.path or f"domain {domain.name!r}" for domain, table in zip(domains, tables, strict=True)]
    if declared_labels is not None:
        for table, labels, place in zip(tables, raw, places, strict=True):
            kind.from_raw(labels, declared_labels, place, lines=table.lines, unit=table.unit)
    together = [label for labels in raw for label in labels]
    label_set = kind.from_raw(together, declared_labels, " + ".join(places))
    populations = [_population(domain, table, "source") for domain, table in zip(domains, tables, strict=True)]
    return [_labelled(*each, label_set) for each in zip(populations, raw, strict=True)], label_set


def load_target(domain: Domain, *, words: bool = False, labels_needed: bool = False) -> Population:
    """Return the rows of a target; its labels, if it has any, go into `HiddenLabels` unread.

    Where nobody named a label column and those that are found cannot be read, the target has no labels, and its
    `note` says why; with `labels_needed` that is an error.
    """
    try:
        return _population(domain, _read(domain, words=words), "target")
    except LabelError as error:
        if labels_needed or domain.columns.label is not None:
            raise
        found = _population(domain, _read(domain, labels=False, words=words), "target")
        return dataclasses.replace(found, note=f"it is read without labels, so nothing is scored on it: {error}")


def load_text(domain: Domain, role: str, *, words: bool = False, documents: bool = False) -> Population:
    """Return the rows of a domain as text only: its label column is not even looked for."""
    return _population(domain, _read(domain, labels=False, words=words, documents=documents), role)


def _read(domain: Domain, *, labels: bool = True, words: bool = False, documents: bool = False) -> Table:
    table = _table(domain, labels=labels, words=words, documents=documents)
    if words and labels:
        raw = table.labels if domain.labels is None else _in_rows(domain.labels, table)
        place = f"{table.path or f'domain {domain.name!r}'} {table.unit}"
        check_lengths(table.texts, raw or [None] * len(table.texts), place, table.lines)
    return table


def _table(domain: Domain, *, labels: bool, words: bool, documents: bool) -> Table:
    _refuse_wrong_fields(domain)
    if domain.path is not None:
        kind = {"labels": labels, "words": words, "documents": documents}
        return read_table(Path(domain.path), domain.columns, domain.where, **kind)
    texts = _as_texts(domain) if words else list(cast(Sequence[str], domain.texts))
    pairs = None if domain.text_pairs is None else list(domain.text_pairs)
    empty = [_is_empty(text) or (pairs is not None and _is_empty(pairs[row])) for row, text in enumerate(texts)]
    kept = [row for row, is_empty in enumerate(empty) if not is_empty]
    for row in kept:
        for text in (texts[row], pairs[row]) if pairs is not None else (texts[row],):
            if not isinstance(text, str):
                raise InputError(
                    f"domain {domain.name!r} row {row + 1}: {text!r} is not a string. Give texts as strings."
                )
            if is_broken(text):
                raise InputError(f"domain {domain.name!r} row {row + 1}: the text {BROKEN}")
    if not kept:
        raise InputError(f"domain {domain.name!r}: no texts in {len(texts):,} rows. Give at least one text.")
    return Table(
        texts=[texts[row] for row in kept],
        text_pairs=None if pairs is None else [pairs[row] for row in kept],
        labels=None,  # in memory they stay with the domain: a target's are not read here
        lines=[row + 1 for row in kept],
        columns=Columns(),
        path="",
        unit="row",
        empty=len(texts) - len(kept),
    )


def _as_texts(domain: Domain) -> list[str]:
    """Return rows of words as texts, words divided by single spaces."""
    found = []
    for row, value in enumerate(cast(Sequence[str], domain.texts), 1):
        try:
            found.append(" ".join(() if is_missing(value) else words_of(value)))
        except InputError as error:
            raise InputError(f"domain {domain.name!r} row {row}: {error} Give a list of words, or a text.") from error
    return found


def _is_empty(text: object) -> bool:
    """Whether a text in memory is missing or blank."""
    return not text.strip() if isinstance(text, str) else is_missing(text)


def _in_rows(labels: Sequence[object], table: Table) -> list[object]:
    """Return the labels in memory that belong to the rows of a table."""
    values = list(labels)
    return [values[line - 1] for line in table.lines]


def _source_labels(domain: Domain, table: Table) -> list[object]:
    if domain.labels is not None:
        return _in_rows(domain.labels, table)
    if table.labels is not None:
        return table.labels
    if not table.path:
        raise InputError(f"domain {domain.name!r}: a source needs labels. Give labels=, one per text.")
    if table.columns.label is not None:
        raise InputError(
            f"{table.path}: the label column {table.columns.label!r} holds no value. A source needs labels."
        )
    raise InputError(
        f"{table.path}: a source needs labels, but none of the columns ({', '.join(table.names)}) is known to hold "
        "them (label, stars, rating, sentiment, …). Name it: columns: {label: NAME}."
    )


def _population(domain: Domain, table: Table, role: str) -> Population:
    hidden = None
    if role == "target" and table.labels is not None:
        hidden = HiddenLabels(table.labels)
    elif role == "target" and domain.labels is not None:
        hidden = HiddenLabels(domain.labels, [line - 1 for line in table.lines])
    return Population(
        name=domain.name,
        role=role,
        texts=table.texts,
        text_pairs=table.text_pairs,
        labels=None,
        hidden=hidden,
        lines=table.lines,
        path=table.path,
        columns=table.columns,
        dropped={"empty text": table.empty} if table.empty else {},
        fingerprint=hash_texts(table.texts, table.text_pairs),
    )


def _labelled(population: Population, raw: Sequence[object], label_set: LabelSet | TagSet) -> Population:
    """Return the rows that have a label, or tags; why the others were dropped is counted."""
    ids = label_set.encode(raw)
    dropped = dict(population.dropped)
    if isinstance(label_set, TagSet):
        has_label = np.array([len(row) > 0 for row in ids], dtype=bool)
        reasons = {"no tags": int((~has_label).sum())}
    else:
        has_label = ids >= 0
        written = label_set.unknown(raw)  # what is left after undeclared labels were refused stands for "none"
        reasons = {"no label": int((~has_label).sum()) - sum(written.values())}
        reasons |= {_read_as_none(label, label_set.names): rows for label, rows in written.items()}
    dropped |= {why: rows for why, rows in reasons.items() if rows}
    full = dataclasses.replace(population, labels=ids, label_names=label_set.names, dropped=dropped)
    return select_rows(full, np.flatnonzero(has_label))


def _read_as_none(label: str, names: Sequence[str]) -> str:
    declared = ", ".join(sorted([label, *names], key=lambda name: name != MINUS_ONE))
    return f"the label {label} is read as none; task.labels: [{declared}] makes it a class"
