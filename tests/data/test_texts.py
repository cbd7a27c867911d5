"""Large texts and tokens stand on disk, and nothing else about them changes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from guidebook.data import corpus, large, read, texts, tokeniser, tokens
from guidebook.data.corpus import distinct_rows, documents
from guidebook.data.domains import Domain, domain_from, load_source, load_target, load_text, select_rows, split_rows
from guidebook.data.fingerprints import hash_texts
from guidebook.data.read import Columns, read_table
from guidebook.data.streams import Stream, concatenate, stack_streams
from guidebook.data.texts import Column, Texts
from guidebook.data.tokens import chunk, encode, read_specials, tokenise, windows
from guidebook.errors import InputError

WORDS = ["", "pan", "zu dünn", "a\nb", "\U0001f600", "x" * 300, "it boils fast and the handle stays cool " * 3]


@pytest.fixture
def some() -> list[str]:
    rng = random.Random(0)
    return [rng.choice(WORDS) + str(rng.randrange(40)) for _ in range(500)]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large."""
    monkeypatch.setattr(texts, "SPILL", 0)
    monkeypatch.setattr(texts, "KNOWN", 4)
    monkeypatch.setattr(texts, "BLOCK", 7)
    monkeypatch.setattr(large, "LARGE", 1)
    monkeypatch.setattr(tokens, "BLOCK", 5)
    monkeypatch.setattr(tokeniser, "BLOCK", 5)
    monkeypatch.setattr("guidebook.data.places.MANY", 1)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    return path


def rows_of(texts: list[str]) -> list[dict[str, object]]:
    return [{"text": text, "label": ["bad", "good"][len(text) % 2]} for text in texts]


def test_texts_on_disk_are_a_sequence(some: list[str], on_disk: None) -> None:
    found = Texts.of(some)
    assert len(found) == len(some)
    assert list(found) == some
    assert [found[row] for row in (0, 3, -1)] == [some[0], some[3], some[-1]]
    assert found[5:90] == some[5:90]
    assert found[::-7] == some[::-7]
    assert found[9:9] == []
    with pytest.raises(IndexError):
        found[len(some)]
    rows = np.random.default_rng(0).permutation(len(some))[:100]
    assert list(found.take(rows)) == [some[row] for row in rows]
    assert found.take(rows)[10:20] == [some[row] for row in rows[10:20]]
    assert list(found.take(rows).take(np.array([3, 1]))) == [some[rows[3]], some[rows[1]]]
    assert hash_texts(found, found) == hash_texts(some, some)
    assert list(Texts.of([])) == []


def test_a_table_on_disk_equals_one_in_memory(tmp_path: Path, some: list[str], monkeypatch) -> None:
    path = write(tmp_path / "a.jsonl", rows_of([*some, " ", ""]))
    small = load_target(domain_from(str(path)))
    monkeypatch.setattr(texts, "SPILL", 2_000)
    monkeypatch.setattr(texts, "KNOWN", 4)
    monkeypatch.setattr("guidebook.data.places.MANY", 1)
    big = load_target(domain_from(str(path)))
    assert isinstance(small.texts, list)
    assert isinstance(big.texts, Texts)
    assert list(big.texts) == small.texts
    assert list(big.lines) == list(small.lines)
    assert (big.fingerprint, big.dropped, big.columns) == (small.fingerprint, small.dropped, small.columns)
    assert big.hidden is not None
    assert small.hidden is not None
    assert big.hidden.reveal("final evaluation") == small.hidden.reveal("final evaluation")


def test_selecting_splitting_and_distinct_texts_are_the_same_on_disk(tmp_path: Path, some, request) -> None:
    path = write(tmp_path / "a.jsonl", rows_of(some))
    small, labels = load_source(domain_from(str(path)))
    request.getfixturevalue("on_disk")
    big, same = load_source(domain_from(str(path)))
    assert isinstance(big.texts, Texts)
    assert labels == same
    for one, other in zip(split_rows(small, 0.3, 1), split_rows(big, 0.3, 1), strict=True):
        assert list(one.texts) == list(other.texts)
        assert list(one.lines) == list(other.lines)
        assert (one.fingerprint, one.labels_fingerprint) == (other.fingerprint, other.labels_fingerprint)
    assert list(documents(big)) == documents(small) == list(dict.fromkeys(some))
    assert distinct_rows(big).tolist() == distinct_rows(small).tolist()
    few = select_rows(big, [4, 2])
    assert (list(few.texts), list(few.lines)) == ([some[4], some[2]], [5, 3])


def test_documents_of_pairs_are_the_same_on_disk(tmp_path: Path, request) -> None:
    rows = [{"premise": f"p{n % 5}", "hypothesis": f"h{n % 7} p"} for n in range(40)] + [
        {"premise": "h1 p", "hypothesis": "p0"}
    ]
    path = write(tmp_path / "a.jsonl", rows)
    small = load_text(domain_from(str(path)), "general")
    request.getfixturevalue("on_disk")
    big = load_text(domain_from(str(path)), "general")
    assert isinstance(big.text_pairs, Texts)
    loop = list(dict.fromkeys([str(r["premise"]) for r in rows] + [str(r["hypothesis"]) for r in rows]))
    assert documents(small) == list(documents(big)) == loop


def test_a_column_of_labels_stays_in_memory_and_one_of_texts_moves(monkeypatch) -> None:
    monkeypatch.setattr(texts, "SPILL", 100_000)
    monkeypatch.setattr(texts, "KNOWN", 100)
    labels, cells = Column(), Column(missing=2)
    for number in range(2_000):
        labels.append(["good", "bad", None, 3][number % 4])
        cells.append(f"text number {number} " * 3)
    everything = np.arange(2_000)
    assert labels.values(everything)[:4] == ["good", "bad", None, 3]
    assert isinstance(cells.texts(np.arange(2_002)), Texts)
    assert cells.values(np.array([0, 2, 2_001])) == ["", "text number 0 " * 3, "text number 1999 " * 3]
    assert cells.blank[:3] == b"\x01\x01\x00"
    assert labels._spool is None  # the very thing: repeated values cost nothing


def test_wrong_values_on_disk_are_refused_with_their_lines(tmp_path: Path, on_disk: None) -> None:
    rows = [*rows_of(["one", "two", "three"]), {"text": 4, "label": {}}, {"text": None}, {"text": ["five"]}]
    with pytest.raises(InputError) as caught:
        read_table(write(tmp_path / "a.jsonl", rows), Columns(), {})
    message = str(caught.value)
    assert "line 4: text holds a number" in message
    assert "line 6: text holds a list" in message
    assert "label holds" not in message, "labels are judged where the texts can be read"
    assert "line 5" not in message


def test_half_a_surrogate_pair_on_disk_is_refused_with_its_line(tmp_path: Path, on_disk: None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "cut \\ud83d"}\n', encoding="utf8")
    with pytest.raises(InputError, match="line 2: the text holds half of a surrogate pair"):
        load_target(domain_from(str(path)))


def test_a_full_scratch_folder_leaves_nothing_behind(tmp_path: Path, some: list[str], on_disk: None) -> None:
    table = read_table(write(tmp_path / "a.jsonl", rows_of(some)), Columns(), {})
    assert isinstance(table.texts, Texts)
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []  # files without a name


def test_tokens_on_disk_equal_tokens_in_memory(tiny_base, some: list[str], tmp_path: Path, request) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base("bert"))
    specials = read_specials(tokenizer)
    rows = np.random.default_rng(1).integers(0, len(some), 90)

    def everything(texts):
        plain = tokenise(texts, tokenizer, tmp_path / "tokens")
        pieces, owner = windows(plain, None, 12, specials, limit=3)
        pairs = encode(plain, plain, 20, specials)
        found = [plain, chunk(plain, 9, specials), pairs, pieces, plain.take(rows), concatenate([plain, pieces])]
        return found, owner

    small, owner = everything(some)
    request.getfixturevalue("on_disk")
    big, same = everything(Texts.of(some))
    assert np.array_equal(owner, same)
    for one, other in zip(small, big, strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.offsets, other.offsets)
        assert one.fingerprint == other.fingerprint
        assert isinstance(other.ids, np.memmap)
        assert other.ids.dtype == np.int32
        assert not other.ids.flags.writeable
    slow = [small[0][row].tolist() for row in rows]
    assert [big[4][row].tolist() for row in range(len(rows))] == slow


def test_a_stream_on_disk_has_the_same_fingerprint(tiny_base, some: list[str], request) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base("bert"))

    def made() -> Stream:
        plain = tokenise(some, tokenizer)
        part = Stream("a", plain, np.zeros(len(plain), np.int64), ("a",), np.ones(1))
        return stack_streams("text", [part, part], np.array([0.5, 0.5]))

    small = made()
    request.getfixturevalue("on_disk")
    assert made().fingerprint == small.fingerprint


def test_the_number_of_workers_changes_nothing(tiny_base, some: list[str], monkeypatch) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base("bert"))
    found = []
    for parallel, size in (("false", 4096), ("true", 4096), ("true", 13)):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        monkeypatch.setattr(tokeniser, "SLICE", size)
        found.append(tokenise(some, tokenizer))
    for other in found[1:]:
        assert np.array_equal(found[0].ids, other.ids)
        assert np.array_equal(found[0].offsets, other.offsets)
        assert found[0].fingerprint == other.fingerprint


def test_texts_in_memory_stay_lists(some: list[str]) -> None:
    target = load_target(Domain("kitchen", some))
    assert target.texts == some
    assert documents(target) == list(dict.fromkeys(some))


def test_the_modules_under_test_are_the_ones_patched() -> None:
    assert read.Column is texts.Column
    assert corpus.Texts is texts.Texts
