"""Files become rows with right line numbers, and every kind of bad input says where, what and what to do."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from guidebook.data.read import READERS, Columns, read_table, stem
from guidebook.errors import InputError

ANY = Columns()
EXAMPLES = Path(__file__).parents[2] / "examples" / "reviews"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, columns: Columns = ANY, **where: object):
    return read_table(path, columns, where)


def refused(path: Path, columns: Columns = ANY, **where: object) -> str:
    with pytest.raises(InputError) as caught:
        read(path, columns, **where)
    return str(caught.value)


@pytest.mark.parametrize("name", ["apps", "books", "hotels", "kitchen"])
def test_example_reviews_are_read_whole(name: str) -> None:
    table = read(EXAMPLES / f"{name}.csv")
    assert len(table.texts) == len(table.labels) == len(table.lines) == 240
    assert table.columns == Columns("text", None, "label")
    assert table.lines[0] == 2
    assert sorted(set(table.labels)) == ["negative", "positive"]


def test_csv_equals_the_standard_library_and_keeps_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"one\nline, ""two""",1\nplain,0\n\n"x\n\n\ny",1\nlast,0\n')
    table = read(path)
    with path.open(newline="") as stream:
        slow = list(csv.DictReader(stream))
    assert table.texts == [row["text"] for row in slow]
    assert table.labels == [row["label"] for row in slow]
    assert table.lines == [2, 4, 6, 10]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_spreadsheet_may_separate_by_semicolons_or_tabs(tmp_path: Path, mark: str) -> None:
    lines = ["", "Review;Stars", '"one; two,\nthree";1', "four, five;2", ""]
    table = read(write(tmp_path, "a.csv", "\n".join(lines).replace(";", mark)))
    assert table.texts == [f"one{mark} two,\nthree", "four, five"]
    assert table.labels == ["1", "2"]
    assert table.lines == [3, 5]
    message = refused(write(tmp_path, "b.csv", f"text{mark}label\nfine{mark}1\nbad{mark}1{mark}2\n"))
    assert "b.csv line 3: 3 cells, expected 2 (text, label)" in message


def test_commas_in_the_header_separate_whatever_else_is_in_it(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.csv", "text,label; of two\na;b,1\n")).texts == ["a;b"]


def test_line_numbers_of_windows_files(tmp_path: Path) -> None:
    table = read(write(tmp_path, "a.csv", b'text,label\r\n"one\r\ntwo",1\r\nlast,0\r\n'))
    assert table.texts == ["one\r\ntwo", "last"]
    assert table.lines == [2, 4]


def test_jsonl_rows_may_bring_columns_late(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": "two", "label": 1, "meta": {"a": [1]}}, {"text": "three", "label": None}]
    table = read(write(tmp_path, "a.jsonl", "\n\n".join(map(json.dumps, rows))))
    assert table.texts == ["one", "two", "three"]
    assert table.labels == [None, 1, None]
    assert table.lines == [1, 3, 5]


def test_unicode_line_breaks_are_part_of_a_text(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.txt", "one\u2028two\x85three\nnext\n")).texts == ["one\u2028two\x85three", "next"]


def test_txt_is_one_text_a_line_without_labels(tmp_path: Path) -> None:
    table = read(write(tmp_path, "a.txt", "label,text\n\n  \nlast"))
    assert (table.texts, table.labels, table.lines, table.empty) == (["label,text", "last"], None, [1, 4], 2)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_compression_and_byte_order_mark_change_nothing(tmp_path: Path, suffix: str, mark: bytes) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    for name, content in {".csv": "text,label\né,1\n", ".jsonl": '{"text": "é", "label": "1"}', ".txt": "é"}.items():
        table = read(write(tmp_path, f"a{name}{suffix}", pack(mark + content.encode())))
        assert table.texts == ["é"]
        assert table.labels == (None if name == ".txt" else ["1"])


def test_a_cell_may_be_larger_than_the_csv_module_allows_by_default(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert len(read(write(tmp_path, "a.csv", "text\n" + "a" * 300_000)).texts[0]) == 300_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Review,Stars", Columns("Review", None, "Stars")),
        ("Review Text,Gold-Label", Columns("Review Text", None, "Gold-Label")),
        ("id, TEXT ,category", Columns("TEXT", None, "category")),
        ("premise,hypothesis,gold_label", Columns("premise", "hypothesis", "gold_label")),
        ("question1,question2,target", Columns("question1", "question2", "target")),
        ("question,text,id", Columns("text", None, None)),
        ("question,sentence,label", Columns("question", "sentence", "label")),
        ("premise,label", Columns("premise", None, "label")),
    ],
)
def test_columns_are_found_by_alias(tmp_path: Path, header: str, expected: Columns) -> None:
    assert read(write(tmp_path, "a.csv", f"{header}\n" + ",".join("xyz"[: header.count(",") + 1]))).columns == expected


def test_named_columns_win_and_ignore_case(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,body,stars,label\na,b,c,d\n")
    table = read(path, Columns(text="Body", label="stars"))
    assert (table.texts, table.labels) == (["b"], ["c"])
    pair = write(tmp_path, "b.csv", "premise,hypothesis,other\na,b,c\n")
    assert read(pair, Columns(text="premise")).text_pairs is None
    assert read(pair, Columns(text_pair="other")).text_pairs == ["c"]


def test_several_candidates_are_refused_with_their_names(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.csv", "text,review,label\na,b,c\n"))
    assert "several columns could be the text: text, review" in message
    assert "columns: {text: text}" in message
    message = refused(write(tmp_path, "b.csv", "text,rating,Label\na,b,c\n"))
    assert "several columns could be the label: rating, Label" in message
    assert "columns: {label: rating}" in message
    assert read_table(tmp_path / "b.csv", Columns(), {}, labels=False).labels is None


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("id,words", "columns: {text: NAME}"),
        ("I liked this book a lot", "add a header line"),
    ],
)
def test_a_file_without_a_text_column_says_how_to_name_it(tmp_path: Path, header: str, hint: str) -> None:
    message = refused(write(tmp_path, "a.csv", f"{header}\n" + ",".join("xyz"[: header.count(",") + 1])))
    assert "a.csv: none of the columns" in message
    assert hint in message


def test_a_misnamed_column_suggests_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "opinion,label\na,b\n")
    assert "Did you mean 'opinion'?" in refused(path, Columns(text="opinoin"))
    assert "columns.label" in refused(path, Columns(text="opinion", label="grade"))


def test_where_compares_as_labels_do(tmp_path: Path) -> None:
    rows = [
        {"text": str(n), "year": year, "ok": ok} for n, (year, ok) in enumerate([(1, True), ("1.0", "false"), (2, 0)])
    ]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read(path, year=1).texts == ["0", "1"]
    assert read(path, year=["1", 2]).texts == ["0", "1", "2"]
    assert read(path, ok=False).texts == ["1", "2"]
    assert read(path, year=1, ok=True).texts == ["0"]
    assert read(path, year="1").lines == [1, 2]


def test_where_that_keeps_nothing_suggests_values_and_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,domain\na,books\nb,kitchen\n")
    message = refused(path, domain="kitchn")
    assert "Did you mean 'kitchen'?" in message
    assert "books, kitchen" in message
    assert "no column 'domian'" in refused(path, domian="books")
    assert "Did you mean 'domain'?" in refused(path, domian="books")


def test_ragged_rows_are_collected_five_and_the_count(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.csv", "text,label\nok,1\n" + "one, two, three\n" * 7))
    assert "a.csv line 3: 3 cells, expected 2 (text, label)" in message
    assert message.count("line ") == 5
    assert "7 rows are wrong; the first 5 are shown" in message
    assert "quotes" in message


def test_broken_json_lines_name_the_line(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": \n["a"]\n'))
    assert "a.jsonl line 2: not JSON" in message
    assert "line 3: a JSON list, expected an object" in message
    assert "one JSON object per line" in message


def test_nested_and_other_values_are_refused_with_the_line(tmp_path: Path) -> None:
    rows = '{"text": "a", "label": 1}\n{"text": ["b"], "label": 1}\n{"text": 3, "label": 1}\n{"text": "c", "label": {}}'
    message = refused(write(tmp_path, "a.jsonl", rows))
    assert "line 2: text holds a list, expected text" in message
    assert "line 3: text holds a number, expected text" in message
    assert "label holds" not in message, "labels are judged where the texts can be read: a target needs none"
    message = refused(write(tmp_path, "b.jsonl", '{"text": "a", "label": 1}\n{"text": "c", "label": {}}'))
    assert "line 2: label holds a nested object" in message


@pytest.mark.parametrize(
    ("content", "line", "offset"),
    [
        (b"text\nfine\ncaf\xe9\n", 3, 13),
        (b"\xef\xbb\xbftext\n\xff\n", 2, 8),
        (b"text\n" + b"a" * 99_995 + b"\n\xff", 3, 100_001),
    ],
)
def test_wrong_bytes_name_line_and_offset(tmp_path: Path, content: bytes, line: int, offset: int) -> None:
    assert content[offset] >= 0x80
    message = refused(write(tmp_path, "a.csv", content))
    assert f"line {line} (byte {offset:,} of the file)" in message
    assert "UTF-8" in message
    assert f"line {line} " in refused(write(tmp_path, "a.csv.gz", gzip.compress(content)))


def test_utf_16_is_named(tmp_path: Path) -> None:
    assert "UTF-16, expected UTF-8" in refused(write(tmp_path, "a.csv", "text\nfine\n".encode("utf-16")))


def test_an_unclosed_quote_names_the_line_it_starts_at(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.csv", 'text,label\nfine,1\n"never closed,0\nmore,1\n'))
    assert "a.csv line 3: the row that starts here is not CSV" in message
    assert "quotes" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "holds no rows"),
        ("b.csv", "text,label\n", "holds no rows"),
        ("a.jsonl", "\n\n", "holds no rows"),
        ("c.csv", "text,label\n ,1\n,0\n", "all 2 rows have empty text"),
        ("d.csv", "text,text\na,b\n", "two columns are named 'text'"),
        ("e.docx", "x", "Expected .csv, .tsv, .jsonl, .json, .txt, .conll"),
        ("e.jsnl", "x", "Did you mean '.jsonl'?"),
        ("e.csv.gz", "not compressed", "damaged"),
        ("e.csv.xz", "not compressed", "damaged"),
    ],
)
def test_files_that_hold_nothing_readable(tmp_path: Path, name: str, content: str, expected: str) -> None:
    message = refused(write(tmp_path, name, content))
    assert expected in message
    assert name in message


def test_a_cut_archive_is_damaged(tmp_path: Path) -> None:
    content = gzip.compress(b"text\n" + b"\n".join(str(n * n).encode() for n in range(9999)))
    assert "damaged" in refused(write(tmp_path, "a.csv.gz", content[:500]))


def test_a_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "kitchen.csv", "text\na\n")
    assert "Did you mean 'kitchen.csv'?" in refused(tmp_path / "kitchn.csv")
    assert "the folder" in refused(tmp_path / "nowhere" / "a.csv")


def test_rows_with_empty_text_or_pair_are_dropped_and_counted(tmp_path: Path) -> None:
    table = read(write(tmp_path, "a.csv", "premise,hypothesis,label\na,b,1\n,b,0\na, ,0\nc,d,1\n"))
    assert (table.texts, table.text_pairs, table.labels) == (["a", "c"], ["b", "d"], ["1", "1"])
    assert (table.lines, table.empty) == ([2, 5], 2)


def test_a_label_column_without_values_is_no_labels(tmp_path: Path) -> None:
    table = read(write(tmp_path, "a.csv", "text,label\na,\nb,\n"))
    assert table.labels is None
    assert table.columns.label == "label"


@pytest.mark.parametrize("suffix", READERS)
def test_stem_drops_known_suffixes_only(suffix: str) -> None:
    assert stem(Path(f"x/books.v2{suffix}.xz")) == stem(Path(f"books.v2{suffix}")) == "books.v2"


def test_reading_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, guidebook.data.domains, guidebook.data.batches, guidebook.data.tokens, guidebook.data.describe;"
        "print([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
