"""The artifact: several guidebooks on one base never disturb each other, and there is never half a guidebook."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import guidebook as gb
import guidebook.training.engine as engine_module
from guidebook.adaptation import adapt, evaluate
from guidebook.adapters.host import Host
from guidebook.artifact import load
from guidebook.writing import check_out, write_guidebook
from tiny import TEXTS, domains, tiny_recipe


@pytest.fixture(scope="module")
def books(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """name -> guidebook: all, pair, oracle, other (another seed), lora; made when first asked for, cache shared."""
    root = tmp_path_factory.mktemp("books")
    made: dict[str, gb.Guidebook] = {}
    recipes = {
        "all": {},
        "pair": {"method": {"name": "domain_fusion", "scope": "pair"}},
        "other": {"seed": 1},
        "lora": {"adapter": "lora"},
        "oracle": {"method": {"name": "target_oracle", "folds": 2}},
    }
    gc.collect()
    gc.freeze()

    def get(name: str) -> gb.Guidebook:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("GUIDEBOOK_CACHE", str(root / "cache"))
                made[name] = adapt(tiny_recipe(tiny_base("bert"), **recipes[name]), out=root / name)
        return made[name]

    yield get
    gc.unfreeze()


@pytest.fixture
def base(tiny_base: Callable[[str], Path]) -> str:
    return str(tiny_base("bert"))


@pytest.mark.slow
def test_rows_of_several_guidebooks_are_those_of_each_alone_bit_for_bit(books: Any, base: str) -> None:
    one, two = books("all").path, books("other").path
    names: list[Any] = ["all", "other", None, "all", None, "other", "all", "all"]
    both = load(base, one, two).predict_proba(TEXTS, domain=names)
    for name, path in (("all", one), ("other", two), (None, one)):
        rows = [index for index, found in enumerate(names) if found == name]
        alone = load(path).predict_proba([TEXTS[row] for row in rows], domain=name)
        assert np.array_equal(both[rows], alone)
    assert not np.allclose(both[0], load(two).predict_proba([TEXTS[0]])[0])
    shuffled = load(base, two, one).predict_proba(TEXTS, domain=names)
    rows = [index for index, name in enumerate(names) if name is not None]
    assert np.array_equal(both[rows], shuffled[rows])
    assert load(base, one, two).predict(TEXTS, domain=names).tolist() == [str(x) for x in both.argmax(1)]


def test_adding_removing_and_retraining_others_changes_no_answer(
    books: Any, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = books("all").path, tmp_path / "two"
    shutil.copytree(books("other").path, two)
    before = load(base, one).predict_proba(TEXTS, domain="all")
    many = load(base, one, two)
    assert np.array_equal(many.predict_proba(TEXTS, domain="all"), before)  # added
    retrained = many.predict_proba(TEXTS, domain="two")
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    adapt(tiny_recipe(base, seed=2, method="source_only"), out=two)  # retrained in its place
    again = load(base, one, two)
    assert not np.array_equal(again.predict_proba(TEXTS, domain="two"), retrained)
    assert np.array_equal(again.predict_proba(TEXTS, domain="all"), before)
    shutil.rmtree(two)  # removed
    assert np.array_equal(load(base, one).predict_proba(TEXTS, domain="all"), before)


@pytest.mark.slow
def test_guidebooks_of_two_kinds_share_a_base(books: Any, base: str) -> None:
    one, two = books("all").path, books("lora").path
    both = load(base, one, two)
    for _ in range(2):
        for path in (one, two):
            assert np.array_equal(both.predict_proba(TEXTS, domain=path.name), load(path).predict_proba(TEXTS))


def test_none_is_the_untouched_base_with_its_linear_probe(books: Any, base: str) -> None:
    book = books("all")
    host = Host.load(base)
    texts = TEXTS[:3]
    ids = [host.tokenizer(text)["input_ids"] for text in texts]
    probe = {name: value for name, value in load_file(book.path / "head.safetensors").items() if name[:5] == "base."}
    expected = []
    for row in ids:  # one text at a time, the long way; these texts are cut into windows of 16 tokens elsewhere
        with torch.no_grad():
            hidden = host.model(torch.tensor([row]), output_hidden_states=True).hidden_states[-1][0].mean(0)
        logits = probe["base.head.output.weight"] @ hidden + probe["base.head.output.bias"]
        expected.append(logits.softmax(-1).numpy())
    short = [row for row, values in enumerate(ids) if len(values) <= 16]
    assert short
    found = book.predict_proba([texts[row] for row in short], domain=[None] * len(short))
    np.testing.assert_allclose(found, np.array(expected)[short], rtol=1e-4, atol=1e-6)


def test_one_adapter_per_target_needs_the_domains_name(books: Any) -> None:
    book = books("pair")
    assert set(book.meta["serves"].values()) == {"domain_fusion:kitchen", "domain_fusion:hotels"}
    with pytest.raises(gb.InputError, match=r"one adapter per target\. Name the domain: kitchen, hotels"):
        book.predict(TEXTS)
    kitchen, hotels = (book.predict_proba(TEXTS, domain=name) for name in ("kitchen", "hotels"))
    assert not np.array_equal(kitchen, hotels)
    adapters = {path.name for path in (book.path / "adapters").iterdir()}
    assert adapters == {"domain-kitchen", "task-kitchen", "domain-hotels", "task-hotels"}


def test_a_target_with_the_guidebooks_own_name_is_found(books: Any, tmp_path: Path) -> None:
    shutil.copytree(books("pair").path, tmp_path / "kitchen")
    book = load(tmp_path / "kitchen")
    assert np.array_equal(
        book.predict_proba(TEXTS, domain="kitchen"), books("pair").predict_proba(TEXTS, domain="kitchen")
    )
    shutil.copytree(books("all").path, tmp_path / "source_only")  # the twin keeps its name
    twin = load(tmp_path / "source_only").predict_proba(TEXTS, domain="source_only")
    assert np.array_equal(twin, books("all").predict_proba(TEXTS, domain="source_only"))


def test_the_oracles_artifact_is_one_model_and_not_parts_of_two(books: Any) -> None:
    """Its folds train adapters of one name; adapter and head of the artifact come from the same fold."""
    book = books("oracle")
    last = [
        stage for stage in book.meta["stages"] if stage["arm"] == "target_oracle" and stage["targets"] == ["hotels"]
    ]
    stored = book.path.parent / "cache" / last[-1]["key"]
    assert last[-1]["name"] == "fold1"
    inside = load_file(book.path / "adapters" / "task-hotels" / "adapter_model.safetensors")
    trained = load_file(stored / "adapters" / "task" / "adapter_model.safetensors")
    head, kept = load_file(stored / "heads.safetensors"), load_file(book.path / "head.safetensors")
    assert all(torch.equal(inside[name], trained[name]) for name in trained)
    assert all(torch.equal(kept[f"target_oracle:hotels.{n.removeprefix('head.')}"], v) for n, v in head.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": "one"}, "texts is one string"),
        ({"texts": ["a", 5]}, "texts row 2 is 5, expected a string"),
        ({"texts": ["a"], "domain": ["all", "all"]}, "1 texts, but 2 domains"),
        ({"texts": ["a"], "domain": "kitchn"}, "No guidebook for 'kitchn'. Did you mean 'kitchen'?"),
        ({"texts": ["a"], "text_pairs": ["b"]}, "reads single texts"),
    ],
)
def test_wrong_calls_of_predict(arguments: dict[str, Any], message: str, books: Any) -> None:
    with pytest.raises(gb.InputError) as caught:
        books("all").predict_proba(**arguments)
    assert message in str(caught.value)


def test_no_texts_give_no_rows(books: Any) -> None:
    assert books("all").predict_proba([]).shape == (0, 2)


def test_several_guidebooks_that_could_answer_are_named(books: Any, base: str) -> None:
    both = load(base, books("all").path, books("other").path)
    with pytest.raises(gb.InputError, match="Several guidebooks could answer for 'kitchen'"):
        both.predict(TEXTS, domain="kitchen")
    with pytest.raises(gb.InputError, match="Several guidebooks could answer"):
        both.predict(TEXTS)


def test_a_guidebook_is_refused_on_another_base(books: Any, tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(gb.InputError, match="was trained on the base"):
        load(tiny_base("roberta"), books("all").path)
    changed = tmp_path / "changed"  # the same architecture and names, one weight another
    shutil.copytree(tiny_base("bert"), changed)
    from safetensors.torch import save_file

    weights = load_file(changed / "model.safetensors")
    name = next(name for name in weights if name.endswith("LayerNorm.weight"))
    weights[name] = weights[name] + 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(gb.InputError, match="An adapter works only on its own base"):
        load(changed, books("all").path)


def test_what_is_no_guidebook_is_said(books: Any, base: str, tmp_path: Path) -> None:
    with pytest.raises(gb.InputError, match="not a guidebook"):
        load(tmp_path)
    with pytest.raises(gb.InputError, match="not a guidebook"):
        load(base, tmp_path)
    shutil.copytree(books("all").path, tmp_path / "torn")
    (tmp_path / "torn" / "guidebook.json").write_text('{"format": 1, "ba')
    with pytest.raises(gb.InputError, match="not the description of a guidebook"):
        load(tmp_path / "torn")
    (tmp_path / "torn" / "guidebook.json").write_text('{"format": 99}')
    with pytest.raises(gb.InputError, match="format 99"):
        load(tmp_path / "torn")


def test_out_is_checked_before_anything_is_trained(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidebook.adaptation.prepare", lambda *arguments: pytest.fail("the run had begun"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    for out in ("thesis", "file", "file/inside"):
        with pytest.raises(gb.InputError, match="Choose another --out"):
            adapt(tiny_recipe(base), out=tmp_path / out)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert check_out(tmp_path / "empty") == (tmp_path / "empty").resolve()
    monkeypatch.chdir(tmp_path / "empty")
    assert check_out(Path(".")) == (tmp_path / "empty").resolve()


def test_a_second_run_is_cached_and_tells_the_same(
    books: Any, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = books("all")
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(first.path.parent / "cache"))
    monkeypatch.setattr(engine_module, "train_plan", lambda *arguments: pytest.fail("trained again"))
    second = adapt(tiny_recipe(base), out=tmp_path / "again")
    assert all(stage["cached"] for stage in second.meta["stages"])
    assert second.meta["evaluation"] == first.meta["evaluation"]
    for file in first.path.rglob("*.safetensors"):
        assert file.read_bytes() == (second.path / file.relative_to(first.path)).read_bytes()


def test_stages_that_do_not_read_the_target_are_trained_once(
    books: Any, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {(stage["arm"], stage["name"]): stage for stage in books("all").meta["stages"]}
    assert set(stages) == {("source_only", "task"), ("domain_fusion", "fuse"), ("domain_fusion", "task")}
    assert all(stage["targets"] == ["kitchen", "hotels"] for stage in stages.values())
    pair = books("pair").meta["stages"]
    assert [stage["targets"] for stage in pair if stage["name"] == "fuse"] == [["kitchen"], ["hotels"]]
    assert pair[0]["key"] == stages["source_only", "task"]["key"]
    assert pair[0]["cached"]
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(books("all").path.parent / "cache"))
    fewer = adapt(tiny_recipe(base, targets=domains()["targets"][:1], method="source_only"))
    assert [stage["cached"] for stage in fewer.meta["stages"]] == [True]


def test_without_out_two_recipes_do_not_share_a_folder(books: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(books("all").path.parent / "cache"))
    kitchen, hotels = domains()["targets"]
    one = adapt(tiny_recipe(base, targets=[kitchen], method="source_only"))
    two = adapt(tiny_recipe(base, targets=[hotels], method="source_only"))
    assert one.path != two.path
    assert one.path.exists()
    assert load(one.path).meta["serves"] == {"kitchen": "source_only"}


@pytest.mark.parametrize(
    "moment",
    [
        "writing._write_variants",
        "writing.facts_json",
        "writing.retire_audit",
        "folders.note",
        "folders._carry",
        "folders.fsync_folder",
        "folders._swap",
    ],
)
def test_a_failure_while_writing_leaves_the_old_guidebook_whole(
    moment: str, books: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "book"
    shutil.copytree(books("all").path, place)
    before = {path.name: path.stat().st_mtime_ns for path in place.rglob("*")}

    def fail(*arguments: Any, **settings: Any) -> None:
        raise OSError("torn")

    monkeypatch.setattr(f"guidebook.{moment}", fail)
    with pytest.raises(OSError, match="torn"):
        write_guidebook(place, dict(books("all").meta), [])
    assert {path.name: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_what_a_kill_left_behind_is_cleared(
    books: Any, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames: the old guidebook stands beside its place, the new one too."""
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(books("all").path.parent / "cache"))
    shutil.copytree(books("all").path, tmp_path / ".book.old")
    (tmp_path / ".book.new").mkdir()
    (tmp_path / ".book.new" / "README.md").write_text("half")
    adapt(tiny_recipe(base), out=tmp_path / "book")
    assert [path.name for path in tmp_path.iterdir()] == ["book"]
    assert load(tmp_path / "book").meta["evaluation"] == books("all").meta["evaluation"]


def test_the_artifact_holds_safetensors_json_and_text_only(books: Any) -> None:
    path = books("all").path
    suffixes = {file.suffix for file in path.rglob("*") if file.is_file()}
    assert suffixes == {".safetensors", ".json", ".jsonl", ".md", ".html"}
    assert (path / "source_only" / "head.safetensors").exists()
    for file in path.rglob("*.json"):
        json.loads(file.read_text(encoding="utf8"))


def test_adapters_load_with_plain_peft(books: Any, base: str) -> None:
    """Into the sequence-classification class, which gives the hidden states that the guidebook pools."""
    import peft
    from transformers import AutoModelForSequenceClassification

    import guidebook.peft  # noqa: F401  (registers the tuner)

    book = books("all")
    plain = AutoModelForSequenceClassification.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(plain, book.path / "adapters" / "task").eval()
    host = Host.load(base)
    ids = torch.tensor([host.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        off = host.model.eval()(ids, output_hidden_states=True).hidden_states[-1]
        host.load_adapter("task", book.path / "adapters" / "task")
        host.activate(("task",))
        ours = host.model.eval()(ids, output_hidden_states=True).hidden_states[-1]
        theirs = model(ids, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, off)
    config = json.loads((book.path / "adapters" / "task" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base


def test_save_pretrained_copies_the_whole_and_refuses_to_overwrite(books: Any, tmp_path: Path) -> None:
    books("all").save_pretrained(tmp_path / "copy")
    assert np.array_equal(load(tmp_path / "copy").predict_proba(TEXTS), books("all").predict_proba(TEXTS))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(gb.InputError, match="not a guidebook"):
        books("all").save_pretrained(tmp_path / "other")


def test_evaluate_gives_the_scores_of_the_run(books: Any) -> None:
    book, target = books("all"), domains()["targets"][0]
    found = evaluate(book, target)
    told = book.meta["evaluation"]["targets"][0]["scores"]
    assert found["scores"]["domain_fusion"] == told["domain_fusion"]
    assert found["scores"]["source_only"] == told["source_only"]
    assert found["scores"]["base"] == told["linear_probe"]
    with pytest.raises(gb.InputError, match="no label column"):
        evaluate(book, gb.Domain("x", ["a"]))
    with pytest.raises(gb.InputError, match="none of its labels"):
        evaluate(book, gb.Domain("x", ["a"], labels=["maybe"]))
