"""A finished training never loses anything: whatever fails after it, the guidebook predicts and can be completed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guidebook as gb
import guidebook.training.engine as engine_module
from guidebook.adaptation import adapt
from guidebook.adapters.host import Host
from guidebook.artifact import load
from guidebook.cli.main import main
from guidebook.training.engine import Engine
from tiny import LABELS, TEXTS, tiny_recipe

PARTS = {
    "predictions": "guidebook.training.engine.Engine.predict",
    "predictions of a baseline": "guidebook.training.engine.Engine.probe",
    "evaluation": "guidebook.adaptation.account",
    "description of the data": "guidebook.account.describe",
    "machine": "guidebook.account.machine",
    "scores": "guidebook.account.scores",
    "difference": "guidebook.account.difference",
    "label-free scores": "guidebook.adaptation.label_free",
    "validators": "guidebook.label_free.validate",
    "estimates": "guidebook.label_free.estimates",
    "assumptions": "guidebook.adaptation.broken_assumptions",
    "known rows": "guidebook.completion.save",
    "figures": "guidebook.adaptation.evidence",
    "map": "guidebook.evidence.project",
    "records": "guidebook.completion.records",
    "model card": "guidebook.completion.render_card",
    "summary": "guidebook.reports.card.summary",
    "report": "guidebook.completion.render",
    "writing": "guidebook.completion.put",
    "description": "guidebook.completion.facts_json",
}
ERRORS = [
    MemoryError(),
    ValueError("a mistake"),
    KeyboardInterrupt(),
    SystemExit(3),
    gb.RunError("out of memory"),
    gb.InputError("a test file is wrong"),
    OSError(errno.ENOSPC, "No space left on device"),
]
ALL_ERRORS = ("predictions", "evaluation", "label-free scores", "report")
CASES = [(part, error) for part in PARTS for error in (ERRORS if part in ALL_ERRORS else ERRORS[:1])]
"""Every place with one kind of error, and every kind of error at some places; a few of them in every check."""
FAST = {("predictions", MemoryError), ("label-free scores", KeyboardInterrupt), ("report", ValueError)}
PIECES = {"guidebook.json", "README.md", "report.html", "records.jsonl", "evidence.json", "known_rows.safetensors"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finish")


@pytest.fixture(autouse=True)
def cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))


@pytest.fixture(scope="module")
def recipe(tiny_base: Callable[[str], Path]) -> Any:
    source = gb.Domain("books", [f"{text} {number}" for number in range(5) for text in TEXTS], labels=LABELS * 5)
    return tiny_recipe(tiny_base("bert"), source=source, task={"dev": 0.4})


@pytest.fixture(scope="module")
def undisturbed(recipe: Any, root: Path) -> Iterator[gb.Guidebook]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        yield adapt(recipe, out=root / "undisturbed")


def answers(path: Path) -> np.ndarray:
    return load(path).predict_proba(TEXTS, domain="kitchen")


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **settings: Any) -> Any:
        raise error

    return fail


def complete(path: Path, undisturbed: gb.Guidebook) -> None:
    """The folder holds all that the undisturbed run's does, and says the same."""
    assert {item.name for item in path.iterdir()} == {item.name for item in undisturbed.path.iterdir()}
    book = load(path)
    assert book.meta["missing"] == {}
    for name in ("evaluation", "scores", "domains", "size", "adapters"):
        assert book.meta[name] == undisturbed.meta[name]
    assert np.array_equal(answers(path), answers(undisturbed.path))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            (part, error),
            id=f"{part}-{type(error).__name__}",
            marks=() if (part, type(error)) in FAST else pytest.mark.slow,
        )
        for part, error in CASES
    ],
)
def test_a_failure_after_the_training_costs_no_guidebook(
    case: tuple[str, BaseException],
    recipe: Any,
    undisturbed: gb.Guidebook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (part, error), out = case, tmp_path / "book"
    with monkeypatch.context() as patch:
        patch.setattr(PARTS[part], failing(error))
        with pytest.raises(type(error) if not isinstance(error, Exception) else gb.RunError) as stopped:
            adapt(recipe, out=out)
    assert np.array_equal(answers(out), answers(undisturbed.path))
    missing = load(out).meta["missing"]
    assert missing
    if isinstance(error, Exception):
        assert stopped.value.exit_code == 1
        assert str(out) in str(stopped.value)
        assert "run the same command again" in str(stopped.value)
        assert all(name in str(stopped.value) for name in missing)
    monkeypatch.setattr(engine_module, "train_plan", failing(AssertionError("trained again")))
    adapt(recipe, out=out)
    complete(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_what_fails_costs_only_itself(
    recipe: Any, undisturbed: gb.Guidebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "book"
    monkeypatch.setattr("guidebook.adaptation.evidence", failing(MemoryError()))
    with pytest.raises(gb.RunError, match=r"Missing: closer look \(MemoryError"):
        adapt(recipe, out=out)
    assert {path.name for path in out.iterdir()} >= PIECES - {"evidence.json"}
    assert load(out).meta["evaluation"] == undisturbed.meta["evaluation"]
    assert load(out).meta["missing"].keys() == {"closer look"}
    assert "closer look is missing (MemoryError" in (out / "README.md").read_text()


def test_a_failed_prediction_leaves_the_other_models_scores(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Engine.predict
    calls: list[str] = []

    def second_fails(self: Any, trained: Any, rows: Any) -> Any:
        calls.append(trained.key)
        if trained.stack != ("task",) or len(set(calls)) > 1:
            raise MemoryError
        return predict(self, trained, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "predict", second_fails)
        with pytest.raises(gb.RunError, match="predictions of domain_fusion for kitchen"):
            adapt(recipe, out=tmp_path / "book")
    scores = load(tmp_path / "book").meta["evaluation"]["targets"][0]["scores"]
    assert "source_only" in scores
    assert "domain_fusion" not in scores


def test_the_command_line_ends_with_1_and_report_makes_the_page(
    undisturbed: gb.Guidebook,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("books", "kitchen"):
        rows = "".join(f"{row % 2},{text} {row}\n" for row, text in enumerate(TEXTS * 3))
        (tmp_path / f"{name}.csv").write_text("label,text\n" + rows)
    words = ["adapt", "--base", str(tiny_base("bert")), "--source", str(tmp_path / "books.csv"), "-q"]
    words += ["--target", str(tmp_path / "kitchen.csv"), "--method", "source_only", "--out", str(tmp_path / "book")]
    words += ["train.max_length=16", "task.max_length=16", "train.task.epochs=1", "train.dtype=float32"]
    with monkeypatch.context() as patch:
        patch.setattr("guidebook.completion.render", failing(ZeroDivisionError("division by zero")))
        assert main(words) == 1
    said = capsys.readouterr().err
    assert f"guidebook report {tmp_path / 'book'}" in said.replace("\n", "")
    assert "ZeroDivisionError" in said
    assert "Traceback" not in said
    assert not (tmp_path / "book" / "report.html").exists()
    assert main(["report", str(tmp_path / "book")]) == 0
    assert "report is missing" not in (tmp_path / "book" / "report.html").read_text()
    assert main(words) == 0


@pytest.mark.parametrize("part", ["evaluation", "text", "samples", "report", "card"])
def test_a_model_of_text_is_kept_too(
    part: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {
        "evaluation": "guidebook.adaptation.account",
        "text": "guidebook.account.text_evaluation",
        "samples": "guidebook.account.text_samples",
        "report": "guidebook.completion.render",
        "card": "guidebook.completion.render_card",
    }[part]
    filings = gb.Domain("filings", [f"{text} {number}" for number in range(5) for text in TEXTS])
    train = {"tokens_per_batch": 96, "max_length": 16, "dtype": "float32", "fuse": {"tokens": 250}}
    recipe = gb.Recipe(
        base=str(tiny_base("gpt2")), task="causal_lm", targets=[filings], method="domain_fusion", train=train
    )
    with monkeypatch.context() as patch:
        patch.setattr(place, failing(MemoryError()))
        with pytest.raises(gb.RunError, match="is kept and predicts"):
            adapt(recipe, out=tmp_path / "book")
    kept = load(tmp_path / "book").generate(["the "])
    if part != "report":
        assert main(["report", str(tmp_path / "book"), "-q"]) == 0
    assert adapt(recipe, out=tmp_path / "book").meta["missing"] == {}
    assert load(tmp_path / "book").generate(["the "]) == kept


def test_a_recipe_that_cannot_be_written_down_is_refused_before_the_training(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidebook.adaptation.prepare", failing(AssertionError("the run had begun")))
    with pytest.raises(gb.InputError, match=r"recipe\.trainer\.hub_token is .*JSON cannot hold"):
        adapt(recipe.replace(trainer={"hub_token": object()}), out=tmp_path / "book")


def test_a_base_that_changed_in_the_evaluation_is_told(
    recipe: Any, undisturbed: gb.Guidebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, calls = Host.check_base, []

    def second_fails(self: Host) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise gb.RunError("the base has changed")
        check(self)

    monkeypatch.setattr(Host, "check_base", second_fails)
    with pytest.raises(gb.RunError, match="the base has changed"):
        adapt(recipe, out=tmp_path / "book")
    assert np.array_equal(answers(tmp_path / "book"), answers(undisturbed.path))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
@pytest.mark.parametrize("before", ["nothing", "another guidebook", "another, no exchange"])
def test_kill_9_after_the_training_costs_no_guidebook(
    before: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    driver = Path(__file__).parent / "finish_driver.py"
    command = [sys.executable, str(driver), str(tiny_base("bert")), str(tmp_path), before]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) > 10
    for entry in found:
        assert entry["died"], entry["moment"]
        assert entry["answers"] in (["new"] if before == "nothing" else ["old", "new"]), entry
        assert entry["persons"], entry["moment"]
        assert entry["completed"], entry["moment"]
        assert entry["left"] == ["book", "cache"], entry
    if before != "nothing":
        assert {entry["answers"] for entry in found} == {"old", "new"}
