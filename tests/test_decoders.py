"""Decoders on labelled tasks: which state stands for a row, padding, words around a row, and what is cut."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import guidebook as gb
from guidebook.adapters.host import Host
from guidebook.losses.task import PooledHead
from guidebook.preparation import prepare
from guidebook.tasks.heads import Head
from guidebook.training.listener import Listener
from guidebook.training.pooling import WAYS, accuracies
from guidebook.training.prediction import make_rows, predict_probabilities
from tiny import LABELS, TEXTS, tiny_recipe
from tiny_causal import save

DECODERS = ["gpt2", "gptj", "gpt_neox", "llama", "qwen2", "gemma2", "opt", "bloom", "falcon"]


class Heard(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEBOOK_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", DECODERS)
def test_a_row_is_answered_alike_alone_and_beside_longer_ones(family, pooling, tmp_path):
    host = Host.load(str(save(family, tmp_path / family)), needs_lm_head=False)
    head = PooledHead(Head(host.hidden_size, 3, seed=1), pooling)
    texts = [TEXTS[0][:20], *TEXTS, " ".join(TEXTS[:2])[:60]]
    for side in ("right", "left"):
        host.tokenizer.padding_side = side
        together = predict_probabilities(host, head, make_rows(texts, None, host.tokenizer, 64))
        alone = [predict_probabilities(host, head, make_rows([text], None, host.tokenizer, 64))[0] for text in texts]
        np.testing.assert_allclose(together, alone, atol=2e-6)


def counted(number: int) -> gb.Domain:
    """Rows whose label is told by how often a word stands in them, never by how they end."""
    draw = np.random.default_rng(0)
    rows, labels = [], []
    for index in range(number):
        words = draw.choice(["the", "and", "a", "room", "pan"], 12).tolist()
        words[: 6 * (index % 2)] = ["cried"] * (6 * (index % 2))
        rows.append(" ".join([*draw.permutation(words).tolist(), draw.choice(["end", "sight", "use"])]))
        labels.append(index % 2)
    return gb.Domain("counted", rows, labels=labels)


def ending(number: int) -> gb.Domain:
    """Rows whose label is their last word, one among many words of both kinds."""
    draw = np.random.default_rng(0)
    kinds = (["cried", "kind", "warm"], ["cool", "flat", "dull"])
    rows = [
        " ".join([*draw.permutation([*kinds[0], *kinds[1]]).tolist(), str(draw.choice(kinds[index % 2]))])
        for index in range(number)
    ]
    return gb.Domain("ending", rows, labels=[index % 2 for index in range(number)])


@pytest.mark.parametrize(("source", "expected"), [(counted, "mean"), (ending, "last")])
def test_pooling_is_the_way_that_held_out_source_rows_are_read_better_with(source, expected, tiny_base, tmp_path):
    heard = Heard()
    changes = {"source": source(200), "task": {"max_length": 60, "dev": 0.4}}
    material, engine = prepare(tiny_recipe(tiny_base("llama"), **changes), heard)
    right = accuracies(engine, material)
    assert engine.pooling == max(WAYS, key=right.get) == expected, right
    (told,) = [note for note in heard.notes if note.startswith("pooling")]
    assert told.startswith(f"pooling {expected}: ")
    assert f"mean {100 * right['mean']:.1f} %" in told


def test_what_is_said_or_fitting_is_not_chosen_again(tiny_base):
    for base, task, expected in (
        ("llama", {"pooling": "mean"}, "mean"),
        ("llama", {"dev": 0.0}, "last"),
        ("bert", {}, "mean"),
    ):
        heard = Heard()
        _, engine = prepare(tiny_recipe(tiny_base(base), task=task), heard)
        assert engine.pooling == expected
        assert not [note for note in heard.notes if note.startswith("pooling")]


def test_what_is_cut_is_said_before_training(tiny_base):
    heard = Heard()
    source = gb.Domain("books", [*TEXTS, " ".join(TEXTS)], labels=[*LABELS, 1])
    material, _ = prepare(tiny_recipe(tiny_base("bert"), source=source, task={"max_length": 20, "dev": 0.0}), heard)
    lengths = material.plain_tokens(material.corpus.sources[0]).lengths
    rows, tokens = (lengths > 18).mean(), np.maximum(lengths - 18, 0).sum() / lengths.sum()
    assert any(
        f"books (source): task.max_length 20 cuts {rows:.1%} of the rows and {tokens:.1%} of the tokens" in note
        for note in heard.notes
    )
    heard = Heard()
    prepare(tiny_recipe(tiny_base("bert"), task={"max_length": 60}), heard)
    assert "task.max_length 60 cuts no row" in heard.notes


def test_a_template_is_in_the_rows_the_key_the_guidebook_and_its_predictions(tiny_base, tmp_path):
    base, task = tiny_base("llama"), {"max_length": 48, "pooling": "last"}
    plain = gb.adapt(tiny_recipe(base, method="source_only", task=task), tmp_path / "plain")
    asked = {**task, "template": "{review}\nIs it dull?"}
    book = gb.adapt(tiny_recipe(base, method="source_only", task=asked), tmp_path / "asked")
    meta = json.loads((tmp_path / "asked" / "guidebook.json").read_text())
    assert meta["task"]["template"] == "{text}\nIs it dull?"
    assert plain.meta["task"]["template"] is None
    assert {s["key"] for s in plain.meta["stages"]}.isdisjoint(s["key"] for s in book.meta["stages"])
    found = gb.load(tmp_path / "asked").predict_proba(TEXTS, domain="kitchen")
    assert np.array_equal(found, book.predict_proba(TEXTS, domain="kitchen"))
    without = gb.load(tmp_path / "asked")
    without.meta["task"]["template"] = None
    assert not np.allclose(found, without.predict_proba(TEXTS, domain="kitchen"))


def test_a_template_of_pairs(tiny_base, tmp_path):
    def paired(domain: gb.Domain) -> gb.Domain:
        return dataclasses.replace(domain, text_pairs=[text[::-1][:12] for text in domain.texts])

    recipe = tiny_recipe(tiny_base("llama"), method="source_only", general=())
    recipe = recipe.replace(
        source=[paired(domain) for domain in recipe.source],
        targets=[paired(domain) for domain in recipe.targets],
        task={"max_length": 48, "template": "{premise} so {hypothesis}"},
    )
    book = gb.adapt(recipe, tmp_path / "book")
    assert book.meta["task"]["template"] == "{text} so {text_pair}"
    assert gb.load(tmp_path / "book").predict_proba(["a"], ["b"], domain="kitchen").shape == (1, 2)


@pytest.mark.parametrize(
    ("template", "told"),
    [("{txt}", "Did you mean 'text'"), ("{text} {text_pair}", "rows are single texts"), ("{text:x}", "plain name")],
)
def test_a_template_that_does_not_fit_is_refused_before_training(template, told, tiny_base):
    with pytest.raises(gb.InputError, match=told):
        prepare(tiny_recipe(tiny_base("bert"), task={"template": template}), Listener())


def test_pooled_states_are_those_of_the_text_on_either_side(tiny_base):
    """What the head reads is the text's own states, whichever side is filled up."""
    head = PooledHead(Head(4, 2, seed=0), "last").eval()
    states, mask = torch.randn(1, 3, 4), torch.tensor([[1, 1, 1]])
    filler, nothing = torch.full((1, 2, 4), float("nan")), torch.zeros(1, 2, dtype=torch.long)
    right = head(torch.cat([states, filler], 1), torch.cat([mask, nothing], 1))
    left = head(torch.cat([filler, states], 1), torch.cat([nothing, mask], 1))
    assert torch.equal(right, left)
