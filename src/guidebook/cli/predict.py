"""`guidebook predict`: texts in, one JSON line per text out."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from guidebook.cli.console import Terminal, remark
from guidebook.cli.moved_base import BasePlace
from guidebook.errors import InputError
from guidebook.folders import check_free

if TYPE_CHECKING:
    from guidebook.artifact import Guidebook
    from guidebook.caution import Caution
    from guidebook.data.domains import Domain
    from guidebook.data.read import Table

ONLY = "auto"  # the only target or variant there is; several are an error that lists them
FIELDS = {"line", "label", "probabilities", "unlike"}
"""What stands in a line of predictions."""
ROWS_AT_ONCE = 1024  # lines appear, and the bar moves, this many rows at a time


def predict(
    book: Annotated[Path, typer.Argument(metavar="BOOK", help="Folder of a guidebook.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE|-", help="A file, a folder of files, or hf:OWNER/NAME; - is stdin.")
    ] = Path("-"),
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="key=value",
            help="Fields of the domain as in a recipe: columns.text=review where.stars=5.",
            show_default=False,
        ),
    ] = None,
    *,
    domain: Annotated[
        str | None, typer.Option(help="Which target's guidebook answers; source_only is the twin.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the lines to this new file instead of stdout.", show_default=False)
    ] = None,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard",
            help="Let the twin answer where `audit` found it better, or, without an audit, where the adapted model "
            "tells less about the target's rows.",
        ),
    ] = False,
    prior: Annotated[
        str | None,
        typer.Option(help="Correct for class shares: estimated, or 0.1,0.9 in the labels' order.", show_default=False),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(help="No label for rows stranger than all but this share of known ones.", show_default=False),
    ] = None,
    base: BasePlace = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Label texts: JSON lines with the input's line, the label, and the probability of every label.

    Stdin holds one text per line, or one JSON object per line.

    [bold]guidebook predict runs/kitchen reviews.csv --out labels.jsonl[/]

    [bold]echo "The pan warped after two weeks." | guidebook predict runs/kitchen[/]
    """
    if out is not None:
        check_free(out, is_ours=is_predictions)
    with Terminal(quiet) as listener:
        listener.start("loading the guidebook", None)
        from guidebook.artifact import load

        loaded = load(book, base=base)
        listener.finish("loading the guidebook")
        table = read_rows(file, words or (), tagged=loaded.words)
        if table.empty and not quiet:
            remark(f"{table.path}: {table.empty} rows without text are left out.")
        answer = None
        if guard or prior is not None or abstain is not None:
            from guidebook.caution import caution

            answer, said = caution(loaded, domain or ONLY, prior=prior, abstain=abstain, guard=guard)
            if said and not quiet:
                remark(said)
        listener.start("predicting", len(table.texts))
        with destination(out) as stream:
            for first, lines in predicted(loaded, table, domain or ONLY, answer):
                stream.writelines(lines)
                stream.flush()
                listener.advance("predicting", first + len(lines))
        listener.finish("predicting")


def predicted(
    book: Guidebook, table: Table, domain: str, careful: Caution | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the first row and the JSON lines of every slice of the rows."""
    for first in range(0, len(table.texts), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        pairs = table.text_pairs[rows] if table.text_pairs is not None else None
        strange = None
        if careful is not None:
            probabilities, strange = careful(table.texts[rows], pairs)  # (B, C), (B,)
        else:
            probabilities = book.predict_proba(table.texts[rows], text_pairs=pairs, domain=domain)  # (B, C)
        if book.words:
            tagged = zip(table.lines[rows], table.texts[rows], probabilities, strict=True)
            yield first, [_tagged(*row, book.labels) for row in tagged]
            continue
        lines = []
        for index, (line, row) in enumerate(zip(table.lines[rows], probabilities.tolist(), strict=True)):
            answer: dict[str, Any] = {
                "line": line,
                "label": book.labels[row.index(max(row))],
                "probabilities": {name: round(value, 6) for name, value in zip(book.labels, row, strict=True)},
            }
            if careful is not None and strange is not None:
                answer["unlike"] = round(float(strange[index]), 4)
                answer["label"] = None if careful.leaves_out(strange[index]) else answer["label"]
            lines.append(json.dumps(answer, ensure_ascii=False) + "\n")
        yield first, lines


def _tagged(line: int, text: str, probabilities: Any, names: Sequence[str]) -> str:
    """Return the JSON line of a row of words: the words, a tag for each, and how sure it is."""
    answer = {
        "line": line,
        "words": text.split(" "),
        "tags": [names[index] for index in probabilities.argmax(1)],
        "confidence": [round(float(value), 6) for value in probabilities.max(1)],
    }
    return json.dumps(answer, ensure_ascii=False) + "\n"


def domain_of(file: Path, words: Sequence[str]) -> Domain:
    """Return the domain that a file and `key=value` words describe, as in a recipe.

    Raises:
        InputError: a word is not of the form key=value, or names no field of a domain.
    """
    import yaml

    from guidebook.data.domains import domain_from

    content: dict[str, Any] = {"path": str(file)}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign:
            raise InputError(f"{word!r} is not of the form key=value, such as columns.text=review or where.stars=5.")
        *path, last = key.split(".")
        place = content
        for part in path:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InputError(f"{word!r}: {part} is {inner!r}, which has no fields. Give it as a whole: {part}=…")
            place = inner
        try:
            place[last] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{word!r}: {text!r} is not a YAML value.") from error
    return domain_from(content)


def read_rows(file: Path, words: Sequence[str], *, tagged: bool = False) -> Table:
    """Return the rows of a file, or of stdin for "-"; `tagged`: rows are words."""
    from guidebook.data.read import read_table

    if str(file) != "-":
        domain = domain_of(file, words)
        return read_table(Path(str(domain.path)), domain.columns, domain.where, labels=False, words=tagged)
    if sys.stdin.isatty():
        remark("Reading texts from the terminal, one per line; end with Ctrl-D.")
    content = sys.stdin.buffer.read()
    if _has_header(content):
        remark(
            "Stdin begins as a CSV file does, and is read as one text per line, its header too. Save it as a .csv file "
            "and name that, or give one text or one JSON object per line."
        )
    suffix = ".jsonl" if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else ".txt"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"stdin{suffix}"
        path.write_bytes(content)
        domain = domain_of(path, words)
        try:
            return read_table(path, domain.columns, domain.where, labels=False, words=tagged)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "stdin")) from error


def is_predictions(path: Path) -> bool:
    """Whether every line of a file is one that `predict` wrote for a text, with the label that it gave it."""
    try:
        with path.open(encoding="utf8") as stream:
            for line in stream:
                entry = json.loads(line)
                chances = entry["probabilities"]
                best = max(chances.values())
                if not entry.keys() <= FIELDS or (entry["label"] is not None and chances[entry["label"]] != best):
                    return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _has_header(content: bytes) -> bool:
    """Return whether the first line names columns as tables do, one of them as a column of texts or labels."""
    from guidebook.data.columns import ALIASES, plain
    from guidebook.data.readers.separated import SEPARATORS, SPREADSHEET

    line = content.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].decode("utf8", "replace").strip()
    if SPREADSHEET.fullmatch(line):
        return True
    mark = next((mark for mark in SEPARATORS if mark in line), None)
    names = [plain(cell.strip(' "')) for cell in (line.split(mark) if mark else [line])]
    known = [name for name in names if name in ALIASES]
    return bool(known) and (len(names) == 1 or all(len(name) <= 40 for name in names))


@contextmanager
def destination(out: Path | None) -> Iterator[IO[str]]:
    """Open a new file for the lines; it takes its name only when all are written. None: stdout.

    Raises:
        InputError: the path is taken, or cannot be written.
    """
    if out is None:
        yield sys.stdout
        return
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf8") as stream:
            yield stream
        temporary.replace(check_free(out, is_ours=is_predictions))
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
