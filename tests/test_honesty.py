"""Target labels are read once, at the end; what the run says of itself is what happened."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import guidebook as gb
from guidebook import adaptation
from guidebook.adaptation import adapt, estimate, follow, prepare
from guidebook.data.domains import HiddenLabels
from guidebook.evaluation import task_scores
from guidebook.methods import METHODS, WITHOUT_A_MODEL
from guidebook.training.listener import Listener
from guidebook.training.prediction import make_rows
from tiny import LABELS, TEXTS, domains, given, tiny_recipe


class Poisoned(Exception):
    """Somebody read a label of the target."""


class Poison(Sequence[object]):
    """Labels that may be counted and not be read."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        raise Poisoned

    def __iter__(self) -> Iterator[object]:
        raise Poisoned


@pytest.fixture(scope="module", autouse=True)
def quick_garbage() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def targets(labels: Callable[[int], Any], method: str = "") -> list[gb.Domain]:
    found = domains(method)["targets"]
    return [gb.Domain(target.name, target.texts, labels=labels(len(target.texts or ()))) for target in found]


def trained(recipe: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Train a method for both targets in a cache of its own and return every stage's weights by key and file."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(root))
    material, engine = prepare(recipe, Listener())
    for target in material.corpus.targets:
        follow("arm", recipe.method, target, material, engine)
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*.safetensors"))}


HONEST = [name for name in METHODS if "oracle" not in name]


@pytest.mark.parametrize(
    "method",
    [
        name if name in ("domain_fusion", "linear_probe", "tfidf") else pytest.param(name, marks=pytest.mark.slow)
        for name in HONEST
    ],
)
def test_training_with_poisoned_labels_ordinary_labels_and_none_is_the_same(
    method: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is another one each time; keys are compared with the weights, because they name the folders."""
    recipe = tiny_recipe(tiny_base("llama" if method == "zero_shot" else "bert"), method=given(method, tmp_path))
    ordinary = trained(recipe, tmp_path / "ordinary", monkeypatch)
    for name, labels in (("poisoned", Poison), ("none", lambda count: None)):
        other = recipe.replace(targets=targets(labels, method))
        assert trained(other, tmp_path / name, monkeypatch) == ordinary, name
    assert ordinary or method in (*WITHOUT_A_MODEL, "linear_probe")


def test_the_whole_run_reads_target_labels_only_in_the_final_evaluation(
    tiny_base: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    told = adaptation.account
    monkeypatch.setattr(adaptation, "account", lambda *arguments: (began.append("account"), told(*arguments))[1])
    with pytest.raises(gb.RunError, match=r"predicts.*Missing: evaluation \(Poisoned") as stopped:
        adapt(tiny_recipe(tiny_base("bert"), targets=targets(Poison)))
    assert isinstance(stopped.value.__cause__, Poisoned)
    assert began == ["account"]
    assert len([folder for folder in cache.iterdir() if (folder / "stage.json").exists()]) == 3


def test_labels_in_a_file_change_no_key(
    tiny_base: Callable[[str], Path], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for labels in ([0, 1] * 4, [1, 0] * 4, ["other"] * 8):
        path = tmp_path / "kitchen.csv"
        lines = [f'{label},"{text}"' for label, text in zip(labels, TEXTS, strict=True)]
        path.write_text("\n".join(["label,text", *lines]) + "\n")
        plan = prepared_keys(tiny_recipe(tiny_base("bert"), targets=[str(path)]))
        keys.append(plan)
    assert keys[0] == keys[1] == keys[2]


def prepared_keys(recipe: Any) -> list[str]:
    material, engine = prepare(recipe, Listener())
    found = []
    for target in material.corpus.targets:
        made: dict[str, Any] = {}
        for stage in recipe.method.plan(adaptation.Run(material, target, 0, None)):
            key = engine.key(stage, made)
            made |= dict.fromkeys(stage.train, adaptation.Trained(key, Path(), stage, (), {}, {}, cached=False))
            found.append(key)
    return found


def test_the_oracle_reads_labels_and_its_name_says_so(
    tiny_base: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purposes: list[str] = []
    reveal = HiddenLabels.reveal

    def note(self: HiddenLabels, purpose: str) -> list[object]:
        purposes.append(purpose)
        return reveal(self, purpose)

    monkeypatch.setattr(HiddenLabels, "reveal", note)
    recipe = tiny_recipe(tiny_base("bert"), method={"name": "target_oracle", "folds": 2})
    book = adapt(recipe)
    assert set(purposes) == {"oracle", "final evaluation"}
    keys = prepared_keys(recipe)
    flipped = targets(lambda count: [1 - label for label in (LABELS * 2)[:count]])
    assert keys != prepared_keys(recipe.replace(targets=flipped))
    scores = book.meta["evaluation"]["targets"][0]["scores"]["target_oracle"]
    assert scores["rows"] == 6  # every row is predicted, each by a model that did not read it


def test_targets_without_labels_have_no_scores(tiny_base: Callable[[str], Path], cache: Path) -> None:
    book = adapt(tiny_recipe(tiny_base("bert"), method="target_mlm", targets=targets(lambda count: None)))
    for target in book.meta["evaluation"]["targets"]:
        assert target["scores"] == {}
        assert "difference" not in target
    assert book.meta["evaluation"]["source"]["scores"].keys() == {"tfidf", "linear_probe", "source_only", "target_mlm"}
    assert book.predict(["a text"], domain="kitchen").shape == (1,)
    assert (book.path / "report.html").exists()


def test_labels_that_the_source_does_not_know_are_told_by_the_final_evaluation(
    tiny_base: Callable[[str], Path], cache: Path
) -> None:
    notes: list[str] = []
    listener = Listener()
    listener.note = notes.append  # type: ignore[method-assign]
    labels = ["1", 0, "maybe", None, "maybe", 1.0]
    target = gb.Domain("kitchen", TEXTS[:6], labels=labels)
    book = adapt(tiny_recipe(tiny_base("bert"), method="source_only", targets=[target]), listener=listener)
    assert not any("maybe" in note for note in notes)
    found = book.meta["evaluation"]["targets"][0]
    assert found["unknown_labels"] == {"maybe": 2}
    assert found["rows"] == 3
    assert found["scores"]["source_only"]["rows"] == 3
    known = [0, 1, 5]
    expected = book.predict_proba(TEXTS[:6], domain="kitchen").argmax(1)[known] == np.array([1, 0, 1])
    assert found["scores"]["source_only"]["accuracy"] == pytest.approx(expected.mean())


def test_only_unknown_labels_are_no_crash(tiny_base: Callable[[str], Path], cache: Path) -> None:
    target = gb.Domain("kitchen", TEXTS[:3], labels=["a", "b", "a"])
    book = adapt(tiny_recipe(tiny_base("bert"), method="source_only", targets=[target]))
    assert book.meta["evaluation"]["targets"][0]["scores"] == {}
    assert book.meta["evaluation"]["targets"][0]["unknown_labels"] == {"a": 2, "b": 1}


def test_rows_of_a_test_apart_are_evaluated_and_not_adapted_to(tiny_base: Callable[[str], Path], cache: Path) -> None:
    apart = gb.Domain("kitchen test", ["the lid fits", "it broke at once"], labels=[1, 0])
    kitchen = gb.Domain("kitchen", TEXTS[:6], test=apart)
    hotels = domains()["targets"][1]
    book = adapt(tiny_recipe(tiny_base("bert"), targets=[kitchen, hotels]))
    one, two = book.meta["evaluation"]["targets"]
    assert (one["transductive"], one["rows"]) == (False, 2)
    assert (two["transductive"], two["rows"]) == (True, 7)
    without = tiny_recipe(tiny_base("bert"), targets=[gb.Domain("kitchen", TEXTS[:6]), hotels])
    method_keys = [stage["key"] for stage in book.meta["stages"] if stage["arm"] == "domain_fusion"]
    assert method_keys == list(dict.fromkeys(prepared_keys(without)))


@pytest.mark.slow
def test_pairs_of_texts_end_to_end(tiny_base: Callable[[str], Path], cache: Path, tmp_path: Path) -> None:
    pairs = [f"{text} or so" for text in reversed(TEXTS)]
    path = tmp_path / "entailment.csv"
    rows = [f"{first},{second},{label}" for first, second, label in zip(TEXTS, pairs, ["no", "yes"] * 4, strict=True)]
    path.write_text("\n".join(["premise,hypothesis,label", *rows, *rows]) + "\n")
    target = gb.Domain("letters", TEXTS[:5], text_pairs=pairs[:5], labels=["yes", "no", "yes", "no", "no"])
    for family in ("bert", "roberta"):
        book = adapt(tiny_recipe(tiny_base(family), source=str(path), targets=[target], task={"max_length": 32}))
        assert book.labels == ["no", "yes"]
        assert book.meta["task"]["pairs"] is True
        told = book.meta["evaluation"]["targets"][0]["scores"]["domain_fusion"]["accuracy"]
        found = gb.load(book.path).predict(TEXTS[:5], pairs[:5])
        assert np.mean(found == np.array(["yes", "no", "yes", "no", "no"])) == pytest.approx(told)
        swapped = book.predict_proba(pairs[:5], TEXTS[:5])
        assert not np.allclose(swapped, book.predict_proba(TEXTS[:5], pairs[:5]))
        with pytest.raises(gb.InputError, match="reads pairs"):
            book.predict(TEXTS)
        with pytest.raises(gb.InputError, match="2 texts, but 1 text_pairs"):
            book.predict(TEXTS[:2], pairs[:1])
    with pytest.raises(gb.InputError, match="text pairs and some have single texts"):
        adapt(tiny_recipe(tiny_base("bert"), source=str(path)))


def test_several_sources_share_classes_and_every_row_is_read(tiny_base: Callable[[str], Path], cache: Path) -> None:
    sources = [
        gb.Domain("books", TEXTS[:5] * 2, labels=["good", "bad", "good", "bad", "good"] * 2),
        gb.Domain("films", [f"a film: {text}" for text in TEXTS], labels=["bad", "good", "fair", "bad"] * 2),
    ]
    kitchen = gb.Domain("kitchen", TEXTS[:4], labels=["good", "bad", "fair", "bad"])
    book = adapt(tiny_recipe(tiny_base("bert"), source=sources, targets=[kitchen], task={"dev": 0.25}))
    assert book.labels == ["bad", "fair", "good"]
    task = next(stage for stage in book.meta["stages"] if stage["arm"] == "source_only")
    assert set(task["mix"]) == {"books", "films"}
    fuse = next(stage for stage in book.meta["stages"] if stage["name"] == "fuse")
    assert set(fuse["mix"]) == {"books", "films", "kitchen"}
    source = book.meta["evaluation"]["source"]
    assert source["name"] == "books + films"
    rows = {"source": 0, "held out": 0, "target": 0}
    for item in book.meta["domains"]:
        if item["role"] in rows:
            rows[item["role"]] += item["rows"]
    assert rows == {"source": 18 - source["rows"], "held out": source["rows"], "target": 4}
    assert source["rows"] > 0


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_long_texts_are_the_mean_of_their_windows(family: str, tiny_base: Callable[[str], Path], cache: Path) -> None:
    """Against a slow loop: every window alone through the model, weighted by its tokens."""
    book = adapt(tiny_recipe(tiny_base(family), method="source_only"))
    long = [" ".join(TEXTS[:3]), TEXTS[3][:12], " ".join(TEXTS)]
    rows = make_rows(long, None, book._host.tokenizer, 16)
    counts = np.bincount(rows.owner)
    assert counts[0] > 1
    assert counts[1] == 1
    fast = book.predict_proba(long)
    head, _ = book._activate(*book._place("auto"))
    slow = np.zeros_like(fast)
    for window, owner in enumerate(rows.owner):
        ids = torch.tensor(rows.tokens[window][None].astype(np.int64))
        with torch.no_grad():
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            hidden = book._host.model.eval()(**inputs, output_hidden_states=True).hidden_states[-1]
            probabilities = head(hidden, torch.ones_like(ids)).softmax(-1)[0].numpy()
        share = len(rows.tokens[window]) / rows.tokens.lengths[rows.owner == owner].sum()
        slow[owner] += share * probabilities
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-6)


def test_the_estimate_announces_what_the_run_then_does(tiny_base: Callable[[str], Path], cache: Path) -> None:
    recipe = tiny_recipe(tiny_base("bert"))
    plan = estimate(recipe)
    assert not list(cache.glob("*/stage.json")), "a dry run trains nothing"
    announced: list[Any] = []
    listener = Listener()
    listener.announce = announced.append  # type: ignore[method-assign]
    book = adapt(recipe, listener=listener)
    for key in ("arm", "name", "targets", "tokens", "steps"):
        told = [stage[key] for stage in plan["stages"]]
        assert told == [stage[key] for stage in announced[0]["stages"]]
        assert told == [stage[key] for stage in book.meta["stages"]]
    assert plan["trainable_parameters"] == max(stage["trainable_parameters"] for stage in book.meta["stages"])
    assert all(stage["cached"] for stage in estimate(recipe)["stages"])


def test_a_record_holds_everything_needed_to_run_it_again(tiny_base: Callable[[str], Path], cache: Path) -> None:
    recipe = tiny_recipe(tiny_base("bert"), base_saw=["made-up text"], method="source_only")
    book = adapt(recipe)
    records = [json.loads(line) for line in (book.path / "records.jsonl").read_text().splitlines()]
    assert {(record["arm"], record["target"]) for record in records} == {
        (arm, target) for arm in ("tfidf", "linear_probe", "source_only") for target in ("kitchen", "hotels")
    }
    for record in records:
        assert record["base_saw"] == ["made-up text"]
        assert record["base_fingerprint"] == book.meta["base"]["fingerprint"]
        assert record["recipe"] == json.loads(json.dumps(recipe.resolved()))
        assert record["versions"]
        assert record["seed"] == 0


def test_the_difference_is_paired_and_of_the_method_against_its_twin(
    tiny_base: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    paired = task_scores.paired_difference
    monkeypatch.setattr(task_scores, "paired_difference", lambda *correct: (seen.append(correct), paired(*correct))[1])
    book = adapt(tiny_recipe(tiny_base("bert"), method="target_mlm"))
    for target, correct, told in zip(domains()["targets"], seen, book.meta["evaluation"]["targets"], strict=True):
        gold = np.array(target.labels)
        for arm, values in zip((target.name, "source_only"), correct, strict=True):
            assert np.array_equal(values, book.predict_proba(target.texts, domain=arm).argmax(1) == gold)
        difference = told["difference"]
        assert difference["of"] == ["target_mlm", "source_only"]
        assert difference["estimate"] == pytest.approx(correct[0].mean() - correct[1].mean())
        assert difference["within_noise"] == (difference["low"] <= 0 <= difference["high"])


def test_the_fused_adapter_stays_as_it_was_when_the_task_learns(tiny_base: Callable[[str], Path], cache: Path) -> None:
    book = adapt(tiny_recipe(tiny_base("bert")))
    fuse, task = (stage for stage in book.meta["stages"] if stage["arm"] == "domain_fusion")
    assert task["starts_from"] == {"task": "domain"}
    file = "adapter_model.safetensors"
    stored = load_file(cache / fuse["key"] / "adapters" / "domain" / file)
    kept, learned = (load_file(book.path / "adapters" / name / file) for name in ("domain", "task"))
    assert all(torch.equal(stored[name], kept[name]) for name in stored)
    assert any(not torch.equal(kept[name], learned[name]) for name in kept)
    assert not (cache / fuse["key"] / "heads.safetensors").exists()
