"""A generative base adapted to raw text: reading, holding out, losses, artifact, commands, bad input."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.cli.main import main
from guidebook.data.documents import Split, held_out, read_documents, split_documents
from guidebook.data.domains import Domain
from guidebook.errors import InputError
from guidebook.preparation import prepare
from guidebook.training.generation import Sampling
from guidebook.training.listener import Listener
from guidebook.training.scoring import windows_over
from tiny import TEXTS
from tiny_causal import save

DOCUMENTS = [
    f"{first} and then {second}. report {number}." for number, first in enumerate(TEXTS) for second in TEXTS[:3]
]
GENERAL = [f"it is said that {text} often" for text in TEXTS]
TRAIN = {
    "max_length": 16,
    "tokens_per_batch": 128,
    "dtype": "float32",
    "fuse": {"epochs": 1, "learning_rate": 1e-2},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = save(family, tmp_path_factory.mktemp(f"base-{family.replace('_', '-')}"))
        return made[family]

    return get


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("guidebook.cli.main.quiet_libraries", lambda: None)


def recipe(base: Path, **changes):
    settings = {
        "task": "causal_lm",
        "targets": [Domain("filings", DOCUMENTS)],
        "general": [Domain("wiki", GENERAL)],
        "adapter": {"kind": "houlsby", "reduction": 4},
        "train": TRAIN,
        **changes,
    }
    return gb.Recipe(base=str(base), **settings)


@pytest.fixture(scope="module")
def filings(tmp_path_factory) -> Path:
    """The folder of the hands-on: train and validation with one file each."""
    folder = tmp_path_factory.mktemp("filings")
    for name, rows in (("train", DOCUMENTS[:18]), ("validation", DOCUMENTS[18:])):
        (folder / name).mkdir()
        lines = [json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(rows)]
        (folder / name / "data.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def book(base, filings, tmp_path_factory):
    """One trained guidebook, on the folder; its training text can be read again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDEBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = recipe(base("gptj"), targets=[str(filings)], method={"name": "domain_fusion", "general": 0.25})
        return gb.adapt(made, out=tmp_path_factory.mktemp("runs") / "filings")


# Reading


def test_a_folder_with_train_and_validation(filings):
    train, held = split_documents(Domain("filings", path=str(filings)), "target", Split())
    assert (train.texts, held.texts) == (DOCUMENTS[:18], DOCUMENTS[18:])


@pytest.mark.parametrize("suffix", ["csv", "semicolons.csv", "jsonl", "json", "array.json", "csv.gz", "txt"])
def test_one_file_of_any_kind_and_the_first_column_where_none_is_named_text(tmp_path, suffix):
    path = tmp_path / "folder" / f"data.{suffix}"
    path.parent.mkdir()
    rows = TEXTS[:4]
    contents = {
        "csv": "filing,note\n" + "".join(f"{text},x\n" for text in rows),
        "semicolons.csv": "filing;note\n" + "".join(f"{text};x\n" for text in rows),
        "txt": "\n".join(rows) + "\n",
    }
    objects = [{"filing": text, "note": "x"} for text in rows]
    contents["array.json"] = json.dumps(objects, indent=1)
    content = contents.get(suffix.removesuffix(".gz"), "".join(json.dumps(row) + "\n" for row in objects))
    path.write_bytes(gzip.compress(content.encode()) if suffix.endswith(".gz") else content.encode())
    train, held = split_documents(Domain("folder", path=str(path.parent)), "target", Split(share=0.25))
    assert sorted(train.texts + held.texts) == sorted(rows)
    assert len(held.texts) == 1


def test_blank_lines_separate_documents_of_a_plain_text(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_text("one\ntwo\n\nthree\n\n\nfour\nfive\n")
    documents, _ = read_documents(Domain("raw", path=str(path)), "target", None)
    assert documents.texts == ["one\ntwo", "three", "four\nfive"]
    path.write_text("one\ntwo\n")
    assert read_documents(Domain("raw", path=str(path)), "target", None)[0].texts == ["one", "two"]


PACKED = {"": bytes, ".gz": gzip.compress, ".XZ": lzma.compress, ".bz2": bz2.compress}


def packed(folder: Path, name: str, content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(PACKED.get(path.suffix, bytes)(content.encode()))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".txt.gz", ".TXT.gz", ".txt.XZ", ".txt.bz2"])
def test_a_text_file_has_the_same_documents_whatever_its_case_and_compression(tmp_path, suffix):
    path = packed(tmp_path, f"raw{suffix}", "one\ntwo\n\nthree\n \n\nfour\nfive\n")
    documents, groups = read_documents(Domain("raw", path=str(path)), "target", None)
    assert documents.texts == ["one\ntwo", "three", "four\nfive"]
    assert (documents.division, len(set(groups)), documents.dropped) == ("divided by blank lines", 3, {})


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".txt.gz", ".txt.XZ"])
@pytest.mark.parametrize("place", [".", "train", "2019"])
def test_every_text_file_of_a_folder_is_a_document(tmp_path, suffix, place):
    for number in range(5):
        packed(tmp_path / place, f"{number}{suffix}", f"filing {number}\nprofit of {number}\n\nloss of {number}\n")
    packed(tmp_path / place, "README.txt", "where these come from")
    train, held = split_documents(Domain("filings", path=str(tmp_path)), "target", Split(share=0.4))
    expected = [f"filing {number}\nprofit of {number}\n\nloss of {number}" for number in range(5)]
    assert sorted([*train.texts, *held.texts]) == expected
    assert (len(held.texts), train.division) == (2, "one per .txt file")


def test_a_validation_folder_holds_documents_too_and_other_files_hold_rows(tmp_path):
    for folder, names in (("train", "abc"), ("validation", "de")):
        for name in names:
            packed(tmp_path / folder, f"{name}.txt.gz", f"{name}\n\n{name} again\n")
    train, held = split_documents(Domain("filings", path=str(tmp_path)), "target", Split())
    assert (train.texts, held.texts) == ([f"{n}\n\n{n} again" for n in "abc"], [f"{n}\n\n{n} again" for n in "de"])
    (tmp_path / "train" / "more.jsonl").write_text('{"text": "row 1"}\n{"text": "row 2"}\n')
    documents, _ = read_documents(Domain("mixed", path=str(tmp_path / "train")), "general", None)
    assert len(documents.texts) == 5
    assert documents.division == "one per .txt file, one per row"


def test_a_run_says_how_many_documents_there_are_and_what_divides_them(base, tmp_path):
    class Notes(Listener):
        said: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.said.append(text)

    for number, text in enumerate(DOCUMENTS[:10]):
        packed(tmp_path / "filings", f"{number}.txt", text)
    prepare(recipe(base("gptj"), targets=[str(tmp_path / "filings")]), Notes())
    assert "filings (target): 8 documents to train on, 2 held out (one per .txt file)" in Notes.said


@pytest.mark.parametrize("files", [[], ["a.csv", "b.txt"], ["a.csv", "b.csv.gz"]])
def test_exactly_one_file_is_expected(tmp_path, files):
    (tmp_path / "train").mkdir()
    for name in files:
        (tmp_path / "train" / name).write_text("text\na\n")
    with pytest.raises(InputError, match="exactly one file"):
        split_documents(Domain("filings", path=str(tmp_path)), "target", Split())


def test_groups_and_repeated_texts_stay_together(tmp_path):
    path = tmp_path / "calls.csv"
    rows = [(f"call {number} of company {number % 5}", f"company{number % 5}") for number in range(30)]
    path.write_text("text,company\n" + "".join(f"{text},{name}\n" for text, name in rows))
    split = Split(share=0.4, seed=3, group="company")
    train, held = split_documents(Domain("calls", path=str(path)), "target", split)
    owner = dict(rows)
    assert {owner[text] for text in train.texts}.isdisjoint(owner[text] for text in held.texts)
    assert len({owner[text] for text in held.texts}) == 2
    again = split_documents(Domain("calls", path=str(path)), "target", split)[1]
    assert again.texts == held.texts
    assert split_documents(Domain("calls", path=str(path)), "target", Split(0.4, 4, "company"))[1].texts != held.texts
    twice = Domain("twice", [text for text in TEXTS for _ in range(2)])
    train, held = split_documents(twice, "target", Split(share=0.5))
    assert set(train.texts).isdisjoint(held.texts)
    with pytest.raises(InputError, match="there is no column 'firm'"):
        split_documents(Domain("calls", path=str(path)), "target", Split(group="firm"))


def test_something_is_always_held_out_and_never_all():
    for share, documents in ((0.01, 5), (0.99, 5), (0.2, 2)):
        mask = held_out(np.arange(documents), share, 0)
        assert 0 < mask.sum() < documents
    with pytest.raises(InputError, match="held out"):
        split_documents(Domain("one", ["a text"]), "target", Split())
    capped = split_documents(Domain("many", DOCUMENTS), "target", Split(most_train=5, most_held_out=2))
    assert [len(part.texts) for part in capped] == [5, 2]


# Losses


def test_every_token_is_predicted_once_with_half_a_window_before_it():
    lengths = np.array([1, 7, 8, 9, 30])
    windows = windows_over(lengths, 8)
    for document, length in enumerate(lengths):
        mine = windows[windows[:, 0] == document]
        predicted = [token for _, _, first, last in mine for token in range(first, last)]
        assert predicted == list(range(length))
        assert all(last - begin <= 8 for _, begin, _, last in mine)
        assert all(first - begin >= 3 for _, begin, first, _ in mine if begin)


def test_losses_equal_a_loop_over_single_tokens(book):
    """Each token's loss from a forward pass of its own, of the start token and all that the window holds before it."""
    from guidebook.data.tokens import tokenise
    from guidebook.training.scoring import start_token, token_nats

    host = book.wear()
    tokens = tokenise(DOCUMENTS[:2], host.tokenizer)
    found = token_nats(host, tokens, 16, "float32")
    place = 0
    for document, begin, first, last in windows_over(tokens.lengths, 16).tolist():
        whole = [start_token(host), *tokens[document].tolist()]
        for token in range(first, last):
            with torch.no_grad():
                logits = host.model(torch.tensor([whole[begin : token + 1]])).logits[0, -1]
            expected = -logits.log_softmax(-1)[whole[token + 1]].item()
            assert found[place] == pytest.approx(expected, abs=1e-4)
            place += 1
    assert place == len(found)


def test_windows_of_a_document_are_read_without_copying_it():
    """Against a loop over the whole document with its start token; a window takes memory of a window's size."""
    from guidebook.data.tokens import Tokens
    from guidebook.training.scoring import _batch

    lengths = np.array([3, 40, 1, 17, 8])
    ids = np.arange(100, 100 + lengths.sum()).astype(np.int32)
    tokens = Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]), "made")
    windows = windows_over(lengths, 8)
    found = _batch(tokens, windows, 8, start=7)
    for row, (document, begin, first, last) in enumerate(windows.tolist()):
        whole = [7, *tokens[document].tolist()]
        assert found[0][row].tolist() == whole[begin:last] + [7] * (8 - last + begin)
        assert found[1][row].sum() == last - begin
        of_row = (found[2] // 8 == row).numpy()
        assert found[3][of_row].tolist() == whole[first + 1 : last + 1]
        assert (found[2][of_row] % 8).tolist() == list(range(first - begin, last - begin))
        assert tokens.ids[found[4][of_row]].tolist() == whole[first + 1 : last + 1]
    assert found[0].dtype == found[3].dtype == torch.int64
    long = Tokens(np.zeros(4_000_000, np.int32), np.array([0, 4_000_000]), "long")
    tracemalloc.start()
    _batch(long, np.array([[0, 3_000_000, 3_000_004, 3_000_008]]), 8, start=7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_the_account_is_what_the_models_give(book):
    from guidebook.data.tokens import tokenise
    from guidebook.training.scoring import token_nats

    target = book.meta["evaluation"]["targets"][0]
    held = DOCUMENTS[18:]
    for arm, name in (("base", None), ("domain_fusion", "auto")):
        host = book.wear(name)
        tokens = tokenise(held, host.tokenizer)
        nats = token_nats(host, tokens, 16, "float32").sum()
        scores = target["scores"][arm]
        assert scores["bits_per_byte"] == pytest.approx(nats / math.log(2) / sum(len(t) for t in held), rel=1e-4)
        assert scores["documents"] == 6
    change = target["changes"]["domain_fusion"]
    assert change["estimate"] < 0
    assert change["high"] < 0  # it learned something on these few texts
    assert target["trained_on"]["scores"]["base"]["documents"] == 18
    general = book.meta["evaluation"]["general"][0]
    assert (general["name"], general["scores"]["base"]["documents"]) == ("wiki", 2)
    mix = book.meta["stages"][0]["mix"]
    assert mix["wiki"] == pytest.approx(0.25, abs=0.05)
    assert [domain["role"] for domain in book.meta["domains"]] == ["target", "general", "held out", "held out"]


# The artifact


def test_the_artifact_has_adapters_and_no_head(book):
    assert not (book.path / "head.safetensors").exists()
    assert (book.path / "adapters" / "domain" / "adapter_model.safetensors").exists()
    card, page = (book.path / name for name in ("README.md", "report.html"))
    assert "pipeline_tag: text-generation" in card.read_text()
    assert "bits/byte" in card.read_text()
    assert "Before and after" in page.read_text()
    record = json.loads((book.path / "records.jsonl").read_text())
    assert record["before"]["bits_per_byte"] > record["after"]["bits_per_byte"]
    assert record["general"]["wiki"] == book.meta["evaluation"]["general"][0]["changes"]["domain_fusion"]
    with pytest.raises(InputError, match="no task head"):
        book.predict(["a text"])


def test_the_adapter_loads_with_plain_peft(book, base):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import guidebook.peft  # noqa: F401

    plain = AutoModelForCausalLM.from_pretrained(base("gptj"))
    model = PeftModel.from_pretrained(plain, book.path / "adapters" / "domain", adapter_name="domain").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, book.wear().model(ids).logits, rtol=1e-4, atol=1e-4)


def test_generation_is_repeatable_streamed_and_the_bases_own_without_adapters(book, base):
    from transformers import AutoModelForCausalLM

    sampling = Sampling(max_length=24)
    pieces: list[str] = []
    text = book.generate(["the plot was"], sampling, on_text=pieces.append)[0]
    assert "".join(pieces) == text
    assert book.generate(["the plot was"], sampling) == [text]
    assert book.generate(["the plot was"], Sampling(max_length=24, seed=5)) != [text]
    greedy = Sampling(max_length=24, temperature=0)
    plain = AutoModelForCausalLM.from_pretrained(base("gptj")).eval()
    tokenizer = book.wear(None).tokenizer
    ids = tokenizer("the plot was", return_tensors="pt")["input_ids"]
    out = plain.generate(ids, max_length=24, do_sample=False, pad_token_id=0)
    expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert book.generate(["the plot was"], greedy, domain=None) == [expected]
    assert book.generate(["the plot was"], greedy) != [expected]
    for wrong in ({"max_length": 1}, {"top_p": 0.0}, {"temperature": -1.0}, {"top_k": -1}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Sampling(**wrong)
    with pytest.raises(InputError, match="64 positions"):
        book.generate(["the"], Sampling(max_length=65))
    with pytest.raises(InputError, match="no room"):
        book.generate(["the plot was a slow burn"], Sampling(max_length=3))
    with pytest.raises(InputError, match="one string"):
        book.generate("the")


# Commands


def test_without_a_prompt_the_guidebooks_own_samples_are_written_on(book, capsys, monkeypatch):
    prompts = [sample["prompt"] for sample in book.meta["evaluation"]["samples"]]
    assert len(prompts) == 3
    assert main(["generate", str(book.path), "--max-length", "40", "--json", "-q"]) == 0
    assert [row["prompt"] for row in json.loads(capsys.readouterr().out)["texts"]] == list(dict.fromkeys(prompts))
    monkeypatch.setattr("guidebook.artifact.load", lambda path, **_: SimpleNamespace(meta={"evaluation": {}}))
    assert main(["generate", str(book.path), "-q"]) == 2
    assert "--prompt" in capsys.readouterr().err


def test_commands_on_a_guidebook(book, tmp_path, capsys):
    other, wiki = tmp_path / "other.txt", tmp_path / "wiki.txt"
    other.write_text("\n".join([f"{text} at the other company" for text in TEXTS[:4]] + [DOCUMENTS[0]]) + "\n")
    wiki.write_text("\n".join(GENERAL) + "\n")
    path = str(book.path)
    asked = ["generate", path, "--prompt", "the plot", "--max-length", "20"]
    assert main([*asked, "--compare", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["texts"][0]
    assert row["before"] != row["after"]
    assert main([*asked, "--compare"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("prompt", "before", "after"))
    assert main([*asked, "--compare", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| prompt | before | after |\n|---|---|---|\n| the plot |")
    assert main([*asked]) == 0
    assert capsys.readouterr().out.startswith("the plot" + row["after"])
    assert main([*asked, "--markdown", "--json"]) == 2
    assert main(["evaluate", path, "--on", str(other), "--general", str(wiki), "--json", "--prompts", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["on"]["other"]["scores"]["base"]["documents"] == 5
    assert 0 < found["on"]["other"]["spans"]["copied_share"] < 0.5  # one of the five was trained on
    novel, all_of_it = found["on"]["other"]["spans"]["novel"], found["on"]["other"]["scores"]
    assert novel["domain_fusion"]["bits_per_byte"] != all_of_it["domain_fusion"]["bits_per_byte"]
    assert found["general"]["wiki"]["changes"]["domain_fusion"]["low"] is not None
    assert "left_out" in found["memorisation"]  # prompts of 50 tokens do not fit into 16
    assert main(["evaluate", path, "--on", str(other), "--general", str(wiki)]) == 0
    out = capsys.readouterr()
    assert "other, novel parts" in out.out
    assert "do not fit" in out.err
    assert main(["evaluate", path]) == 2
    assert "nothing to evaluate on" in capsys.readouterr().err


def test_copied_parts_are_scored_apart_to_the_byte(book, tmp_path):
    other = Domain("other", [f"Zebras {DOCUMENTS[0]} quietly", "nothing here was ever read before"])
    found = gb.evaluate_text(book, [other], prompts=0)["on"]["other"]
    spans, whole = found["spans"], found["scores"]
    for arm in ("base", "domain_fusion"):
        parts = [spans[part][arm] for part in ("copied", "novel")]
        assert sum(part["bytes"] for part in parts) == whole[arm]["bytes"]
        bits = sum(part["bits_per_byte"] * part["bytes"] for part in parts)
        assert bits / whole[arm]["bytes"] == pytest.approx(whole[arm]["bits_per_byte"])
    assert spans["copied_share"] * whole["base"]["bytes"] == pytest.approx(len(DOCUMENTS[0]) + 1, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gptj", "gpt2", "llama", "gpt_neox", "opt"])
def test_the_whole_way_on_the_command_line(base, filings, tmp_path, capsys, family):
    out = tmp_path / "runs" / "filings"
    flags = ["--task", "causal_lm", "--base", str(base(family)), "--target", str(filings), "--out", str(out)]
    settings = ["train.max_length=64", "train.tokens_per_batch=256", "train.fuse.epochs=1", "train.dtype=float32"]
    assert main(["adapt", *flags, *settings, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "tokens" in planned
    assert "Memory " in planned
    assert main(["adapt", *flags, *settings, "task.prompts=[the plot]"]) == 0
    said = capsys.readouterr()
    assert "How well text is predicted" in said.out
    assert "before and" in said.out
    assert ("packed" in said.err) == (family == "opt")
    assert main(["generate", str(out), "--prompt", "the plot", "--compare", "--max-length", "12"]) == 0
    assert main(["evaluate", str(out), "--on", str(filings / "validation"), "--prompts", "3", "--json"]) == 0
    document = capsys.readouterr().out
    learned = json.loads(document[document.index("{\n") :])["memorisation"]
    assert "left_out" in learned or set(learned) == {"base", "domain_fusion"}


@pytest.mark.slow
def test_stopped_and_gone_on_is_bit_equal_to_undisturbed(base, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    class Stops(gb.Listener):
        def advance(self, name, done, **figures):
            if name == "fuse" and done == 4:
                raise KeyboardInterrupt

    made = recipe(base("gptj"), train={**TRAIN, "checkpoint_seconds": 0, "micro_batches": 2})
    weights, resumed = [], []
    for disturbed in (False, True):
        monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / f"cache{disturbed}"))
        if disturbed:
            with pytest.raises(KeyboardInterrupt):
                gb.adapt(made, listener=Stops())
        found = gb.adapt(made, out=tmp_path / str(disturbed))
        weights.append(load_file(found.path / "adapters" / "domain" / "adapter_model.safetensors"))
        resumed.append(found.meta["stages"][0]["resumed_from_step"])
    assert resumed[0] == 0
    assert resumed[1] > 0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_packing_is_part_of_what_decides_a_stage(base):
    from guidebook.adaptation import prepare
    from guidebook.losses.language_modelling import LanguageModelling
    from guidebook.methods.stage import Stage
    from guidebook.training.listener import Listener

    keys = {}
    for family in ("gptj", "opt"):
        for packing in (True, False):
            material, engine = prepare(recipe(base(family), train={**TRAIN, "packing": packing}), Listener())
            text = LanguageModelling(material.text(material.corpus.targets, "proportional"))
            keys[family, packing] = engine.key(Stage("fuse", {"lm": text}, train={"domain": None}), {})
    assert keys["gptj", True] != keys["gptj", False]
    assert keys["opt", True] == keys["opt", False]  # it is not packed either way


# Bad input


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"train": {**TRAIN, "max_length": 65}}, "positions"),
        ({"source": [Domain("books", TEXTS, labels=[0, 1] * 4)]}, "takes no source"),
        ({"targets": []}, "no target"),
        ({"method": "source_only"}, "learns from labels"),
        ({"method": "general_mlm", "general": []}, "general text"),
        ({"method": {"name": "domain_fusion", "general": 0.2}, "general": []}, "general text"),
        ({"method": {"name": "domain_fusion", "general": 1.0}}, "less than 1"),
        ({"task": {"kind": "causal_lm", "validation_split_ratio": 0}}, "validation_split_ratio"),
        ({"task": {"kind": "causal_lm", "max_train_documents": 0}}, "max_train_documents"),
        ({"train": {**TRAIN, "fuse": {"epochs": 0}}}, "epochs"),
        ({"train": {**TRAIN, "fuse": {"epochs": 1, "tokens": 9}}}, "beside"),
    ],
)
def test_recipes_that_cannot_be(base, changes, found):
    with pytest.raises(InputError, match=found):
        gb.estimate(recipe(base("gptj"), **changes))


def test_what_does_not_fit_is_not_loaded(base, monkeypatch, capsys):
    from guidebook.cli.console import print_plan, stdout

    monkeypatch.setattr("guidebook.adaptation.available_megabytes", lambda: 0.01)
    monkeypatch.setattr("guidebook.adaptation.prepare", lambda *arguments: pytest.fail("the base was loaded"))
    plan = gb.estimate(recipe(base("gptj")))
    assert plan["stages"] == []
    assert plan["memory"]["total"] > plan["available_megabytes"]
    print_plan(stdout(), plan)
    assert "nothing was loaded" in capsys.readouterr().out


def test_an_encoder_cannot_write(tiny_base):
    with pytest.raises(InputError, match="not a causal language model"):
        gb.estimate(recipe(tiny_base("bert")))


def test_a_tokenizer_without_an_end_is_refused(base, tmp_path):
    import shutil

    folder = tmp_path / "endless"
    shutil.copytree(base("gptj"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("eos_token", "bos_token"):
        settings.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="eos_token"):
        gb.estimate(recipe(folder))


def test_documents_end_and_nothing_is_dropped(base, tmp_path):
    from guidebook.adaptation import prepare
    from guidebook.training.listener import Listener

    material, _ = prepare(recipe(base("gptj")), Listener())
    stream = material.text(material.corpus.targets, "proportional")
    plain = material.plain_tokens(material.corpus.targets[0])
    assert int(stream.tokens.lengths.sum()) == int(plain.lengths.sum()) + len(plain)
    assert int((stream.tokens.ids == material.tokenizer.eos_token_id).sum()) == len(plain)
    assert stream.tokens.lengths.max() <= 16


def test_a_second_run_trains_nothing_and_gives_the_same(base, filings, tmp_path):
    made = recipe(base("llama"), targets=[str(filings)])
    first = gb.adapt(made, out=tmp_path / "one")
    second = gb.adapt(made, out=tmp_path / "two")
    assert second.meta["stages"][0]["cached"]
    assert first.meta["evaluation"] == second.meta["evaluation"]
