"""Where a guidebook finds its base, and which guidebooks go together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guidebook import InputError, adapt, load
from guidebook.artifact_places import check_together
from guidebook.artifact_schema import with_digest
from guidebook.cli.main import main
from tiny import TEXTS, tiny_recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: Any) -> Path:
    """A project folder with models/bert and runs/book, made with a relative base from inside it."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_base("bert"), root / "models" / "bert")
    (root / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        patch.chdir(root)
        adapt(tiny_recipe("models/bert", method="source_only"), "runs/book")
    return root


def facts_of(book: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((book / "guidebook.json").read_text(encoding="utf8"))
    return found


def test_a_relative_base_is_there_from_any_folder(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = facts_of(made / "runs" / "book")["base"]
    assert base["id"] == "models/bert"
    assert Path(base["path"]) == (made / "models" / "bert").resolve()
    assert base["relative"] == "../../models/bert"
    monkeypatch.chdir(tmp_path)
    assert load(made / "runs" / "book").predict(TEXTS).shape == (len(TEXTS),)
    assert main(["predict", str(made / "runs" / "book"), str(made / "texts.txt"), "--out", "out.jsonl", "-q"]) == 0


def test_a_project_that_moves_as_a_whole_goes_on(made: Path, tmp_path: Path) -> None:
    expected = load(made / "runs" / "book").predict_proba(TEXTS)
    shutil.copytree(made, tmp_path / "moved")
    (made / "models").rename(made / "hidden")
    try:
        np.testing.assert_array_equal(load(tmp_path / "moved" / "runs" / "book").predict_proba(TEXTS), expected)
    finally:
        (made / "hidden").rename(made / "models")


COMMANDS = {
    "predict": ["{book}", "{texts}", "--out", "{out}", "-q"],
    "evaluate": ["{book}", "{labelled}", "-q"],
    "audit": ["{book}", "--domain", "kitchen", "-q", "--label", "10"],
    "generate": ["{book}", "-q"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_a_base_that_was_moved_and_takes_another(
    made: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "runs" / "book", tmp_path / "book")
    shutil.copytree(made / "models" / "bert", tmp_path / "elsewhere")
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("label,text\n" + "".join(f"{row % 2},{text}\n" for row, text in enumerate(TEXTS)))
    words = {"book": tmp_path / "book", "texts": made / "texts.txt", "labelled": labelled, "out": tmp_path / "out"}
    arguments = [command, *(word.format(**words) for word in COMMANDS[command])]
    (made / "models").rename(made / "hidden")
    try:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert str(made / "models" / "bert") in error
        assert "--base FOLDER" in error
        code = main([*arguments, "--base", str(tmp_path / "elsewhere")])
        said = capsys.readouterr().err
    finally:
        (made / "hidden").rename(made / "models")
    if command in ("predict", "evaluate"):
        assert code == 0
    else:  # this guidebook has no adapted model beside the source-only one, and its base writes no text
        assert code == 2
        assert "--base" not in said


def test_another_base_is_refused_by_its_fingerprint(made: Path, tiny_base: Any) -> None:
    with pytest.raises(InputError, match=r"was trained on the base models/bert .* is loaded .*--base FOLDER"):
        load(made / "runs" / "book", base=tiny_base("roberta"))
    assert load(made / "runs" / "book", base=tiny_base("bert")).labels == ["0", "1"]
    assert load(tiny_base("bert"), made / "runs" / "book").labels == ["0", "1"]


def test_an_older_guidebook_whose_relative_base_is_not_here_names_the_flag(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "runs" / "book", tmp_path / "book")
    facts = facts_of(tmp_path / "book")
    for key in ("path", "relative"):
        del facts["base"][key]
    (tmp_path / "book" / "guidebook.json").write_text(with_digest(json.dumps(facts)), encoding="utf8")
    with pytest.raises(InputError, match=r"models/bert.*--base FOLDER"):
        load(tmp_path / "book")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("task", "kind", "token_classification", "the task is token_classification"),
        ("task", "labels", ["1", "0"], r"the labels is \['1', '0'\]"),
        ("task", "pairs", True, "pairs of texts is True"),
        ("base", "modules", {"lm_head": "head"}, r"adapter\.modules is "),
    ],
)
def test_what_cannot_differ_between_guidebooks_is_named(
    made: Path, part: str, field: str, value: Any, message: str
) -> None:
    facts = facts_of(made / "runs" / "book")
    other = {**facts, part: {**facts[part], field: value}}
    with pytest.raises(InputError, match=f"second and first cannot be loaded together: {message}"):
        check_together({"first": facts, "second": other})
    check_together({"first": facts, "second": facts})


def test_longest_rows_and_pooling_may_differ_between_guidebooks(
    made: Path, tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    task = {"max_length": 12, "pooling": "cls"}
    other = adapt(tiny_recipe(tiny_base("bert"), method="source_only", task=task), tmp_path / "other")
    one, both = load(made / "runs" / "book"), load(made / "runs" / "book", tmp_path / "other")
    for name, alone in (("book", one), ("other", other)):
        np.testing.assert_array_equal(both.predict_proba(TEXTS, domain=name), alone.predict_proba(TEXTS))
    assert one.meta["task"]["pooling"] != other.meta["task"]["pooling"]


def test_heads_of_targets_whose_names_begin_alike_are_told_apart() -> None:
    import torch

    from guidebook.artifact_files import head_tensors

    def head(value: float) -> dict[str, Any]:
        return {"head.output.weight": torch.full((2, 3), value), "head.output.bias": torch.zeros(2)}

    stored = {f"m:{name}.{key}": v for name, n in (("a", 1.0), ("a.head", 2.0)) for key, v in head(n).items()}
    for name, value in (("m:a", 1.0), ("m:a.head", 2.0)):
        found = head_tensors(Path("head.safetensors"), stored, name, 2, 3)
        assert float(found["head.output.weight"][0, 0]) == value
    for classes, hidden in ((3, 3), (2, 4)):
        with pytest.raises(InputError, match="does not fit"):
            head_tensors(Path("head.safetensors"), stored, "m:a", classes, hidden)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "owner/" + "x" * 300, "~no-such-user/x", ""])
def test_names_that_no_folder_can_have_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError):
        load(name)
