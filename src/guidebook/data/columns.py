"""Which column holds the text, its pair and the label: as named, else by alias, never by guessing between two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from guidebook.errors import InputError, LabelError, nearest

PAIR_NAMES = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"),
    ("query", "passage"),
)
TEXT_NAMES = (
    *("text", "review", "sentence", "content", "body", "document", "tweet", "comment", "review_text", "review_body"),
    *("premise", "sentence1", "sentence_a", "text1", "text_a", "question1"),  # where the second text is missing
)
LABEL_NAMES = ("label", "labels", "stars", "rating", "sentiment", "target", "class", "category", "gold_label")
WORD_NAMES = ("tokens", "words")
TAG_NAMES = ("tags", "ner_tags", "pos_tags")
ALIASES = {*TEXT_NAMES, *LABEL_NAMES, *WORD_NAMES, *TAG_NAMES, *(name for pair in PAIR_NAMES for name in pair)}


@dataclass(frozen=True)
class Columns:
    """Names of a file's columns; None: found by alias, whatever the case, "Review Text" as "review_text"."""

    text: str | None = None
    """Column of the text. Naming it without `text_pair` means single texts."""
    text_pair: str | None = None
    """Column of the second text of a pair."""
    label: str | None = None
    """Column of the label."""


def choose_columns(
    columns: Columns,
    names: tuple[str, ...],
    path: Path,
    *,
    labels: bool = True,
    words: bool = False,
    documents: bool = False,
) -> Columns:
    """Return the columns of a file: those named, the others by alias; with `words`, of words and their tags.

    With `documents` there is always a text column: `text`, else the first that an alias knows, else the first.

    Raises:
        InputError: a named column is not there; no text column, or several candidates for a text or label column.
    """
    if words:
        columns = Columns(
            columns.text or next(iter(name for alias in WORD_NAMES for name in _like(alias, names)), None),
            None,
            columns.label or next(iter(name for alias in TAG_NAMES for name in _like(alias, names)), None),
        )
    if documents and columns.text is None:
        known = [name for name in names if plain(name) in TEXT_NAMES]
        exact = next((name for name in known if plain(name) == "text"), None)
        columns = replace(columns, text=exact or next(iter(known or names)))
    text, pair = _text_columns(columns, names, path)
    if not labels:
        return Columns(text, pair, None)
    if columns.label is not None:
        return Columns(text, pair, _named(columns.label, names, path, "label"))
    found = [name for name in names if plain(name) in LABEL_NAMES and name not in (text, pair)]
    if len(found) > 1:
        raise LabelError(_ambiguous(path, "label", [(name,) for name in found]))
    return Columns(text, pair, found[0] if found else None)


def _text_columns(columns: Columns, names: tuple[str, ...], path: Path) -> tuple[str, str | None]:
    if columns.text is not None:
        second = columns.text_pair and _named(columns.text_pair, names, path, "text_pair")
        return _named(columns.text, names, path, "text"), second
    pairs = [(a, b) for first, second in PAIR_NAMES for a in _like(first, names) for b in _like(second, names)]
    singles = [name for alias in TEXT_NAMES for name in _like(alias, names)]
    options: list[tuple[str, ...]]
    if columns.text_pair is not None:
        second = _named(columns.text_pair, names, path, "text_pair")
        firsts = [a for a, b in pairs if b == second] or [name for name in singles if name != second]
        options = [(first, second) for first in firsts]
    else:
        in_pairs = {name for pair in pairs for name in pair}
        options = [*pairs, *((name,) for name in singles if name not in in_pairs)]
    if len(options) > 1:
        raise InputError(_ambiguous(path, "text", options))
    if not options:
        raise InputError(_no_text(path, names))
    return options[0][0], options[0][1] if len(options[0]) > 1 else None


def plain(name: str) -> str:
    """Return a column's name as aliases are written.

    >>> plain(" Review Text")
    'review_text'
    """
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _like(alias: str, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if plain(name) == alias]


def _named(name: str, names: tuple[str, ...], path: Path, role: str) -> str:
    if name in names:
        return name
    found = _like(plain(name), names)
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{path}: there is no column {name!r} for columns.{role}.{nearest(name, names)} Columns: {', '.join(names)}."
    )


def _ambiguous(path: Path, role: str, options: list[tuple[str, ...]]) -> str:
    shown = ", ".join(" + ".join(option) for option in options)
    first = ", ".join(f"{key}: {name}" for key, name in zip((role, "text_pair"), options[0], strict=False))
    return f"{path}: several columns could be the {role}: {shown}. Name the one you mean: columns: {{{first}}}."


def _no_text(path: Path, names: tuple[str, ...]) -> str:
    hint = ""
    if any(len(name.split()) > 5 for name in names):
        hint = " The first line looks like data: add a header line such as text,label."
    shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}…" for name in names)
    return (
        f"{path}: none of the columns ({shown}) is known to hold the text (text, review, sentence, content, …).{hint} "
        "Name it: columns: {text: NAME}."
    )
