"""One text after the other: what does not change is not made again, and no answer is another model's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from guidebook.adapters.host import Host
from guidebook.adapters.placement import Placement
from guidebook.adapters.presets import Houlsby, LoRA
from guidebook.adapters.tuners import Tuners
from guidebook.artifact import Guidebook
from guidebook.caution import unlike
from guidebook.data import tokeniser
from guidebook.data.tokeniser import tokenise, whole_text
from tiny import TEXTS

KINDS: dict[str, Any] = {"houlsby": Houlsby(reduction=4), "lora": LoRA(rank=2)}


@pytest.fixture
def make(tiny_base: Callable[[str], Path], tmp_path: Path) -> Callable[..., Guidebook]:
    """Build guidebooks on one base without training: names with their kinds, each with a twin beside its adapter."""

    def made(**kinds: str) -> Guidebook:
        host = Host.load(str(tiny_base("bert")))
        books: dict[str, tuple[Path, dict[str, Any]]] = {}
        for number, (name, kind) in enumerate(kinds.items()):
            heads = {}
            for place, variant in enumerate(("domain_fusion", "source_only")):
                folder = tmp_path / name / ("source_only" if variant == "source_only" else ".") / "adapters" / "task"
                host.add("task", KINDS[kind], seed=0)
                host.activate(("task",), train=("task",))
                draw = torch.Generator().manual_seed(10 * number + place)
                for value in host.trainable().values():
                    torch.nn.init.normal_(value, std=0.3, generator=draw)
                host.save("task", folder)
                host.remove("task")
                heads[f"{variant}.head.output.weight"] = torch.randn(2, host.hidden_size, generator=draw)
                heads[f"{variant}.head.output.bias"] = torch.randn(2, generator=draw)
            save_file(heads, tmp_path / name / "head.safetensors")
            variants = {
                "domain_fusion": {"folder": ".", "stack": ["task"], "head": "domain_fusion"},
                "source_only": {"folder": "source_only", "stack": ["task"], "head": "source_only"},
            }
            recipe = {"adapter": {"kind": kind}, "train": {"dtype": "float32", "max_length": 32}}
            task = {"labels": ["bad", "good"], "pooling": "mean", "pairs": False, "max_length": 32}
            facts = {"method": "domain_fusion", "variants": variants, "recipe": recipe, "task": task}
            books[name] = (tmp_path / name, {**facts, "serves": {f"{name}'s": "domain_fusion"}})
        return Guidebook(host, books)

    return made


def alone(make: Callable[..., Guidebook], kinds: dict[str, str], domain: str, texts: list[str]) -> np.ndarray:
    """Return what guidebooks that have just been loaded say."""
    return make(**kinds).predict_proba(texts, domain=domain)


@pytest.mark.parametrize("kinds", [{"a": "houlsby", "b": "houlsby"}, {"a": "houlsby", "b": "lora"}])
def test_switching_back_and_forth_gives_each_model_s_own_answers(
    make: Callable[..., Guidebook], kinds: dict[str, str]
) -> None:
    domains = ["a", "b", "a", "a's", "b's", "b", "a"]
    expected = {name: alone(make, kinds, name, TEXTS) for name in dict.fromkeys(domains)}
    assert not np.allclose(expected["a"], expected["b"])
    book = make(**kinds)
    for name in [*domains, *reversed(domains)]:
        assert np.array_equal(book.predict_proba(TEXTS, domain=name), expected[name]), name


def test_the_twin_the_base_and_the_adapted_model_take_turns(make: Callable[..., Guidebook]) -> None:
    one = {"a": "houlsby"}
    expected = {name: alone(make, one, name, TEXTS) for name in ("a", "source_only")}
    book = make(**one)
    bare = book.wear(None).model(torch.tensor([[5, 6, 7]])).logits
    for name in ("a", "source_only", "source_only", "a"):
        assert np.array_equal(book.predict_proba(TEXTS, domain=name), expected[name]), name
        assert torch.equal(book.wear(None).model(torch.tensor([[5, 6, 7]])).logits, bare)
        with book.host.disabled():
            assert torch.equal(book.host.model(torch.tensor([[5, 6, 7]])).logits, bare)
    assert not np.allclose(expected["a"], expected["source_only"])


def test_the_second_text_makes_nothing_again(make: Callable[..., Guidebook], monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are not walked, adapters not switched, heads not built and the tokenizer not copied."""
    book = make(a="houlsby", b="houlsby")
    first = book.predict_proba(TEXTS[:1], domain="a")

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("made again")

    from tokenizers import Tokenizer

    monkeypatch.setattr(Tuners, "activate", again)
    monkeypatch.setattr("guidebook.artifact.read_tensors", again)
    monkeypatch.setattr("guidebook.artifact.head_from", again)
    monkeypatch.setattr(Tokenizer, "from_str", again)
    monkeypatch.setattr(Placement, "head_name", again)
    monkeypatch.setattr(type(book.host.model), "eval", again)
    assert np.array_equal(book.predict_proba(TEXTS[:1], domain="a"), first)
    with pytest.raises(AssertionError, match="made again"):
        book.predict_proba(TEXTS[:1], domain="b")  # another model is switched on


@pytest.mark.parametrize("kinds", [{"a": "houlsby", "b": "houlsby"}, {"a": "houlsby", "b": "lora"}])
def test_threads_get_the_answers_of_their_own_model(make: Callable[..., Guidebook], kinds: dict[str, str]) -> None:
    names = ["a", "b", "a's", "b's"]
    fresh = {name: make(**kinds) for name in names}
    expected = {(name, i): fresh[name].predict_proba([TEXTS[i]], domain=name) for name in names for i in range(3)}
    book = make(**kinds)
    asked = [(names[turn % 4], turn // 4 % 3) for turn in range(48)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda ask: book.predict_proba([TEXTS[ask[1]]], domain=ask[0]), asked))
    for ask, value in zip(asked, found, strict=True):
        assert np.array_equal(value, expected[ask]), ask


def test_what_is_switched_on_is_told_anew_after_adapters_came_and_went(tiny_base: Callable[[str], Path]) -> None:
    host = Host.load(str(tiny_base("bert")))
    for name in ("one", "two"):
        host.add(name, LoRA(rank=2), seed=1)
        host.activate((name,), train=(name,))
        for value in host.trainable().values():
            torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(len(name) + ord(name[0])))
    ids = torch.tensor([[5, 6, 7]])
    host.activate(("one",))
    expected = host.model(ids).logits
    host.activate(("one",))
    assert not host.trainable()
    host.remove("two")
    assert torch.equal(host.model(ids).logits, expected)
    host.add("three", LoRA(rank=2), seed=2)
    assert torch.equal(host.model(ids).logits, expected)
    host.activate(("one",), train=("one",))
    assert host.trainable()
    host.remove("one")
    host.add("one", LoRA(rank=2), seed=3)
    host.activate(("one",))
    assert not torch.equal(host.model(ids).logits, expected)  # the new one of that name


def test_a_tokenizer_that_was_changed_is_copied_again(tiny_base: Callable[[str], Path]) -> None:
    tokenizer = Host.load(str(tiny_base("bert"))).tokenizer
    before, copy = tokenise(["one newword two"], tokenizer), whole_text(tokenizer)
    assert whole_text(tokenizer) is copy
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert np.array_equal(tokenise(["one newword two"], tokenizer).ids, before.ids)
    tokenizer.add_tokens(["newword"])
    after = tokenise(["one newword two"], tokenizer)
    assert after.fingerprint != before.fingerprint
    assert len(after.ids) < len(before.ids)
    tokenizer.backend_tokenizer.encode_special_tokens = True
    assert whole_text(tokenizer).encode_special_tokens
    assert len(tokeniser._COPIES) >= 1


def test_strange_rows_are_told_by_the_base_under_the_lock(make: Callable[..., Guidebook]) -> None:
    book = make(a="houlsby")
    rows = np.random.default_rng(0).normal(size=(6, book.host.hidden_size)).astype(np.float32)
    stored = {"source/rows": torch.from_numpy(rows), "source/distances": torch.linspace(0, 1, 6)}
    save_file(stored, book.path / "known_rows.safetensors")
    expected = unlike(book, "a's", TEXTS[:2])
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(unlike, book, "a's", TEXTS[:2]) for _ in range(6)]
        others = [pool.submit(book.predict_proba, TEXTS[:1], None, "a's") for _ in range(6)]
    assert all(np.array_equal(found.result(), expected) for found in asked)
    assert len({found.result().tobytes() for found in others}) == 1
