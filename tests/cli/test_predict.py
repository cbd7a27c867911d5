from __future__ import annotations

import io
import json
import sys

import pytest

from guidebook.cli import predict as command
from guidebook.cli.main import main


class Stdin:
    """A pipe with bytes in it."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_becomes_json_lines(engine, reviews, capsys):
    assert main(["predict", "book", str(reviews)]) == 0
    said = capsys.readouterr()
    lines = lines_of(said.out)
    assert [line["label"] for line in lines] == ["positive", "negative", "positive"]
    assert [line["line"] for line in lines] == [2, 3, 5]
    assert lines[0]["probabilities"] == {"negative": 0.1, "positive": 0.9}
    assert "1 rows without text" in said.err
    assert engine.book.asked[0][2] == "auto", "None would be the base"


def test_out_holds_the_same_lines_and_no_half_file(engine, reviews, tmp_path, capsys, monkeypatch):
    out = tmp_path / "new" / "labels.jsonl"
    assert main(["predict", "book", str(reviews), "--out", str(out), "--domain", "kitchen", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert len(lines_of(out.read_text())) == 3
    assert engine.book.asked[0][2] == "kitchen"
    before = out.read_text()
    monkeypatch.setattr(engine.book, "predict_proba", lambda *given, **more: 1 / 0)
    assert main(["predict", "book", str(reviews), "--out", str(out), "-q"]) == 1
    assert out.read_text() == before
    assert [path.name for path in out.parent.iterdir()] == ["labels.jsonl"]


@pytest.mark.parametrize("content", [b"so good!\ntoo thin\n", b'{"text": "so good!"}\n{"text": "too thin"}\n'])
def test_stdin_is_text_or_json_lines(engine, monkeypatch, capsys, content):
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    assert main(["predict", "book"]) == 0
    assert [line["label"] for line in lines_of(capsys.readouterr().out)] == ["positive", "negative"]


@pytest.mark.parametrize("first", ["text,label", '"Review Text";"stars"', "\ufeffid\ttext", "text", "sep=;"])
def test_a_table_on_stdin_is_read_as_lines_and_that_is_said(engine, monkeypatch, capsys, first):
    monkeypatch.setattr(sys, "stdin", Stdin(f"{first}\nso good!,1\n".encode()))
    assert main(["predict", "book", "-q"]) == 0
    said = capsys.readouterr()
    assert [line["label"] for line in lines_of(said.out)] == ["negative", "positive"]
    assert "Save it as a .csv file" in said.err


@pytest.mark.parametrize("first", ["A good text, and cheap", "nice; fine", "Good.", '{"text": "a"}', ""])
def test_texts_on_stdin_are_taken_for_no_table(engine, monkeypatch, capsys, first):
    monkeypatch.setattr(sys, "stdin", Stdin(f'{first}\n{{"text": "b"}}\n'.encode()))
    assert main(["predict", "book", "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content", [b'{"text": "cut \\ud83d"}', b"cut \xed\xa0\xbd", b"\xff\xfet\x00", b"\x1f\x8b\x08\xff"]
)
def test_stdin_that_is_no_text_is_refused(engine, monkeypatch, capsys, content):
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    assert main(["predict", "book", "-q"]) == 2
    assert "stdin" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["columns=", "columns.text=a"], ["where=5", "where.stars=5"], ["path.a=b"], ["x=2020-13-45"]]
)
def test_words_that_contradict_each_other_are_refused(engine, reviews, capsys, words):
    assert main(["predict", "book", str(reviews), *words]) == 2
    assert words[-1] in capsys.readouterr().err


def test_a_mistake_on_stdin_is_called_stdin(engine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stdin(b'{"text": "so good!"}\n{"text": \n'))
    assert main(["predict", "book", "-"]) == 2
    said = capsys.readouterr().err
    assert "stdin" in said
    assert "/tmp" not in said


def test_slices_answer_as_one(engine, tmp_path, monkeypatch, capsys):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"text {number}{'!' * (number % 2)}\n" for number in range(10)))
    assert main(["predict", "book", str(path), "-q"]) == 0
    whole = capsys.readouterr().out
    monkeypatch.setattr(command, "ROWS_AT_ONCE", 3)
    assert main(["predict", "book", str(path), "-q"]) == 0
    assert capsys.readouterr().out == whole
    assert len(engine.book.asked) == 1 + 4


def test_columns_and_rows_are_chosen_as_in_a_recipe(engine, tmp_path, capsys):
    path = tmp_path / "odd.csv"
    path.write_text("verdict,remark,shop\nx,so good!,a\ny,too thin,b\n")
    assert main(["predict", "book", str(path), "columns.text=remark", "where.shop=b", "-q"]) == 0
    assert [line["label"] for line in lines_of(capsys.readouterr().out)] == ["negative"]
    assert main(["predict", "book", str(path), "remark"]) == 2
    assert "key=value" in capsys.readouterr().err
    assert main(["predict", "book", str(path), "colums.text=remark"]) == 2
    assert "columns" in capsys.readouterr().err


def test_an_unknown_domain_suggests_the_nearest(engine, reviews, capsys):
    assert main(["predict", "book", str(reviews), "--domain", "kitchn"]) == 2
    assert "Did you mean 'kitchen'?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_input_error(engine, reviews, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["predict", "book", str(reviews), "--out", str(tmp_path / "file" / "x.jsonl")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row",
    [
        {"text": "it boils fast", "rating": 1, "sentiment": "x"},
        {"text": "it boils fast", "label": []},
        {"text": "it boils fast", "label": {"old": "pos"}},
    ],
)
def test_a_file_to_predict_needs_no_label_that_can_be_read(row, engine, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert main(["predict", "book", str(path)]) == 0
    assert lines_of(capsys.readouterr().out)[0]["line"] == 1
