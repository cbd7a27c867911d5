"""Every format gives the same rows; every wrong file says where, what and what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from pathlib import Path

import pytest

from guidebook.data import hub
from guidebook.data.domains import domain_from, load_source, load_target
from guidebook.data.files import file_rows
from guidebook.data.read import Columns, read_table
from guidebook.data.readers import COMPRESSED, READERS, json_whole
from guidebook.errors import InputError
from guidebook.recipe import load_recipe

ROWS = [
    {"text": 'so "good"', "label": "positive", "stars": 5},
    {"text": "zu dünn, leider", "label": "negative", "stars": 1},
    {"text": "  ", "label": "negative", "stars": 2},
    {"text": "it boils \u2028 fast", "label": "positive", "stars": 4},
]
OF_TEXTS = [suffix for suffix, place in READERS.items() if not place.endswith(":CONLL")]  # sentences: test_words.py
COLUMNS = Columns(text="text", label="label")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path | str, columns: Columns = COLUMNS) -> str:
    with pytest.raises(InputError) as caught:
        read_table(Path(path), columns, {})
    return str(caught.value)


def parquet(folder: Path, rows: list[dict[str, object]], name: str = "a.parquet", **options: object) -> Path:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), folder / name, **options)
    return folder / name


def written(folder: Path, suffix: str) -> Path:
    """ROWS in a format."""
    names = list(ROWS[0])
    if suffix == ".parquet":
        return parquet(folder, ROWS)
    content = {
        ".csv": "text,label,stars\n" + "".join(f'"{_doubled(r)}",{r["label"]},{r["stars"]}\n' for r in ROWS),
        ".tsv": "\t".join(names) + "\n" + "".join("\t".join(str(r[n]) for n in names) + "\n" for r in ROWS),
        ".jsonl": "\n".join(map(json.dumps, ROWS)),
        ".json": json.dumps(ROWS, ensure_ascii=False),
        ".txt": "\n".join(str(row["text"]) for row in ROWS),
    }[suffix]
    return write(folder, f"a{suffix}", content)


def _doubled(row: dict[str, object]) -> str:
    return str(row["text"]).replace('"', '""')


@pytest.mark.parametrize("suffix", OF_TEXTS)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    table = read_table(written(tmp_path, suffix), Columns(), {}) if suffix == ".txt" else None
    table = table or read_table(written(tmp_path, suffix), COLUMNS, {})
    kept = [row for row in ROWS if str(row["text"]).strip()]
    assert list(table.texts) == [row["text"] for row in kept]
    assert table.labels == (None if suffix == ".txt" else [row["label"] for row in kept])
    assert table.empty == 1


@pytest.mark.parametrize("suffix", OF_TEXTS)
def test_every_format_keeps_its_numbers(tmp_path: Path, suffix: str) -> None:
    table = read_table(written(tmp_path, suffix), Columns(text="text"), {}, labels=False)
    lines = {".csv": [2, 3, 5], ".tsv": [2, 3, 5], ".json": [1, 1, 1]}.get(suffix, [1, 2, 4])
    assert table.lines == lines
    assert table.unit == ("row" if suffix == ".parquet" else "line")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u00a0"])
@pytest.mark.parametrize("suffix", OF_TEXTS)
def test_characters_that_only_python_ends_lines_with_are_part_of_a_text(tmp_path: Path, suffix: str, mark: str) -> None:
    rows = [{"text": f"one{mark}two", "label": "a"}, {"text": "three", "label": "b"}]
    contents = {
        ".csv": "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows),
        ".tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows),
        ".jsonl": "".join(json.dumps(row, ensure_ascii=ord(mark) < 32) + "\n" for row in rows),
        ".json": json.dumps(rows, ensure_ascii=ord(mark) < 32),
        ".txt": "".join(f"{row['text']}\n" for row in rows),
    }
    path = parquet(tmp_path, rows) if suffix == ".parquet" else write(tmp_path, f"a{suffix}", contents[suffix])
    assert list(read_table(path, Columns("text"), {}, labels=False).texts) == [row["text"] for row in rows]


# CSV


SPREADSHEETS = {
    "excel's first line": "sep=;\r\ntext;label\r\ngood, cheap;1\r\n",
    "excel's first line, a comma": '"sep=,"\ntext,label\n"good, cheap",1\n',
    "excel's first line, padded": "SEP=;;\ntext;label\ngood, cheap;1\n",
    "excel's first line of another separator": "sep=|\ntext|label\ngood, cheap|1\n",
    "empty columns behind": 'text,label,,\n"good, cheap",1,,\n',
    "empty columns behind, in the header alone": 'text,label,,\n"good, cheap",1\n',
    "empty columns behind, in the rows alone": 'text,label\n"good, cheap",1,,\n',
    "empty columns between": 'text,,label,\n"good, cheap",,1,\n',
    "an index without a name": ',text,label\n7,"good, cheap",1\n',
    "quoted commas in the header": '"text";"label";"stars, 1 to 5, or none"\ngood, cheap;1;5\n',
    "commas in the header": "text;label;stars, 1 to 5\ngood, cheap;1;5\n",
    "quoted tabs in the header": '"text"\t"label"\t"a, b; c"\ngood, cheap\t1\t5\n',
    "a line break in the header": '"a\nb";text;label\nx;good, cheap;1\n',
}


@pytest.mark.parametrize("name", SPREADSHEETS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, name: str, mark: str) -> None:
    table = read_table(write(tmp_path, "a.csv", mark + SPREADSHEETS[name]), Columns(), {})
    assert (list(table.texts), table.labels) == (["good, cheap"], ["1"])
    assert table.lines == [SPREADSHEETS[name].count("\n")]


@pytest.mark.parametrize("mark", ["|", "^", "\x01"])
def test_other_separators_are_named_with_those_that_are_known(tmp_path: Path, mark: str) -> None:
    content = f"text{mark}label\na pan, a pot{mark}1\n"
    assert "commas, semicolons and tabs are known" in refused(write(tmp_path, "a.csv", content))
    assert "commas, semicolons and tabs are known" in refused(write(tmp_path, "a.tsv", content))


def test_cells_in_columns_without_a_name_are_not_lost(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.csv", "text,label,,\na good, cheap pan,1,\na bad pan,0,,\n"))
    assert "line 2: 4 cells, expected 2 (text, label)" in message
    assert "none of the columns has a name" in refused(write(tmp_path, "b.csv", ",,\na,b,c\n"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(b"text,label\na,1\n"), "gzip"),
        (lzma.compress(b"text,label\na,1\n"), "xz"),
        (b"PK\x03\x04\x14\x00\x08\x08\xff\xfe", "spreadsheet"),
        (b"PAR1\x15\x04\xff\xfe", "Parquet"),
        (b"%PDF-1.4\n%\xe2\xe3\n", "PDF"),
    ],
    ids=["gzip", "xz", "spreadsheet", "Parquet", "PDF"],  # gzip writes the time, and workers have to agree on names
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt", ".conll"])
def test_files_that_are_no_text_are_called_what_they_are(
    tmp_path: Path, content: bytes, kind: str, suffix: str
) -> None:
    assert kind in refused(write(tmp_path, f"a{suffix}", content))


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESSED if suffix != ".zst"])
def test_a_damaged_file_whose_first_bytes_are_no_text_either_is_called_damaged(tmp_path: Path, suffix: str) -> None:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix]
    content = pack(b"\xff\xfe wrong\n" + bytes(range(256)) * 3_000)
    for damaged in (content[: len(content) // 2], content[:-4], content[:-20] + b"\x00" * 20):
        for reader in (".txt", ".csv", ".jsonl"):
            message = refused(write(tmp_path, f"a{reader}{suffix}", damaged))
            assert "damaged" in message or "UTF-16" in message


# TSV


def test_quotes_of_a_tsv_file_are_text_unless_a_program_doubled_them(tmp_path: Path) -> None:
    cells = ['"open', '"all of it"', '"he said ""hi"" twice"', 'a "b" c', '""', '"a""']
    table = read_table(write(tmp_path, "a.tsv", "text\n" + "\n".join(cells)), Columns(), {})
    assert table.texts == ['"open', '"all of it"', 'he said "hi" twice', 'a "b" c', '""', '"a""']


def test_wrong_rows_of_a_tsv_file_have_a_line(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "a.tsv", "text\tlabel\r\nfine\t1\r\n\r\none\ttwo\tthree\r\n"))
    assert "a.tsv line 4: 3 cells, expected 2 (text, label)" in message
    assert "neither tabs nor line breaks" in message
    assert "two columns are named 'a'" in refused(write(tmp_path, "b.tsv", "a\ta\n1\t2\n"))


# JSON


@pytest.mark.parametrize("piece", [1, 7, 65_536])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_in_pieces_and_every_row_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_whole, "PIECE", piece)
    content = "\n \n" + json.dumps(ROWS, indent=indent) + "\n"
    rows = list(file_rows(write(tmp_path, "a.json", content)))
    assert [row for _, row in rows] == ROWS
    if indent:
        lines = content.splitlines()
        assert [number for number, _ in rows] == [n for n, line in enumerate(lines, 1) if line.strip() == "{"]
    else:
        assert {number for number, _ in rows} == {3}


def test_an_array_of_one_long_line_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", json.dumps([{"text": f"row {number} " + "x" * 50} for number in range(20_000)]))
    with path.open("rb") as stream:
        from guidebook.data.readers.contract import Problems

        rows = json_whole.read_json(stream, Problems(path))
        next(rows)
        assert stream.tell() < path.stat().st_size / 5
        rows.close()


@pytest.mark.parametrize("indent", [None, 1])
def test_columns_of_a_json_file_become_rows(tmp_path: Path, indent: int | None) -> None:
    lists = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    frame = {name: {str(index): row[name] for index, row in enumerate(ROWS)} for name in ROWS[0]}
    for content in (lists, frame):
        rows = list(file_rows(write(tmp_path, "a.json", json.dumps(content, indent=indent))))
        assert rows == list(enumerate(ROWS, 1))


def test_a_single_object_is_a_row_and_json_lines_may_be_named_json(tmp_path: Path) -> None:
    assert list(file_rows(write(tmp_path, "a.json", json.dumps(ROWS[0], indent=1)))) == [(1, ROWS[0])]
    assert list(file_rows(write(tmp_path, "b.json", json.dumps(ROWS[0])))) == [(1, ROWS[0])]
    lines = "\n" + "\n\n\n".join(map(json.dumps, ROWS))
    assert list(file_rows(write(tmp_path, "c.json", lines))) == list(zip([2, 5, 8, 11], ROWS, strict=True))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"text": "a"},\n {"text": "b"},\n {"text": }]', "line 3: the element that starts here is not JSON"),
        ('[{"text": "a"},\n {"text": "b"}', "line 2: the end of the file where"),
        ('[{"text": "a"}\n {"text": "b"}]', 'line 2: \'{"text": "\' where'),
        ('[{"text": "a"}]\n\n["more"]', "line 3: '[\"more\"]' after the array"),
        ('[{"text": "a"},\n "b"]', "line 2: a JSON str, expected an object"),
        ('"text"', "line 1: JSON that starts with '\"text\"', expected an array of objects"),
        ('{"text": ["a", "b"],\n "label": [1]}', "hold different rows (text: 2, label: 1)"),
        ('{"text": {"0": "a"},\n "label": {"1": 1}}', "hold different rows"),
        ('{"text": ["a",\n "label": [1]}', "line 2: not JSON"),
        ("\n\n", "holds no rows"),
        ("[]", "holds no rows"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_wrong_json_says_where(tmp_path: Path, content: str, expected: str) -> None:
    message = refused(write(tmp_path, "a.json", content))
    assert "a.json" in message
    assert expected in message


# Parquet


def test_parquet_is_read_in_batches_of_any_layout(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "label": number % 2} for number in range(10_000)]
    table = read_table(parquet(tmp_path, rows, row_group_size=999, compression="zstd"), Columns(), {})
    assert table.texts == [row["text"] for row in rows]
    assert table.labels == [row["label"] for row in rows]
    assert table.lines == list(range(1, 10_001))


def test_wrong_parquet_says_what_and_which_row(tmp_path: Path) -> None:
    assert "not a whole Parquet file" in refused(write(tmp_path, "a.parquet", "text,label\na,b\n"))
    good = parquet(tmp_path, ROWS, "b.parquet").read_bytes()
    assert "not a whole Parquet file" in refused(write(tmp_path, "c.parquet", good[: len(good) // 2]))
    listed = parquet(tmp_path, [{"text": ["a"], "label": "x"}, {"text": ["b"], "label": "y"}], "d.parquet")
    assert "d.parquet row 1: text holds a list, expected text" in refused(listed)


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        ("pyarrow", "a.parquet", "pip install 'guidebook[parquet]'"),
        ("zstandard", "a.csv.zst", "pip install 'guidebook[zst]'"),
        ("datasets", "hf:owner/name", "pip install 'guidebook[hub]'"),
    ],
)
def test_a_missing_package_comes_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "compression", None)
    message = refused(name if name.startswith("hf:") else write(tmp_path, name, "x"))
    assert command in message
    assert name in message


# compressed


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_every_compression_changes_nothing_and_notices_damage(tmp_path: Path, suffix: str) -> None:
    import lzma

    zstandard = pytest.importorskip("zstandard")
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}[suffix]
    content = ("text\n" + "\n".join(f"row {number * number}" for number in range(5_000))).encode()
    plain = read_table(write(tmp_path, "a.csv", content), Columns(), {})
    packed = read_table(write(tmp_path, f"b.csv{suffix}", pack(content[:1000]) + pack(content[1000:])), Columns(), {})
    assert packed.texts == plain.texts
    assert packed.lines == plain.lines
    for damaged in (pack(content)[:-200], b"not compressed at all"):
        message = refused(write(tmp_path, f"c.csv{suffix}", damaged))
        assert "the compressed file is damaged" in message
    assert "line 2 " in refused(write(tmp_path, f"d.csv{suffix}", pack(b"text\nca\xe9\n")))


# folders


def test_a_folder_is_its_files_in_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "reviews/b.csv", "text,label\nsecond,1\n,1\nthird,0\n")
    write(tmp_path, "reviews/a.jsonl", '{"text": "first", "label": 0}')
    write(tmp_path, "reviews/README.md", "what this is")
    write(tmp_path, "reviews/.hidden", "x")
    table = read_table(tmp_path / "reviews", Columns(), {})
    assert list(table.texts) == ["first", "second", "third"]
    assert list(table.lines) == ["a.jsonl line 1", "b.csv line 2", "b.csv line 4"]
    assert table.lines[1:] == ["b.csv line 2", "b.csv line 4"]
    source, _ = load_source(domain_from(str(tmp_path / "reviews")))
    assert source.name == "reviews"
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, 0]


def test_folders_in_a_folder_are_labels_and_their_text_files_are_texts(tmp_path: Path) -> None:
    write(tmp_path, "train/pos/1.txt", "so good\n\nso very good")
    write(tmp_path, "train/neg/2.txt", "too thin")
    write(tmp_path, "train/neg/more.csv", "text,label\nit broke,ignored\n")
    write(tmp_path, "train/urls.txt", "http")
    source, labels = load_source(domain_from(str(tmp_path / "train")))
    assert labels.names == ("neg", "pos")
    assert list(source.texts) == ["too thin", "it broke", "so good\n\nso very good"]
    assert list(source.lines) == ["neg/2.txt", "neg/more.csv line 2", "pos/1.txt"]
    target = load_target(domain_from(str(tmp_path / "train")))
    assert target.labels is None
    assert target.hidden is not None
    only = domain_from({"path": str(tmp_path / "train"), "where": {"label": "neg"}})
    assert list(load_target(only).texts) == ["too thin", "it broke"]


def test_wrong_rows_of_a_folder_name_the_file_and_the_line(tmp_path: Path) -> None:
    write(tmp_path, "many/a.csv", "text,label\nfine,good\nbad,bda\n")
    write(tmp_path, "many/b.jsonl", '{"text": 3, "label": "good"}')
    assert "many file b.jsonl line 1: text holds a number" in refused(tmp_path / "many")
    write(tmp_path, "many/b.jsonl", '{"text": "x", "label": "good"}')
    with pytest.raises(InputError, match=r"many file a.csv line 3: label 'bda'"):
        load_source(domain_from(str(tmp_path / "many")), ["good", "bad"])
    write(tmp_path, "many/b.jsonl", "{")
    assert "b.jsonl line 1: not JSON" in refused(tmp_path / "many")


def test_folders_that_hold_nothing_readable(tmp_path: Path) -> None:
    assert "a folder with no files" in refused(tmp_path)
    write(tmp_path, "a.csv", "text\na\n")
    for number in range(7):
        write(tmp_path, f"{number}.pdf", "x")
    message = refused(tmp_path)
    assert "0.pdf, 1.pdf, 2.pdf, 3.pdf, 4.pdf and 2 more" in message
    assert "Move the others away" in message


# the Hub


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The package, with a local folder of files in place of the Hub's `owner/reviews`."""
    found = pytest.importorskip("datasets")
    write(tmp_path, "reviews/en/train.jsonl", "\n".join(map(json.dumps, ROWS)))
    write(tmp_path, "reviews/en/test.jsonl", json.dumps({**ROWS[0], "text": "held out"}))
    load = found.load_dataset
    asked: list[object] = []

    def local(name: str, config: str | None, **options: object):
        asked.append((name, config, options))
        if name != "owner/reviews":
            raise found.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        files = {split: str(tmp_path / "reviews" / "en" / f"{split}.jsonl") for split in ("train", "test")}
        return load("json", data_files=files, **options)

    monkeypatch.setattr(found, "load_dataset", local)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    found.asked = asked
    return found


def test_a_data_set_is_streamed(datasets) -> None:
    table = read_table(Path("hf:owner/reviews/en"), COLUMNS, {})
    assert list(table.texts) == [str(row["text"]) for row in ROWS if str(row["text"]).strip()]
    assert table.lines == [1, 2, 4]
    assert table.unit == "row"
    assert datasets.asked == [("owner/reviews", "en", {"split": "train", "streaming": True})]
    domain = domain_from({"path": "hf:owner/reviews:test", "columns": {"label": "label"}})
    assert domain.name == "reviews"
    assert list(load_target(domain).texts) == ["held out"]


def test_classes_of_a_data_set_get_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: rows.to_iterable_dataset())
    assert read_table(Path("hf:owner/reviews"), Columns(), {}).labels == ["good", "bad", None]


def test_data_sets_that_are_not_there(datasets) -> None:
    message = refused("hf:owner/nothing")
    assert "hf:owner/nothing: the data set cannot be read" in message
    assert "doesn't exist on the Hub" in message
    assert "the split (train)" in message
    assert "cannot be read" in refused("hf:owner/reviews:validation")


@pytest.mark.parametrize("place", ["hf:", "hf:a/b/c/d", "hf:owner/name:train[:10%]", "hf:owner name"])
def test_what_names_no_data_set(place: str) -> None:
    assert "hf:OWNER/NAME" in refused(place)


def test_parts_of_a_name() -> None:
    assert hub.parse_hub("hf:imdb") == ("imdb", None, "train")
    assert hub.parse_hub("hf:a/b-c/v1.0:test") == ("a/b-c", "v1.0", "test")


def test_a_recipe_leaves_names_of_data_sets_as_they_are(tmp_path: Path) -> None:
    recipe = write(tmp_path, "recipe.yaml", "source: hf:a/books\ntargets: [{path: 'hf:a/kitchen/en:test'}, x.csv]\n")
    found = load_recipe(recipe)
    assert [domain.path for domain in (*found.source, *found.targets)] == [
        "hf:a/books",
        "hf:a/kitchen/en:test",
        str(tmp_path / "x.csv"),
    ]
    assert [domain.name for domain in found.targets] == ["kitchen", "x"]
