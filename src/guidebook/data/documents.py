"""Documents of raw text and which of them are held out: whole documents or whole groups of them, never blocks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guidebook.data.columns import Columns
from guidebook.data.corpus import Corpus
from guidebook.data.domains import Domain, LabelSet, Population, load_text, select_rows
from guidebook.data.files import bare_suffix
from guidebook.data.fingerprints import text_keys
from guidebook.data.folder import Numbers, readable_files
from guidebook.data.read import read_table
from guidebook.data.readers import COMPRESSED, READERS
from guidebook.errors import InputError


@dataclass(frozen=True)
class Split:
    """How documents are held out."""

    share: float = 0.2
    """Share of the documents, or of the groups, that are held out of a domain without rows of its own for that."""
    seed: int = 0
    """Decides which."""
    group: str | None = None
    """Column whose values stay together."""
    most_train: int | None = None
    """Documents to train on at most."""
    most_held_out: int | None = None
    """Held-out documents that are measured at most."""


def read_documents_corpus(targets: Sequence[Domain], general: Sequence[Domain], split: Split) -> Corpus:
    """Return the documents of every domain, those held out under its name in `tests`.

    Raises:
        InputError: a file is wrong, or a domain has nothing to hold out.
    """
    tests: dict[str, Population] = {}
    train: dict[str, list[Population]] = {"target": [], "general": []}
    for role, domains in (("target", targets), ("general", general)):
        for domain in domains:
            kept, tests[domain.name] = split_documents(domain, role, split)
            train[role].append(kept)
    return Corpus((), (), tuple(train["target"]), tests, (), tuple(train["general"]), LabelSet(()))


def split_documents(domain: Domain, role: str, split: Split) -> tuple[Population, Population]:
    """Return (trained on, held out) documents of a domain.

    A folder with a folder `train` in it holds one file there, or several .txt files, and the same in a folder
    `validation`, if it has one. Documents with the same text stand on the same side.

    Raises:
        InputError: see `read_documents_corpus`.
    """
    place = Path(domain.path) if domain.path is not None else None
    if place is not None and os.path.isdir(place):
        domain = in_folder(domain, place)
    documents, groups = read_documents(domain, role, split.group if role == "target" else None)
    if domain.test is not None:
        held, _ = read_documents(domain.test, role, None)
        return first_documents(documents, split.most_train, split.seed), first_documents(
            held, split.most_held_out, split.seed
        )
    outside = held_out(groups, split.share, split.seed)
    if not outside.any() or outside.all():
        kind = f"different value of {split.group!r}" if split.group and role == "target" else "document"
        raise InputError(
            f"{domain.path or domain.name}: {len(np.unique(groups))} {kind}(s), of which a share of {split.share} is "
            f"to be held out. Give more documents, another task.validation_split_ratio, or text of its own for that: a "
            f"folder validation/ beside train/, or test:."
        )
    rows = np.arange(len(groups))
    kept, held = select_rows(documents, rows[~outside]), select_rows(documents, rows[outside])
    return first_documents(kept, split.most_train, split.seed), first_documents(held, split.most_held_out, split.seed)


def held_out(groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which rows (N,) are held out: whole groups, the share of them rounded, but at least one and not all."""
    names = np.unique(groups)
    number = min(max(1, round(share * len(names))), len(names) - 1) if share > 0 else 0
    chosen = names[np.random.default_rng((seed, len(names))).permutation(len(names))[:number]]
    return np.isin(groups, chosen)


def read_documents(domain: Domain, role: str, group: str | None) -> tuple[Population, np.ndarray]:
    """Return a domain's documents and the group of each, (N,): the same number where documents must stay together.

    In a folder every plain text file is a document. In a single one documents are divided by blank lines; without a
    blank line every line is one. Of other files every row is one. Without a group column every text is its own group.
    """
    documents = load_text(dataclasses.replace(domain, test=None, labels=None), role, documents=True)
    if documents.text_pairs is not None:
        raise InputError(f"{documents.path or domain.name}: pairs of texts, expected single ones. Name columns.text.")
    documents = _divided(documents)
    if group is None:
        return documents, np.unique(text_keys(documents.texts), return_inverse=True)[1]
    if domain.path is None:
        if domain.labels is None:
            raise InputError(
                f"domain {domain.name!r}: task.group is {group!r}; texts in memory have theirs in labels=."
            )
        values: list[object] = [list(domain.labels)[line - 1] for line in documents.lines]
    else:
        if _is_text_file(domain.path):
            raise InputError(f"{domain.path}: a plain text file has no column {group!r} for task.group. Leave it out.")
        table = read_table(
            Path(domain.path), Columns(documents.columns.text, None, group), domain.where, documents=True
        )
        if table.labels is None:
            raise InputError(f"{domain.path}: the column {group!r} of task.group holds no value.")
        values = table.labels
    return documents, np.unique(np.array([str(value) for value in values]), return_inverse=True)[1]


def in_folder(domain: Domain, folder: Path) -> Domain:
    """Return the domain of a folder: its train files, its validation files as rows of their own; or its one file.

    Raises:
        InputError: train or validation holds no file, or several that are not all plain text.
    """
    train, validation = folder / "train", folder / "validation"
    if train.is_dir():
        test = domain.test
        if validation.is_dir() and test is None:
            test = Domain(f"{domain.name} validation", path=str(_part(validation)), columns=domain.columns)
        return dataclasses.replace(domain, path=str(_part(train)), test=test)
    files = readable_files(folder)
    return dataclasses.replace(domain, path=str(files[0])) if len(files) == 1 else domain


def _part(folder: Path) -> Path:
    """Return the one file of a folder, or the folder where several plain text files are a document each."""
    files = readable_files(folder)
    if len(files) > 1 and all(bare_suffix(path) == ".txt" for path in files):
        return folder
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:5]) or "none"
        raise InputError(
            f"{folder}: expected exactly one file ({', '.join(READERS)}, plain or with {', '.join(COMPRESSED)}), or "
            f"several .txt files with a document each; found {found}. Keep one."
        )
    return files[0]


def _is_text_file(path: str) -> bool:
    return bare_suffix(Path(path)) == ".txt" and os.path.isfile(path)


def _divided(rows: Population) -> Population:
    """Return the documents that rows make up, and what divides them: files, blank lines, lines, or rows."""
    if not rows.path or not _is_text_file(rows.path):
        files = rows.lines.whole_files if isinstance(rows.lines, Numbers) else 0
        kinds = [(files, "one per .txt file"), (len(rows.texts) - files, "one per row")]
        return dataclasses.replace(rows, division=", ".join(kind for count, kind in kinds if count))
    numbers = np.asarray(rows.lines)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) > 1)
    if len(starts) == 1:
        return dataclasses.replace(rows, division="one per line, for want of blank lines between them")
    ends = [*starts[1:].tolist(), len(rows.texts)]
    texts = ["\n".join(rows.texts[start:end]) for start, end in zip(starts.tolist(), ends, strict=True)]
    first = select_rows(rows, starts)
    whole = dataclasses.replace(first, texts=texts, dropped={}, division="divided by blank lines")
    return select_rows(whole, np.arange(len(texts)))  # hashed again


def first_documents(documents: Population, most: int | None, seed: int) -> Population:
    """Return at most so many documents, chosen by the seed, in their order."""
    if most is None or len(documents.texts) <= most:
        return documents
    chosen = np.random.default_rng((seed, len(documents.texts), 1)).permutation(len(documents.texts))[:most]
    return select_rows(documents, np.sort(chosen))
