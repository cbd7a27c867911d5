"""Tagging words, from a recipe to predictions, in every kind of method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.adaptation import adapt, evaluate
from guidebook.adapters.host import Host
from guidebook.data.gold import Gold
from guidebook.data.tags import ragged
from guidebook.evaluation.task_scores import by_row, difference, scores
from guidebook.losses.task import TaskLoss, task_head
from guidebook.methods import METHODS
from guidebook.reports.summary import summary
from guidebook.tasks.token_classification import TokenClassification
from guidebook.training.prediction import make_word_rows, predict_probabilities
from tiny import COMPARING, TEXTS, given, tiny_recipe


def tags_of(text: str) -> list[str]:
    """Made-up tags that depend on the word alone."""
    kinds = {"the": "B-article", "kettle": "I-article", "room": "I-article", "app": "B-tool", "pan": "B-tool"}
    return [kinds.get(word, "O") for word in text.split(" ")]


def tagged(name: str, texts: list[str], **more: Any) -> Any:
    return gb.Domain(name, [text.split(" ") for text in texts], labels=[tags_of(text) for text in texts], **more)


def recipe_of(base: Path, **changes: Any) -> Any:
    settings = {
        "source": tagged("books", [text for _ in range(3) for text in TEXTS]),
        "targets": [tagged("kitchen", [f"the {text}" for text in TEXTS[:6]])],
        "task": {"kind": "token_classification", "max_length": 10},
        "train": {"task": {"epochs": 4, "rows_per_batch": 6, "learning_rate": 2e-2}},
    }
    return tiny_recipe(base, **{**settings, **changes})


@pytest.fixture(scope="module")
def book(tiny_base, tmp_path_factory) -> Any:
    root = tmp_path_factory.mktemp("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
        return adapt(recipe_of(tiny_base("bert")), out=root / "book")


def test_the_account_has_entity_scores_and_their_difference(book: Any) -> None:
    target = book.meta["evaluation"]["targets"][0]
    assert {"entity_f1", "accuracy"} <= target["scores"]["domain_fusion"].keys()
    assert target["rows"] == sum(len(f"the {text}".split()) for text in TEXTS[:6])
    assert target["difference"]["of"] == ["domain_fusion", "source_only"]
    assert set(target["scores"]) == {"tfidf", "linear_probe", "source_only", "domain_fusion"}
    assert target["scores"]["tfidf"]["accuracy"] > 0.9  # the tags depend on the word alone


def test_predictions_have_one_tag_per_word_and_survive_saving(book: Any, tmp_path: Path) -> None:
    texts = [TEXTS[0], TEXTS[2].split(" ")]
    tags = book.predict(texts)
    assert [len(row) for row in tags] == [len(TEXTS[0].split()), len(TEXTS[2].split())]
    assert {tag for row in tags for tag in row} <= set(book.labels)
    book.save_pretrained(tmp_path / "copy")
    again = gb.load(tmp_path / "copy").predict_proba(texts)
    for one, other in zip(book.predict_proba(texts), again, strict=True):
        assert np.array_equal(one, other)
        assert one.sum(1) == pytest.approx(1)


def test_evaluation_of_a_labelled_domain(book: Any) -> None:
    found = evaluate(book, tagged("more", TEXTS[3:6]))
    assert found["rows"] == sum(len(text.split()) for text in TEXTS[3:6])
    assert 0 <= found["scores"]["source_only"]["entity_f1"] <= 1


def test_the_command_line_tags_a_file(book: Any, tmp_path: Path, capsys: Any) -> None:
    from guidebook.cli.predict import predict

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"tokens": text.split()}) + "\n" for text in TEXTS[:2]))
    predict(book.path, path, domain="kitchen", out=tmp_path / "out.jsonl", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["words"] for line in lines] == [text.split() for text in TEXTS[:2]]
    assert all(len(line["tags"]) == len(line["words"]) == len(line["confidence"]) for line in lines)


def test_the_loss_is_the_mean_over_words(tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guidebook.adaptation import prepare
    from guidebook.methods.stage import Stage
    from guidebook.training.listener import Listener
    from guidebook.training.model import StageModel
    from guidebook.training.run import Run

    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path))
    recipe = recipe_of(tiny_base("bert"), task={"kind": "token_classification", "max_length": 10, "dropout": 0.0})
    material, engine = prepare(recipe, Listener())
    run = Run(material, material.corpus.targets[0], 0, None)
    stage = Stage("task", {"task": TaskLoss(run.source)}, train={"task": None})
    engine.build(stage, {})
    heads = engine.new_heads(stage)
    model, plan = StageModel(engine.host, stage, heads), engine.plan(stage)
    batch = plan.batch(0)
    losses = []
    hidden = engine.host.model.bert(
        input_ids=batch["inputs"]["input_ids"], attention_mask=batch["inputs"]["attention_mask"]
    ).last_hidden_state
    for row in range(len(hidden)):
        for place in range(hidden.shape[1]):
            label = int(batch["labels"][row, place])
            if label >= 0:
                logits = heads["head"].head(hidden[row, place])
                losses.append(-logits.log_softmax(-1)[label])
    assert len(losses) > 10
    torch.testing.assert_close(model(batch)["loss"], torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_windows_do_not_change_where_a_short_text_is_read(tiny_base: Any) -> None:
    from guidebook.losses.contract import Facts

    host = Host.load(str(tiny_base("bert")))
    facts = Facts(16, 3, "tokens", 4, "linear", 0.0, 0, 0)
    head = task_head(facts)
    together = predict_probabilities(host, head, make_word_rows(TEXTS, host.tokenizer, 64), "float32")
    alone = [predict_probabilities(host, head, make_word_rows([text], host.tokenizer, 64), "float32") for text in TEXTS]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-5)


def test_settings() -> None:
    with pytest.raises(gb.InputError, match=r"task\.head is 'big'"):
        TokenClassification(head="big")  # type: ignore[arg-type]
    assert gb.Recipe(source="a.jsonl", task="token_classification").task.words


WANT_TEXTS = ("few_target_labels", "teacher")
"""Methods whose files label whole texts."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:After 20%")  # the critic of `dann` finds two tiny pools alike
@pytest.mark.parametrize(
    ("method", "family"),
    [
        *((method, "bert") for method in METHODS if method not in (*WANT_TEXTS, "zero_shot")),
        ("domain_fusion", "gpt2"),
        ("mixed", "gpt2"),
    ],
)
def test_every_method_tags_words(
    method: str, family: str, tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    many = [f"{text} {number}" for number in range(6) for text in TEXTS]
    more = {"source": tagged("books", many), "targets": [tagged("kitchen", [f"the {text}" for text in many])]}
    recipe = recipe_of(tiny_base(family), method=method, **(more if method in COMPARING else {}))
    made = adapt(recipe, out=tmp_path / "book")
    assert "accuracy" in made.meta["evaluation"]["targets"][0]["scores"][method]


@pytest.mark.parametrize("method", WANT_TEXTS)
def test_methods_that_want_labels_of_texts_say_so(
    method: str, tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(gb.InputError, match="this task labels words"):
        adapt(recipe_of(tiny_base("bert"), method=given(method, tmp_path)), out=tmp_path / "book")


def test_targets_without_all_tags_and_in_another_scheme_are_scored(
    tiny_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    texts = [f"the {text}" for text in TEXTS[:6]]
    single = {"B-tool": "U-tool", "I-article": "L-article"}
    tags = [[single.get(tag, tag) for tag in tags_of(text)] for text in texts]
    tags[0], tags[3] = [], None  # type: ignore[call-overload]
    source = tagged("books", [text for _ in range(3) for text in TEXTS])
    target = gb.Domain("kitchen", [text.split(" ") for text in texts], labels=tags)
    book = adapt(
        recipe_of(tiny_base("bert"), source=source, targets=[target], method="source_only"), out=tmp_path / "b"
    )
    found = book.meta["evaluation"]["targets"][0]
    assert (found["without_label"], found["texts"]) == (2, 4)
    assert found["rows"] == sum(len(text.split()) for number, text in enumerate(texts) if number not in (0, 3))
    assert found["unknown_labels"] == {}
    again = evaluate(book, target)
    assert again["scores"]["source_only"] == found["scores"]["source_only"]
    with pytest.raises(gb.InputError, match="row 1: 1 tags for"):
        evaluate(book, gb.Domain("kitchen", [texts[0].split(" ")], labels=[["O"]]))


def test_reports_of_words_say_entity_f1(book: Any) -> None:
    found = summary(book.meta)
    assert found.results.columns[3:6] == ("entity F1 %", "95 % interval", "accuracy of words %")
    assert found.source.columns[3] == "entity F1 %"
    assert "texts, " in found.results.rows[0][1]
    assert book.meta["evaluation"]["targets"][0]["difference"]["metric"] == "entity_f1"
    assert "pipeline_tag: token-classification" in (book.path / "README.md").read_text()
    page = (book.path / "report.html").read_text()
    assert "Entity F1 of domain fusion minus source only" in page
    record = json.loads((book.path / "records.jsonl").read_text().splitlines()[0])
    assert record["score"] == book.meta["evaluation"]["targets"][0]["scores"][record["arm"]]["entity_f1"]
    assert record["transductive"] == 1


def test_intervals_of_words_count_texts() -> None:
    labels = ragged([(0,) * 40] * 5 + [(1,) * 40] * 5)  # one model is right on half of the texts, on all their words
    guess = np.tile([1.0, 0.0], (400, 1))
    found = scores(guess, labels, ("O", "B-x"))
    assert found["accuracy"] == 0.5
    assert found["accuracy_high"] - found["accuracy_low"] > 0.5


def test_values_of_texts_are_entity_f1_and_scatter_as_it_does() -> None:
    random = np.random.default_rng(0)
    names = ("O", "B-x", "I-x")
    labels = ragged([tuple(random.integers(0, 3, 6).tolist()) for _ in range(400)])
    gold = Gold(labels, {}, 0, [tuple(names[tag] for tag in row) for row in labels])
    truth = np.array([tag for row in labels for tag in row])
    one, other = (
        np.eye(3)[np.where(random.random(len(truth)) < wrong, random.integers(0, 3, len(truth)), truth)]
        for wrong in (0.2, 0.3)
    )
    values = [by_row(found, gold, names) for found in (one, other)]
    for found, made in zip((one, other), values, strict=True):
        assert made.mean() == pytest.approx(scores(found, labels, names)["entity_f1"])
    spread = difference(one, other, gold, names)
    assert spread.estimate == pytest.approx(float((values[0] - values[1]).mean()))
    assert spread.standard_error == pytest.approx(float(np.std(values[0] - values[1]) / 20), rel=0.1)
