"""What the fuzz tests share: profiles, a bound on time, and files of every kind, right and wrong.

`FUZZ_PROFILE=fuzz` tries thousands of cases (`make fuzz`); else a few that are the same every time.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from guidebook.errors import InputError

SECONDS = 30
"""No case may take longer."""
_CHECKS = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True, "database": None}
settings.register_profile("quick", max_examples=30, derandomize=True, **_CHECKS)
settings.register_profile("fuzz", max_examples=1_450, **_CHECKS)  # seven tests: 10,000 cases
fuzzed = settings.get_profile(os.environ.get("FUZZ_PROFILE", "quick"))
"""Decorates every fuzz test."""


@contextmanager
def bounded() -> Iterator[None]:
    """End a case that hangs."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"a case took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or None where it refuses its input with a message; any other error is a defect."""
    with bounded():
        try:
            return call()
        except InputError as error:
            message = str(error)
    assert len(message) > 10
    return None


ODD = "\x00\t\r\n\x0b\x0c\x1c\x1e\x85\xa0\u2028\u2029\ufeff\u200b\u202e,;|\"'#{}[]:=\\\ud83d\ude00é漢"
"""Characters that formats, terminals or Python treat in ways of their own."""
WHOLE = ODD.replace("\ud83d\ude00", "😀")
words = st.text(st.sampled_from("abcde éß漢😀-_.0"), min_size=1, max_size=12)
odd_text = st.text(st.one_of(st.sampled_from(WHOLE), st.characters(codec="utf-8")), max_size=30)
huge_text = st.builds(lambda text, times: text * times, words, st.integers(5_000, 20_000))
texts = st.one_of(words, words, odd_text, huge_text)
labels = st.one_of(st.sampled_from(["pos", "neg", "1", "0", "1.10", "-1", "nan", "", "true", " pos "]), odd_text)
names = st.one_of(
    st.sampled_from(
        ["text", "label", "Review Text", "premise", "hypothesis", "tokens", "tags", "id", "", " ", "stars"]
    ),
    odd_text,
)
values = st.recursive(
    st.one_of(texts, labels, st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.just("\ud83d")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=4,
)


def separated(rows: list[list[str]], mark: str, end: str, quoting: int) -> str:
    """Return rows as CSV."""
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=mark, lineterminator=end, quoting=quoting).writerows(rows)
    return stream.getvalue()


@st.composite
def tables(draw: Any) -> tuple[str, str | bytes, int | None]:
    """(suffix, content, number of rows where it is known) of a file that may be right."""
    suffix = draw(st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".txt", ".conll", ".parquet"]))
    columns = draw(st.one_of(st.just(["text", "label"]), st.lists(names, min_size=1, max_size=4, unique=True)))
    count = draw(st.integers(0, 6))
    if suffix in (".csv", ".tsv"):
        rows = [[draw(texts if column else labels) for column in range(len(columns))] for _ in range(count)]
        first = draw(st.sampled_from(["", "", "", "sep=;\r\n", "\n", "\ufeff"]))
        if suffix == ".tsv":
            return suffix, first + "\n".join("\t".join(row) for row in [columns, *rows]), None
        mark, end = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        text = separated([columns, *rows], mark, end, quoting)
        known = count if columns == ["text", "label"] and mark != "|" and end != "\r" and not first else None
        return suffix, first + text, known
    if suffix == ".txt":
        lines = [draw(texts) for _ in range(count)]
        return suffix, "\n".join(lines), None
    if suffix == ".conll":
        mark = draw(st.sampled_from("\t "))
        lines = [draw(st.sampled_from(["", "# a", f"one{mark}O", f"two{mark}B-a", "x", f"{mark}O"])) for _ in range(9)]
        return suffix, "\n".join([*lines, draw(odd_text)]), None
    rows = [{column: draw(values) for column in columns} for _ in range(count)]
    if suffix == ".parquet":
        return suffix, parquet(draw, columns, count), count
    if suffix == ".jsonl":
        escaped = draw(st.booleans())
        return suffix, "\n".join(_json(row, escaped) for row in rows), count
    form = draw(st.sampled_from(["array", "columns", "lines", "any"]))
    shown: Any = {
        "array": rows,
        "columns": {column: [row[column] for row in rows] for column in columns},
        "any": draw(values),
    }.get(form)
    if form == "lines":
        return suffix, "\n".join(_json(row, True) for row in rows), None
    return suffix, _json(shown, True, draw(st.sampled_from([None, 0, 2]))), count if form == "array" else None


def _json(value: Any, escaped: bool, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    return text.encode("utf8", "replace").decode()  # what is not escaped has to be valid


def parquet(draw: Any, columns: list[str], count: int) -> bytes:
    """Return a Parquet file with columns of several types."""
    import pyarrow
    import pyarrow.parquet

    kinds = {
        "string": st.one_of(texts, st.none()),
        "int64": st.integers(-(2**62), 2**62),
        "float64": st.floats(),
        "bool": st.booleans(),
        "binary": st.binary(max_size=9),
        "list": st.lists(words, max_size=3),
        "timestamp": st.integers(-(2**62), 2**62),
        "date": st.integers(-(2**31), 2**31 - 1),
    }
    types = {
        "string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64(), "bool": pyarrow.bool_(),
        "binary": pyarrow.binary(), "list": pyarrow.list_(pyarrow.string()), "timestamp": pyarrow.timestamp("ns"),
        "date": pyarrow.date32(),
    }  # fmt: skip
    arrays = []
    for column in columns:
        kind = "string" if column == "text" else draw(st.sampled_from(list(kinds)))
        arrays.append(pyarrow.array([draw(kinds[kind]) for _ in range(count)], type=types[kind]))
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=columns), stream)
    return stream.getvalue()


@st.composite
def broken(draw: Any, content: bytes) -> bytes:
    """The bytes, cut, with some flipped, inserted, taken out or repeated; or as they are."""
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, max(len(content), 1)))
        how = draw(st.sampled_from(["cut", "flip", "insert", "take out", "repeat", "before"]))
        if how == "cut":
            content = content[:place]
        elif how == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
        elif how == "insert":
            content = content[:place] + draw(st.binary(max_size=8)) + content[place:]
        elif how == "take out":
            content = content[:place] + content[place + draw(st.integers(1, 20)) :]
        elif how == "repeat":
            content = content[:place] + content[max(place - 20, 0) :]
        else:
            content = draw(st.binary(max_size=8)) + content
    return content


PACK = {".gz": gzip.compress, ".XZ": lzma.compress, ".bz2": bz2.compress}


@st.composite
def files(draw: Any) -> tuple[str, bytes, int | None]:
    """(name, content, rows where they are known) of a file of any kind, packed or not, right or wrong."""
    suffix, made, rows = draw(tables())
    content = made
    if isinstance(content, str):
        encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"]))
        content = content.encode(encoding, "replace")
        rows = rows if encoding in ("utf-8", "utf-8-sig") else None
    changed = draw(broken(content))
    rows = rows if changed == content else None
    pack = draw(st.sampled_from(["", "", "", *PACK]))
    if pack:
        packed = PACK[pack](changed)
        changed = draw(broken(packed))
        rows = rows if changed == packed else None
    if draw(st.integers(0, 9)) == 0:
        return (
            f"a{draw(st.sampled_from(['.csv', '.txt', '.jsonl', '.gz', '.zst', '.csv.zst', '.parquet', '']))}",
            changed,
            None,
        )
    return f"a{suffix}{pack}", changed, rows


RECIPE = {
    "source": {"path": "books.csv", "columns": {"label": "stars"}, "where": {"split": "train"}},
    "targets": ["kitchen.csv", {"name": "hotels", "path": "hotels.csv", "test": {"path": "held.csv"}}],
    "general": "wiki.txt",
    "base": "mini",
    "task": {"kind": "classification", "labels": ["a", "b"], "dev": 0.2},
    "adapter": {"kind": "houlsby", "reduction": 16},
    "method": {"name": "domain_fusion", "general": 0.1},
    "train": {"max_length": 128, "fuse": {"tokens": 1000, "learning_rate": "1e-4"}, "task": {"epochs": 2}},
    "trainer": {"adam_beta1": 0.9},
    "seed": 1,
}


@st.composite
def recipes(draw: Any) -> bytes:
    """A recipe with some of its values, keys or bytes changed."""
    content = json.loads(json.dumps(RECIPE))
    for _ in range(draw(st.integers(0, 4))):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            how = draw(st.sampled_from(["value", "value", "remove", "name"]))
            if how == "value":
                place[key] = draw(
                    st.one_of(values, st.sampled_from([[], {}, "mini", 0, -1, 1e400, "1e-4", "hf:a/b", "x" * 300]))
                )
            elif how == "remove":
                del place[key]
            elif isinstance(place, dict):
                place[draw(names)] = place.pop(key)
            break
    text = yaml.safe_dump(content, allow_unicode=draw(st.booleans())).encode("utf8", "replace")
    extra = draw(
        st.sampled_from(
            [b"", b"", b"\nsince: 2020-13-45", b"\nx: &a [*a]", b"\n? [1]\n: 2", b"\n\tx: 1", b"\nseed: !!int 'x'"]
        )
    )
    return draw(broken(text + extra))
